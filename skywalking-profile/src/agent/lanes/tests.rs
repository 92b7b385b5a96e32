//! What the OAP shows of random spans, each analysed alone.

use std::collections::BTreeMap;
use std::time::SystemTime;

use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{collection, proptest};

use super::*;
use crate::timeline::{Snapshot, analyse, within};

const ROOT: SignatureId = SignatureId(2);

/// What goes on one after the other: for so many milliseconds, below so many functions.
type Steps = Vec<(f64, usize)>;

/// Something that begins at `from_ms`; its functions are its own.
fn beside(index: usize, from_ms: f64, steps: Steps) -> Beside {
    let ns = |ms: f64| (ms * 1e6).round() as u64;
    let mut visits = Vec::new();
    let mut at_ms = from_ms;
    for (ms, depth) in steps {
        let stack = [ROOT].into_iter().chain((0..depth).map(|depth| function(index, depth))).collect();
        visits.push(Visit { from_ns: ns(at_ms), to_ns: ns(at_ms + ms), stack: Some(stack) });
        at_ms += ms;
    }
    Beside {
        name: index.to_string().into(),
        from_ns: ns(from_ms),
        to_ns: ns(at_ms),
        is_cancelled: false,
        is_finished: true,
        visits,
    }
}

fn function(index: usize, depth: usize) -> SignatureId {
    SignatureId((10 * (index + 1) + depth) as u32)
}

fn request() -> Segment {
    Segment::new("GET:/".into(), SystemTime::now(), 1_000_000_000, None)
}

fn lanes_of(besides: &[Beside], most: usize) -> Lanes {
    lanes(besides.to_vec(), most, &request(), ROOT, Duration::from_millis(10))
}

/// The beginnings and ends of the spans in each lane, in milliseconds since the request's span began.
fn times(lanes: &Lanes, request: &Segment) -> Vec<Vec<(i64, i64)>> {
    let since = |at_ms: i64| at_ms - request.first.start_ms;
    let times =
        |lane: &Part| lane.segment.lane_spans().iter().map(|span| (since(span.start_ms), since(span.end_ms))).collect();
    lanes.list.iter().map(times).collect()
}

#[track_caller]
fn are_placed(besides: &[(f64, f64)], most: usize, expected: &[&[(i64, i64)]]) -> Lanes {
    let spans = besides.iter().enumerate();
    let besides = spans.map(|(index, (from_ms, to_ms))| beside(index, *from_ms, vec![(to_ms - from_ms, 1)])).collect();
    let request = request();
    let lanes = lanes(besides, most, &request, ROOT, Duration::from_millis(10));
    assert_eq!(times(&lanes, &request), expected);
    lanes
}

#[test]
fn what_does_not_overlap_shares_a_lane() {
    let lanes = are_placed(&[(50.2, 60.0), (10.0, 20.4), (15.0, 40.0)], 5, &[&[(10, 20), (50, 60)], &[(15, 40)]]);
    assert_eq!(lanes.left_out, 0);
}

#[test]
fn what_follows_at_once_begins_with_the_next_millisecond() {
    are_placed(
        &[(0.0, 20.3), (20.3, 30.0), (30.0, 31.0), (31.0, 32.0)],
        5,
        &[&[(0, 20), (21, 30), (31, 31), (32, 32)]],
    );
}

#[test]
fn what_follows_at_once_has_another_lane_if_there_is_one() {
    are_placed(&[(0.0, 20.0), (5.0, 15.0), (20.0, 30.0)], 5, &[&[(0, 20)], &[(5, 15), (20, 30)]]);
}

#[test]
fn the_longest_are_shown() {
    let spans = [(0.0, 10.0), (0.0, 30.0), (5.0, 26.0), (10.0, 30.0), (30.0, 31.0), (40.0, 40.9)];
    let lanes = are_placed(&spans, 2, &[&[(0, 30)], &[(5, 26), (30, 31)]]);
    assert_eq!(lanes.left_out, 2);
    assert_eq!(are_placed(&spans, 0, &[]).left_out, 5);
}

#[test]
fn spans_of_one_lane_have_one_that_covers_them() {
    let lane = |names: &[&str]| {
        let spans = (0..)
            .zip(names)
            .map(|(i, name)| Beside { name: (*name).into(), ..beside(0, 20.0 * f64::from(i), vec![(9.0, 1)]) });
        let mut lanes = lanes(spans.collect(), 5, &request(), ROOT, Duration::from_millis(10));
        lanes.list.remove(0)
    };
    let alone = lane(&["load"]);
    assert_eq!((&*alone.segment.first.name, alone.segment.others.len()), ("load", 0));
    let Part { segment: Segment { first, others, .. }, snapshots } = lane(&["load", "audit", "load"]);
    assert_eq!((&*first.name, first.end_ms - first.start_ms, others.len()), ("load ×2, audit", 49, 3));
    assert_eq!((first.start_ms, first.end_ms), (others[0].start_ms, others[2].end_ms));
    let [root] = &*analyse(&snapshots) else { panic!("not one tree") };
    assert_eq!((root.duration_ms, root.self_ms), (49, 22));
}

#[test]
fn what_did_not_end_well_is_tagged() {
    let spans = vec![
        Beside { is_cancelled: true, ..beside(0, 0.0, vec![(9.0, 1)]) },
        Beside { is_finished: false, ..beside(1, 20.0, vec![(9.0, 1)]) },
        beside(2, 40.0, vec![(9.0, 1)]),
    ];
    let lanes = lanes_of(&spans, 1);
    let tags =
        lanes.list[0].segment.lane_spans().iter().map(|span| (span.is_marked(CANCELLED), span.is_marked(UNFINISHED)));
    assert_eq!(tags.collect::<Vec<_>>(), [(true, false), (false, true), (false, false)]);
}

#[test]
fn thousands_of_spans_are_bounded() {
    let spans: Vec<_> = (0..5_000).map(|i| beside(i, 3.0 * i as f64, vec![(2.0 + i as f64 / 5_000.0, 1)])).collect();
    let lanes = lanes_of(&spans, 5);
    assert_eq!((lanes.list.len(), lanes.left_out), (1, 4_700));
    assert!(lanes.list[0].segment.lane_spans().iter().all(|span| span.name.parse::<usize>().is_ok_and(|i| i >= 4_700)));
}

proptest! {
    #[test]
    fn each_span_shows_its_own_time_and_nothing_else(besides in besides(), most in 0..6_usize) {
        let request = request();
        let lanes = lanes(besides.clone(), most, &request, ROOT, Duration::from_millis(10));
        assert!(lanes.list.len() <= most);
        for (lane, times) in lanes.list.iter().zip(times(&lanes, &request)) {
            assert!((0..).zip(&lane.snapshots).all(|(sequence, snapshot)| snapshot.sequence == sequence));
            assert!(times.windows(2).all(|pair| pair[0].1 < pair[1].0), "{times:?}");
            for (span, (start_ms, end_ms)) in lane.segment.lane_spans().iter().zip(times) {
                shows(within(&lane.snapshots, start_ms, end_ms), (start_ms, end_ms), &besides, &span.name);
            }
        }
    }

    #[test]
    fn what_is_left_out_is_shorter_than_what_goes_on_meanwhile(besides in besides(), most in 0..6_usize) {
        let lanes = lanes_of(&besides, most);
        let spans = lanes.list.iter().flat_map(|lane| lane.segment.lane_spans());
        let shown: Vec<usize> = spans.map(|span| span.name.parse().unwrap()).collect();
        let left_out = (0..besides.len()).filter(|i| !shown.contains(i) && besides[*i].lasts_ns() >= LEAST_WAIT_NS);
        let left_out: Vec<_> = left_out.map(|i| &besides[i]).collect();
        assert_eq!(lanes.left_out, left_out.len() as u64);
        for one in left_out {
            let longer: Vec<_> = shown.iter().map(|i| &besides[*i]).filter(|other| other.lasts_ns() >= one.lasts_ns()).collect();
            let ms = |beside: &Beside| (whole_ms(beside.from_ns), whole_ms(beside.to_ns));
            let (start_ms, end_ms) = ms(one);
            let at_once = |at_ms| longer.iter().filter(|other| ms(other).0 <= at_ms && at_ms < ms(other).1).count();
            assert!((start_ms..end_ms).any(|at_ms| at_once(at_ms) >= most), "{one:?}");
        }
    }
}

/// The OAP shows the span's time, within it how long each function of its own took, and nothing else.
fn shows(snapshots: &[Snapshot], (start_ms, end_ms): (i64, i64), besides: &[Beside], name: &str) {
    let index: usize = name.parse().unwrap();
    let beside = &besides[index];
    let [root] = &*analyse(snapshots) else { panic!("not one tree") };
    assert_eq!((root.signature, root.duration_ms), (ROOT, end_ms - start_ms));
    is_close(root.duration_ms, beside.lasts_ns(), 2_000_000);

    let mut took_ns = BTreeMap::<SignatureId, u64>::new();
    for visit in &beside.visits {
        for function in &visit.stack.as_ref().unwrap()[1..] {
            *took_ns.entry(*function).or_default() += visit.to_ns - visit.from_ns;
        }
    }
    let mut ahead = vec![root];
    while let Some(node) = ahead.pop() {
        assert!(node.self_ms >= 0, "{node:?}");
        if node.signature != ROOT {
            let ns = took_ns.remove(&node.signature).expect("a function of its own");
            is_close(node.duration_ms, ns, 2_500_000);
        }
        ahead.extend(&node.children);
    }
    assert!(took_ns.values().all(|ns| *ns <= 2_500_000), "{took_ns:?} not in {root:?}");
}

#[track_caller]
fn is_close(shown_ms: i64, ns: u64, at_most_ns: u64) {
    let error_ns = (shown_ms.unsigned_abs() * 1_000_000).abs_diff(ns);
    assert!(error_ns <= at_most_ns, "{shown_ms} ms for {ns} ns");
}

fn besides() -> impl Strategy<Value = Vec<Beside>> {
    let ms = || prop_oneof![1.0..2.0, 1.0..30.0, (1..20_u8).prop_map(f64::from)];
    let steps = collection::vec((ms(), 0..4_usize), 1..5);
    collection::vec((0.0..100.0, any::<bool>(), steps), 0..30).prop_map(|spans| {
        let mut besides: Vec<Beside> = Vec::new();
        for (index, (from_ms, follows, steps)) in spans.into_iter().enumerate() {
            let from_ms = besides.last().filter(|_| follows).map_or(from_ms, |last| last.to_ns as f64 / 1e6);
            besides.push(beside(index, from_ms, steps));
        }
        besides
    })
}
