//! Thread snapshots from a timeline.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use super::cells::cells;
use super::edges::{Step, steps};
use super::paths::{PathId, Paths};
use super::stretches::{Stretch, stretches};
use super::{LEAST_WAIT_NS, Snapshot, Stack, Timeline, Window, bounded_ns};

/// What is to be reported of a segment.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// In order of sequence and of time, at most [`MOST_SNAPSHOTS`].
    pub(crate) list: Vec<Snapshot>,
    /// Waits shorter than this, in nanoseconds, are not shown alone.
    pub(crate) least_ns: u64,
}

/// The snapshots of a segment.
///
/// The first and the last of each window are the root frame alone, at the start and the end of its
/// span; between two windows there are none. When even two for each step are too many, the least
/// length that is shown doubles until they are not.
pub(crate) fn snapshots(timeline: &Timeline<'_>) -> Snapshots {
    let mut paths = Paths::new(timeline.root);
    let stretches: Vec<_> = timeline.windows.iter().map(|window| stretches(window, &mut paths)).collect();
    let mut least_ns = bounded_ns(LEAST_WAIT_NS);
    let (steps, interval_ms) = loop {
        let windows = iter::zip(timeline.windows, &stretches);
        let steps: Vec<_> =
            windows.flat_map(|(window, stretches)| window_steps(window, stretches, least_ns, &paths)).collect();
        if let Some(interval_ms) = finest_interval_ms(&steps, timeline.dump_period) {
            break (steps, interval_ms);
        }
        least_ns *= 2;
    };

    let mut stacks: HashMap<PathId, Stack> = HashMap::new();
    let mut dumps = Vec::new();
    for step in &steps {
        let stack = stacks.entry(step.path).or_insert_with(|| paths.stack(step.path));
        dumps.extend(dump_times_ms(step, interval_ms).map(|time_ms| (time_ms, Arc::clone(stack))));
    }
    let list = (0..).zip(dumps).map(|(sequence, (time_ms, stack))| Snapshot { sequence, time_ms, stack }).collect();
    Snapshots { list, least_ns: least_ns.unsigned_abs() }
}

/// The steps of a window, its two edges included, in milliseconds since the request's span began.
fn window_steps(window: &Window<'_>, stretches: &[Stretch], least_ns: i64, paths: &Paths) -> Vec<Step> {
    let edge = |at_ms| Step { from_ms: at_ms, to_ms: at_ms, path: PathId::ROOT };
    let cells = cells(stretches, window.length_ns(), least_ns, paths);
    iter::once(edge(window.start_ms)).chain(steps(&cells, window, paths)).chain([edge(window.end_ms)]).collect()
}

/// The shortest interval between the dumps of a step that keeps the number of snapshots in bounds.
/// `None` if two dumps of each step are too many.
fn finest_interval_ms(steps: &[Step], dump_period: Duration) -> Option<i64> {
    let at_most = |most: i64| {
        move |interval_ms: i64| {
            let counts = steps.iter().map(|step| dump_count(step, interval_ms));
            counts.sum::<i64>() <= most
        }
    };
    let period_ms = i64::try_from(dump_period.as_millis()).unwrap_or(i64::MAX).max(FINEST_INTERVAL_MS);
    let lengths_ms = steps.iter().map(|step| step.to_ms - step.from_ms);
    let longest_ms = lengths_ms.fold(period_ms, i64::max);
    least(FINEST_INTERVAL_MS, period_ms, at_most(MOST_FINE_SNAPSHOTS))
        .or_else(|| least(period_ms, longest_ms, at_most(MOST_SNAPSHOTS)))
}

/// The least number from `low` to `high` that fits, if any does; all above one that fits do too.
fn least(mut low: i64, mut high: i64, fits: impl Fn(i64) -> bool) -> Option<i64> {
    if !fits(high) {
        return None;
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(high)
}

/// How many dumps a step gets: one if its edges fell together, else at least its two ends.
fn dump_count(step: &Step, interval_ms: i64) -> i64 {
    match step.to_ms - step.from_ms {
        0 => 1,
        length_ms => (length_ms.saturating_add(interval_ms / 2) / interval_ms).max(2),
    }
}

/// The dump times of a step, from its start to its end and evenly spread.
fn dump_times_ms(step: &Step, interval_ms: i64) -> impl Iterator<Item = i64> {
    let (from_ms, length_ms) = (step.from_ms, step.to_ms - step.from_ms);
    let count = dump_count(step, interval_ms);
    let intervals = (count - 1).max(1);
    (0..count).map(move |dump| from_ms + (length_ms * dump + intervals / 2) / intervals)
}

/// The OAP analyses no more snapshots of a segment.
const MOST_SNAPSHOTS: i64 = 12_000;

/// Below this number dumps come closer than the dump period, because a flame graph draws how many
/// snapshots a node has, and few make it coarse.
const MOST_FINE_SNAPSHOTS: i64 = 2_000;

/// Dumps of a step are never closer, unless it is shorter.
const FINEST_INTERVAL_MS: i64 = 2;
