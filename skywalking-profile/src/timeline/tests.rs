//! The rules on small examples; [`random`] has the measure of the whole.
//!
//! A frame is one letter, `/` the root frame and `*` a running stretch without a sample, so that
//! `/ab` is the path of `b` called from `a`, and `/ab~` the same while the request waits for a worker.

mod random;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Node, SignatureId, Snapshot, Stack, Timeline, Visit, Window, analyse, snapshots, whole_ms};

const ROOT: SignatureId = SignatureId('/' as u32);

fn signature(frame: char) -> SignatureId {
    match frame {
        '*' => SignatureId::RUNNING,
        '~' => SignatureId::SCHEDULED,
        _ => SignatureId(frame.into()),
    }
}

fn frame(signature: SignatureId) -> char {
    match signature {
        SignatureId::RUNNING => '*',
        SignatureId::SCHEDULED => '~',
        SignatureId(letter) => char::from_u32(letter).unwrap(),
    }
}

fn stack(path: &str) -> Stack {
    path.chars().map(signature).collect()
}

/// A request in the making.
#[derive(Default)]
struct Recording {
    visits: Vec<Visit>,
    end_ns: u64,
}

impl Recording {
    fn wait(self, ms: f64, path: &str) -> Self {
        self.visit(ms, Some(stack(path)))
    }

    fn poll(self, ms: f64) -> Self {
        self.visit(ms, None)
    }

    fn visit(mut self, ms: f64, stack: Option<Stack>) -> Self {
        let from_ns = self.end_ns;
        self = self.unrecorded(ms);
        self.visits.push(Visit { from_ns, to_ns: self.end_ns, stack });
        self
    }

    fn unrecorded(mut self, ms: f64) -> Self {
        self.end_ns += (ms * 1e6).round() as u64;
        self
    }

    fn repeated(self, times: usize, part: impl Fn(Self) -> Self) -> Self {
        (0..times).fold(self, |recording, _| part(recording))
    }

    fn snapshots(&self, dump_period_ms: u64) -> Vec<Snapshot> {
        self.snapshots_of(&[(0, self.end_ns)], dump_period_ms)
    }

    /// Of these windows of it, from and to, in nanoseconds.
    fn snapshots_of(&self, windows: &[(u64, u64)], dump_period_ms: u64) -> Vec<Snapshot> {
        let window = |&(from_ns, to_ns)| Window::new(from_ns, to_ns, &self.visits);
        let windows: Vec<_> = windows.iter().map(window).collect();
        snapshots(&Timeline { root: ROOT, dump_period: Duration::from_millis(dump_period_ms), windows: &windows }).list
    }

    /// The durations in milliseconds that the OAP shows, by path.
    fn shown(&self) -> BTreeMap<String, i64> {
        let mut durations = BTreeMap::new();
        each_node(&analyse(&self.snapshots(10)), &mut String::new(), &mut |path, node| {
            durations.insert(path.to_owned(), node.duration_ms);
        });
        durations
    }

    #[track_caller]
    fn shows(&self, expected: &[(&str, i64)]) {
        let expected = expected.iter().map(|&(path, ms)| (path.to_owned(), ms));
        assert_eq!(self.shown(), expected.collect());
    }
}

fn each_node(nodes: &[Node], path: &mut String, each: &mut impl FnMut(&str, &Node)) {
    for node in nodes {
        path.push(frame(node.signature));
        each(path, node);
        each_node(&node.children, path, each);
        path.pop();
    }
}

/// Snapshots that are numbered from 0.
fn dumps(dumps: &[(i64, &str)]) -> Vec<Snapshot> {
    (0..).zip(dumps).map(|(sequence, &(time_ms, path))| Snapshot { sequence, time_ms, stack: stack(path) }).collect()
}

/// Sequence and time in order, the root frame everywhere, alone and at the span's times at both
/// ends, and no more than the OAP analyses.
#[track_caller]
fn assert_well_formed(snapshots: &[Snapshot], recording: &Recording) {
    let [first, .., last] = snapshots else {
        panic!("a request has at least two snapshots");
    };
    assert_eq!((first.time_ms, &*first.stack), (0, &[ROOT][..]));
    assert_eq!((last.time_ms, &*last.stack), (whole_ms(recording.end_ns), &[ROOT][..]));
    assert!((0..).zip(snapshots).all(|(sequence, snapshot)| snapshot.sequence == sequence));
    assert!(snapshots.is_sorted_by_key(|snapshot| snapshot.time_ms));
    assert!(snapshots.iter().all(|snapshot| snapshot.stack.first() == Some(&ROOT)));
    assert!(snapshots.len() <= 12_000);
}

#[test]
fn demo_is_exact() {
    Recording::default().wait(20.0, "/h3s").wait(20.0, "/h32s").wait(20.0, "/h321s").wait(500.0, "/hs").shows(&[
        ("/", 560),
        ("/h", 560),
        ("/h3", 60),
        ("/h32", 40),
        ("/h321", 20),
        ("/h321s", 20),
        ("/h32s", 20),
        ("/h3s", 20),
        ("/hs", 500),
    ]);
}

#[test]
fn diagram_is_exact() {
    Recording::default().wait(40.0, "/ABC").wait(60.0, "/ABD").shows(&[
        ("/", 100),
        ("/A", 100),
        ("/AB", 100),
        ("/ABC", 40),
        ("/ABD", 60),
    ]);
}

#[test]
fn short_waits_in_turn_are_exact() {
    Recording::default().repeated(30, |recording| recording.wait(1.5, "/hf").wait(1.5, "/hg")).shows(&[
        ("/", 90),
        ("/h", 90),
        ("/hf", 45),
        ("/hg", 45),
    ]);
}

#[test]
fn request_without_visits_is_its_root_frame() {
    let recording = Recording::default().unrecorded(7.4);
    assert_eq!(recording.snapshots(10), dumps(&[(0, "/"), (7, "/")]));
}

#[test]
fn request_without_length_has_two_snapshots() {
    assert_eq!(Recording::default().snapshots(10), dumps(&[(0, "/"), (0, "/")]));
}

#[test]
fn snapshots_run_from_edge_to_edge() {
    let recording = Recording::default().unrecorded(2.0).wait(4.0, "/a").wait(6.0, "/ab").unrecorded(2.0);
    assert_eq!(
        recording.snapshots(10),
        dumps(&[(0, "/"), (2, "/a"), (6, "/a"), (6, "/ab"), (9, "/ab"), (12, "/ab"), (14, "/")])
    );
}

#[test]
fn windows_have_snapshots_of_their_own() {
    let recording = Recording::default().wait(8.0, "/a").wait(8.0, "/b").wait(8.0, "/c");
    assert_eq!(
        recording.snapshots_of(&[(1_000_000, 3_000_000), (4_000_000, 10_400_000), (11_000_000, 11_400_000)], 100),
        dumps(&[
            (1, "/"),
            (1, "/a"),
            (3, "/a"),
            (3, "/"),
            (4, "/"),
            (4, "/a"),
            (8, "/a"),
            (8, "/b"),
            (10, "/b"),
            (10, "/"),
            (11, "/"),
            (11, "/"),
        ])
    );
}

#[test]
fn wait_of_less_than_a_millisecond_goes_to_the_common_ancestors() {
    Recording::default().wait(5.0, "/ab").wait(0.9, "/acd").wait(5.1, "/ae").shows(&[
        ("/", 11),
        ("/a", 11),
        ("/ab", 5),
        ("/ae", 5),
    ]);
}

#[test]
fn poll_is_running_below_what_its_neighbours_share() {
    Recording::default().wait(5.0, "/abc").poll(2.0).wait(5.0, "/abd").shows(&[
        ("/", 12),
        ("/a", 12),
        ("/ab", 12),
        ("/ab*", 2),
        ("/abc", 5),
        ("/abd", 5),
    ]);
}

#[test]
fn poll_between_equal_waits_is_no_part_of_their_leaf() {
    Recording::default().wait(5.0, "/ab").poll(2.0).wait(5.0, "/ab").shows(&[
        ("/", 12),
        ("/a", 12),
        ("/a*", 2),
        ("/ab", 10),
    ]);
}

#[test]
fn poll_between_a_wait_and_one_below_it_is_no_part_of_the_upper_leaf() {
    Recording::default().wait(5.0, "/ab").poll(2.0).wait(5.0, "/abc").shows(&[
        ("/", 12),
        ("/a", 12),
        ("/a*", 2),
        ("/ab", 10),
        ("/abc", 5),
    ]);
}

#[test]
fn poll_after_a_wait_for_a_worker_is_not_below_what_was_awaited() {
    let wait = |recording: Recording| recording.wait(5.0, "/ab").wait(3.0, "/ab~");
    let expected = [("/", 18), ("/a", 18), ("/ab", 16), ("/ab~", 6), ("/a*", 2)];
    wait(wait(Recording::default()).poll(2.0)).shows(&expected);
    Recording::default().wait(4.0, "/ab~").poll(2.0).wait(4.0, "/ab~").shows(&[
        ("/", 10),
        ("/a", 10),
        ("/ab", 8),
        ("/ab~", 8),
        ("/a*", 2),
    ]);
}

#[test]
fn poll_at_either_end_is_running_below_the_root() {
    Recording::default().poll(2.0).wait(5.0, "/ab").poll(3.0).shows(&[("/", 10), ("/*", 5), ("/a", 5), ("/ab", 5)]);
}

#[test]
fn poll_of_half_a_millisecond_is_shown_and_a_shorter_one_is_not() {
    Recording::default().wait(5.25, "/ab").poll(0.5).wait(5.25, "/ac").shows(&[
        ("/", 11),
        ("/a", 11),
        ("/a*", 1),
        ("/ab", 5),
        ("/ac", 5),
    ]);
    Recording::default().wait(5.25, "/ab").poll(0.49).wait(5.25, "/ac").shows(&[
        ("/", 11),
        ("/a", 11),
        ("/ab", 5),
        ("/ac", 5),
    ]);
}

#[test]
fn neighbours_of_a_poll_need_not_touch_it_nor_be_shown() {
    Recording::default()
        .wait(5.0, "/ab")
        .wait(0.2, "/c")
        .unrecorded(0.2)
        .poll(2.0)
        .unrecorded(0.2)
        .poll(2.0)
        .unrecorded(0.4)
        .wait(5.0, "/ab")
        .shows(&[("/", 15), ("/*", 4), ("/a", 10), ("/ab", 10)]);
}

#[test]
fn row_of_short_waits_is_shown_as_what_they_share() {
    Recording::default()
        .unrecorded(2.0)
        .repeated(100, |recording| recording.wait(0.3, "/abx").poll(0.1).wait(0.1, "/aby"))
        .wait(0.2, "/c")
        .shows(&[("/", 52), ("/a", 50), ("/ab", 50)]);
}

#[test]
fn row_of_equal_waits_is_no_part_of_their_leaf() {
    Recording::default()
        .repeated(100, |recording| recording.wait(0.3, "/abc").unrecorded(0.1))
        .wait(0.1, "/abc")
        .shows(&[("/", 40), ("/a", 40), ("/ab", 40)]);
}

#[test]
fn row_ends_where_it_would_lose_frames() {
    Recording::default()
        .repeated(10, |recording| recording.wait(0.5, "/ab").wait(0.5, "/ac"))
        .repeated(10, |recording| recording.wait(0.5, "/db").wait(0.5, "/dc"))
        .shows(&[("/", 20), ("/a", 10), ("/d", 10)]);
}

#[test]
fn equal_waits_that_touch_are_one() {
    let halves = Recording::default().wait(0.5, "/ab").wait(0.5, "/ab");
    let whole = Recording::default().wait(1.0, "/ab");
    assert_eq!(halves.snapshots(10), whole.snapshots(10));
}

#[test]
fn forgotten_gap_is_not_worth_a_snapshot() {
    let recording = Recording::default().wait(5.0, "/ab").poll(0.3).wait(4.7, "/ab");
    recording.shows(&[("/", 10), ("/a", 10), ("/ab", 10)]);
    assert_eq!(recording.snapshots(10).len(), 2 + 5);
}

#[test]
fn forgotten_gaps_break_the_run_when_they_add_up() {
    Recording::default().repeated(50, |recording| recording.wait(4.8, "/abc").poll(0.2)).shows(&[
        ("/", 250),
        ("/a", 250),
        ("/ab", 250),
        ("/abc", 240),
    ]);
}

#[test]
fn run_of_one_frame_is_never_broken() {
    let recording = Recording::default().repeated(50, |recording| recording.wait(4.8, "/").poll(0.4));
    recording.shows(&[("/", 260)]);
    assert_well_formed(&recording.snapshots(10), &recording);
}

#[test]
fn run_below_the_root_is_broken_by_the_root_alone() {
    let recording = Recording::default().wait(5.0, "/a").unrecorded(1.0).wait(4.0, "/a");
    assert_eq!(
        recording.snapshots(100),
        dumps(&[(0, "/"), (0, "/a"), (3, "/a"), (5, "/a"), (5, "/"), (6, "/a"), (10, "/a"), (10, "/"),])
    );
}

#[test]
fn self_time_between_many_waits_is_exact_too() {
    let recording = ('A'..='Z')
        .fold(Recording::default(), |recording, leaf| recording.wait(4.55, &format!("/h{leaf}")).unrecorded(0.05));
    let trees = analyse(&recording.snapshots(10));
    let handler = &trees[0].children[0];
    assert_eq!((handler.children.len(), handler.duration_ms, handler.self_ms), (26, 120, 1));
}

#[test]
fn short_request_is_dumped_every_other_millisecond() {
    let recording = Recording::default().wait(560.0, "/a");
    assert_eq!(recording.snapshots(100).len(), 2 + 280);
}

#[test]
fn longer_request_is_dumped_as_often_as_two_thousand_snapshots_allow() {
    let recording = Recording::default().wait(9_000.0, "/a");
    assert_eq!(recording.snapshots(10).len(), 2 + 1_800);
}

#[test]
fn long_request_is_dumped_at_the_dump_period() {
    let recording = Recording::default().wait(60_000.0, "/a");
    assert_eq!(recording.snapshots(10).len(), 2 + 6_000);
}

#[test]
fn fifteen_minutes_fit() {
    let recording = Recording::default().wait(899_990.3, "/hs").wait(10.0, "/ht");
    recording.shows(&[("/", 900_000), ("/h", 900_000), ("/hs", 899_990), ("/ht", 10)]);
    let snapshots = recording.snapshots(10);
    assert_well_formed(&snapshots, &recording);
    assert!(snapshots.len() > 11_000);
}

#[test]
fn dumps_are_thinned_before_waits_are_left_out() {
    let recording = Recording::default().repeated(2_500, |recording| recording.wait(100.0, "/ab").wait(2.0, "/ac"));
    recording.shows(&[("/", 255_000), ("/a", 255_000), ("/ab", 250_000), ("/ac", 5_000)]);
    assert_well_formed(&recording.snapshots(10), &recording);
}

#[test]
fn too_many_waits_leave_what_they_share() {
    let recording = "abcdefghij".chars().fold(Recording::default(), |recording, phase| {
        recording.repeated(5_000, |recording| {
            recording.wait(2.0, &format!("/h{phase}xs")).wait(3.0, &format!("/h{phase}yt"))
        })
    });
    let snapshots = recording.snapshots(10);
    assert_well_formed(&snapshots, &recording);
    let trees = analyse(&snapshots);
    let handler = &trees[0].children[0];
    assert_eq!((trees[0].duration_ms, handler.duration_ms), (250_000, 250_000));
    assert_eq!(handler.children.len(), 10);
    assert!(handler.children.iter().all(|phase| (phase.duration_ms - 25_000).abs() <= 5));
}

#[test]
fn many_different_waits_fit() {
    let frames = ['a', 'b', 'c', 'd', 'e'];
    let recording = (0..100_000).fold(Recording::default(), |recording, wait| {
        let common = wait * 7 % 30;
        let own = (0..30 - common).map(|level| frames[(wait >> level) % 5]);
        recording.wait(3.3, &format!("/{:h<common$}{}", "", String::from_iter(own)))
    });
    // Whatever is not linear here never ends.
    let snapshots = recording.snapshots(10);
    assert_well_formed(&snapshots, &recording);
    assert_eq!(analyse(&snapshots)[0].duration_ms, 330_000);
}

#[test]
fn visits_are_cut_to_the_request_and_to_each_other() {
    let visit = |from_ms: u64, to_ms: u64, path| Visit {
        from_ns: from_ms * 1_000_000,
        to_ns: to_ms * 1_000_000,
        stack: Some(stack(path)),
    };
    let recording = Recording {
        visits: vec![
            visit(0, 10, "/a"),
            visit(5, 15, "/b"),
            visit(14, 3, "/c"),
            visit(15, 15, "/d"),
            visit(12, 14, "/e"),
            visit(18, 90, "/f"),
            visit(90, 99, "/g"),
        ],
        end_ns: 20_000_000,
    };
    recording.shows(&[("/", 20), ("/a", 10), ("/b", 5), ("/f", 2)]);
}

#[test]
fn extreme_numbers_do_no_harm() {
    let recording = Recording {
        visits: vec![
            Visit { from_ns: 0, to_ns: u64::MAX - 1, stack: None },
            Visit { from_ns: u64::MAX, to_ns: 0, stack: Some(stack("/a")) },
        ],
        end_ns: u64::MAX,
    };
    for dump_period_ms in [0, 10, u64::MAX] {
        assert_well_formed(&recording.snapshots(dump_period_ms), &recording);
    }
}

#[test]
fn every_stack_begins_with_the_root_frame() {
    let recording = Recording::default().wait(5.0, "").wait(5.0, "ab").wait(5.0, "/a");
    recording.shows(&[("/", 15), ("/a", 10), ("/ab", 5)]);
}

/// What a sampler without any delay sees of the demo.
#[test]
fn perfect_sampler_loses_a_period_per_run() {
    let sampled: Vec<_> = (0..=56)
        .map(|dump| match dump * 10 {
            time_ms @ ..20 => (time_ms, "/h3s"),
            time_ms @ ..40 => (time_ms, "/h32s"),
            time_ms @ ..60 => (time_ms, "/h321s"),
            time_ms => (time_ms, "/hs"),
        })
        .collect();
    let trees = analyse(&dumps(&sampled));
    let handler = &trees[0].children[0];
    let method3 = &handler.children[0];
    let method2 = &method3.children[1];
    let method1 = &method2.children[1];
    let chain = [handler, method3, method2, method1];
    assert_eq!(chain.map(|node| node.duration_ms), [560, 50, 30, 10]);
    assert_eq!(chain.map(|node| node.count), [57, 6, 4, 2]);
}

#[test]
fn alternating_samples_have_no_duration() {
    let trees = analyse(&dumps(&[(0, "/a"), (10, "/b"), (20, "/a"), (30, "/b")]));
    let node = |frame, duration_ms, self_ms, count, children| Node {
        signature: signature(frame),
        duration_ms,
        self_ms,
        count,
        children,
    };
    let children = vec![node('a', 0, 0, 2, vec![]), node('b', 0, 0, 2, vec![])];
    assert_eq!(trees, [node('/', 30, 30, 4, children)]);
}

#[test]
fn each_first_frame_has_its_own_tree() {
    let trees = analyse(&dumps(&[(0, "ab"), (10, "ba"), (20, "ba"), (35, "ab"), (40, "ab")]));
    let roots: Vec<_> = trees.iter().map(|root| (frame(root.signature), root.duration_ms, root.count)).collect();
    assert_eq!(roots, [('a', 5, 3), ('b', 10, 2)]);
}

#[test]
fn snapshots_are_analysed_by_sequence_and_a_missing_one_breaks_the_run() {
    let mut snapshots = dumps(&[(0, "/"), (10, "/"), (20, "/"), (30, "/"), (40, "/")]);
    snapshots.remove(2);
    snapshots.reverse();
    assert_eq!(analyse(&snapshots)[0].duration_ms, 20);
}

#[test]
fn recursion_makes_nodes_of_its_own() {
    let trees = analyse(&dumps(&[(0, "/a"), (10, "/aa"), (30, "/aa"), (60, "/a")]));
    let outer = &trees[0].children[0];
    assert_eq!((outer.duration_ms, outer.self_ms), (60, 40));
    assert_eq!((outer.children[0].duration_ms, outer.children[0].count), (20, 2));
}

#[test]
fn nothing_makes_no_tree() {
    let empty = Snapshot { sequence: 0, time_ms: 0, stack: Arc::new([]) };
    assert_eq!(analyse(&[]), []);
    assert_eq!(analyse(&[empty]), []);
}
