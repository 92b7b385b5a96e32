//! Random requests: what the OAP shows of them against what they did.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{collection, option, proptest, sample};

use super::super::{Visit, analyse};
use super::{Recording, assert_well_formed, each_node, frame, stack};

/// The measure of the whole: the durations of 99 % of all nodes are exact to a millisecond, and
/// none is off by more than three.
#[test]
#[expect(clippy::print_stdout, reason = "the totals are the point")]
fn durations_are_exact_to_a_millisecond() {
    let shapes: [(&str, Shape); 9] = [
        ("the demo", |_| demo()),
        ("the diagram", |_| diagram()),
        ("1.5 ms, two in turn", |_| in_turn()),
        ("10 waits of 1 to 60 ms", |random| wander(random, 10, 60.0, None)),
        ("40 waits of 1 to 40 ms", |random| wander(random, 40, 40.0, None)),
        ("100 waits of 1 to 5 ms", |random| wander(random, 100, 5.0, None)),
        ("40 waits, polls of 0.5 to 6 ms", |random| wander(random, 40, 30.0, Some(0.5..6.0))),
        ("100 waits, polls of up to 0.5 ms", |random| wander(random, 100, 5.0, Some(0.01..0.5))),
        ("equal waits, polls of up to 2 ms", equal_waits),
    ];
    let (mut durations, mut self_times) = (Errors::default(), Errors::default());
    for (name, shape) in shapes {
        let (mut of_durations, mut of_self_times) = (Errors::default(), Errors::default());
        for seed in 0..400 {
            let mut random = Random(seed);
            let dump_period_ms = *random.one_of(&[10, 20, 50, 100]);
            let recording = shape(&mut random);
            let [durations, self_times] = errors(&recording, dump_period_ms);
            of_durations.add(durations);
            of_self_times.add(self_times);
        }
        println!("{name}: durations {of_durations}; self times {of_self_times}");
        durations.add(of_durations);
        self_times.add(of_self_times);
    }
    println!("all: durations {durations}; self times {self_times}");
    for errors in [durations, self_times] {
        assert!(errors.off * 100 <= errors.nodes, "{errors}");
        assert!(errors.worst_ns <= 3_000_000, "{errors}");
    }
}

proptest! {
    #[test]
    fn no_duration_is_far_off(
        parts in collection::vec(part(), 0..100),
        dump_period_ms in sample::select(vec![10, 20, 50, 100]),
    ) {
        let recording = parts.into_iter().fold(Recording::default(), Recording::part);
        let [durations, _] = errors(&recording, dump_period_ms);
        assert!(durations.worst_ns <= 3_000_000, "{durations}");
    }

    #[test]
    fn any_visits_make_sound_snapshots(
        visits in collection::vec(any_visit(), 0..100),
        end_ns in any_ns(),
        dump_period_ms in any_ns(),
    ) {
        shown(&Recording { visits, end_ns }, dump_period_ms);
    }
}

/// What the OAP shows: duration and self time in milliseconds, by path.
fn shown(recording: &Recording, dump_period_ms: u64) -> HashMap<String, [i64; 2]> {
    let snapshots = recording.snapshots(dump_period_ms);
    assert_well_formed(&snapshots, recording);
    let mut times = HashMap::new();
    each_node(&analyse(&snapshots), &mut String::new(), &mut |path, node| {
        assert!(node.self_ms >= 0, "self time of {path}: {}", node.self_ms);
        times.insert(path.to_owned(), [node.duration_ms, node.self_ms]);
    });
    times
}

/// What the request did: duration and self time in nanoseconds, by path, of all nodes below the
/// root that lasted a millisecond and did not run.
///
/// Of the time between two waits it is known only that it lies in what they share, less a leaf.
fn suspended(visits: &[Visit]) -> HashMap<String, [u64; 2]> {
    let mut times: HashMap<String, [u64; 2]> = HashMap::new();
    let mut ran = HashSet::new();
    let (mut before, mut before_ns) = ("/".to_owned(), 0);
    for visit in visits {
        let Some(stack) = &visit.stack else { continue };
        let path: String = stack.iter().map(|&signature| frame(signature)).collect();
        let ns = visit.to_ns - visit.from_ns;
        for depth in 2..=path.len() {
            times.entry(path[..depth].to_owned()).or_default()[0] += ns;
        }
        times.entry(path.clone()).or_default()[1] += ns;
        if before_ns < visit.from_ns {
            let shared = before.bytes().zip(path.bytes()).take_while(|(a, b)| a == b).count();
            let leaf = usize::from(shared == before.len() || shared == path.len());
            ran.extend((2..=shared - leaf).map(|depth| path[..depth].to_owned()));
        }
        (before, before_ns) = (path, visit.to_ns);
    }
    times.retain(|path, [ns, _]| path != "/" && *ns >= 1_000_000 && !ran.contains(path));
    times
}

/// The errors of durations and of self times.
fn errors(recording: &Recording, dump_period_ms: u64) -> [Errors; 2] {
    let shown = shown(recording, dump_period_ms);
    let mut errors = [Errors::default(); 2];
    for (path, ns) in suspended(&recording.visits) {
        let shown = shown.get(&path).copied().unwrap_or_default();
        for kind in 0..2 {
            let error_ns = ns[kind].abs_diff(shown[kind].unsigned_abs() * 1_000_000);
            errors[kind].add(Errors { nodes: 1, off: usize::from(error_ns > 1_000_000), worst_ns: error_ns });
        }
    }
    errors
}

#[derive(Clone, Copy, Default, Debug)]
struct Errors {
    nodes: usize,
    /// How many are off by more than a millisecond.
    off: usize,
    worst_ns: u64,
}

impl Errors {
    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.off += other.off;
        self.worst_ns = self.worst_ns.max(other.worst_ns);
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, off, worst_ns } = self;
        let worst_ms = *worst_ns as f64 / 1e6;
        write!(f, "{off} of {nodes} off by more than 1 ms, worst {worst_ms:.2} ms")
    }
}

/// Something that a request does for so many milliseconds.
#[derive(Clone, Debug)]
enum Part {
    Wait(f64, String),
    Poll(f64),
    Unrecorded(f64),
}

impl Recording {
    fn part(self, part: Part) -> Self {
        match part {
            Part::Wait(ms, path) => self.wait(ms, &path),
            Part::Poll(ms) => self.poll(ms),
            Part::Unrecorded(ms) => self.unrecorded(ms),
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![
        4 => (1.0..60.0, path()).prop_map(|(ms, path)| Part::Wait(ms, path)),
        4 => (1.0..2.0, path()).prop_map(|(ms, path)| Part::Wait(ms, path)),
        2 => (0.001..6.0).prop_map(Part::Poll),
        1 => (0.001..0.5).prop_map(Part::Unrecorded),
    ]
}

/// Stacks of one to nine frames, with few to choose from so that many are alike.
fn path() -> impl Strategy<Value = String> {
    prop_oneof!["/[ab]{0,8}", "/[a-g]{0,8}"]
}

fn any_visit() -> impl Strategy<Value = Visit> {
    (any_ns(), any_ns(), option::of("/?[ab*~]{0,3}")).prop_map(|(from_ns, to_ns, path)| Visit {
        from_ns,
        to_ns,
        stack: path.map(|path| stack(&path)),
    })
}

fn any_ns() -> impl Strategy<Value = u64> {
    prop_oneof![0..50_000_000_u64, any::<u64>()]
}

type Shape = fn(&mut Random) -> Recording;

fn demo() -> Recording {
    Recording::default().wait(20.4, "/h3s").wait(20.7, "/h32s").wait(20.9, "/h321s").wait(500.6, "/hs")
}

fn diagram() -> Recording {
    Recording::default().wait(40.3, "/hABC").wait(60.6, "/hABD")
}

fn in_turn() -> Recording {
    Recording::default().repeated(30, |recording| recording.wait(1.5, "/hf").wait(1.5, "/hg"))
}

fn equal_waits(random: &mut Random) -> Recording {
    (0..50).fold(Recording::default(), |recording, _| {
        recording.wait(random.ms(1.0..30.0), "/hds").poll(random.ms(0.001..2.0))
    })
}

/// Waits of a millisecond or more that wander about the tree; polls before some of them.
fn wander(random: &mut Random, waits: usize, most_ms: f64, polls: Option<Range<f64>>) -> Recording {
    let mut path = "/".to_owned();
    (0..waits).fold(Recording::default(), |mut recording, _| {
        // One wait in seven is where the one before was.
        if path.len() == 1 || random.below(7) > 0 {
            path.truncate(1 + random.below(path.len() as u64) as usize);
            let least = u64::from(path.len() == 1);
            for _ in 0..least + random.below(4 - least) {
                path.push(*random.one_of(b"abcdefg") as char);
            }
            path.truncate(9);
        }
        if let Some(ms) = &polls
            && random.below(2) == 0
        {
            recording = recording.poll(random.ms(ms.clone()));
        }
        recording.wait(random.ms(1.0..most_ms), &path)
    })
}

/// A fixed sequence for each seed (SplitMix64), so that the measure is the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn ms(&mut self, range: Range<f64>) -> f64 {
        let fraction = self.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        range.start + fraction * (range.end - range.start)
    }

    fn one_of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len() as u64) as usize]
    }
}
