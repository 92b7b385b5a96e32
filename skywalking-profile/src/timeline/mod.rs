//! From a request's timeline to the thread snapshots for the OAP, and on to the tree that it shows.
//!
//! The OAP (`ProfileStackNode.java` of `apache/skywalking`) makes trees of a segment's snapshots:
//! a node is one code signature below one parent. Its duration is, summed over the runs of
//! *consecutive sequence numbers* in which the node appears, the last dump time minus the first;
//! its self time is its duration less its children's. Even a perfect sampler loses up to a period
//! per run that way: every 10 ms, it shows 560, 50, 30 and 10 ms for methods of 560, 60, 40 and
//! 20 ms, and nothing at all for short waits that take turns. But here the edges of every await
//! and every poll are known, so the dump times can be chosen:
//!
//! 1. *Stretches* ([`stretches`]): a wait of a millisecond or more is shown, whatever the dump
//!    period, and so is a poll of half a millisecond or more, as `[running]` below what its
//!    neighbours share. What is shorter goes to the common ancestors of its neighbours; a row of it
//!    is shown as what it has in common.
//! 2. *Cells* ([`cells`]): so all of the request's time is divided among stacks, edge to edge.
//! 3. *Snapshots* ([`edges`], then [`mod@snapshots`]): each edge takes the whole millisecond before or
//!    after it, whichever keeps the durations of the nodes that begin or end there closer to the
//!    truth. A cell becomes two or more snapshots, from its start to its end, numbered without a
//!    gap.
//!
//! A segment may have several spans that follow one another. Each is a [`Window`] of its own, whose
//! first and last snapshots are the root frame alone, at the span's start and end: so the analysis of
//! one span, by the snapshots that were dumped in its time, shows nothing of another.
//!
//! Self time is never negative: dump times do not go backwards, and a run of a child lies within
//! one run of its parent, so the children's runs cannot add up to more than the parent's.
//!
//! [`analysis`] is the OAP's arithmetic, for the backend that runs in process and for the tests.

mod analysis;
mod cells;
mod edges;
mod paths;
mod snapshots;
mod stretches;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::analysis::{Node, analyse, within};
pub(crate) use self::snapshots::snapshots;

/// What is known of a segment when its request ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline<'a> {
    /// The root frame: the endpoint.
    pub(crate) root: SignatureId,
    /// The profile task's dump period.
    pub(crate) dump_period: Duration,
    /// In time order, some hundreds at most. The OAP finds a span's snapshots by their dump times,
    /// those at its start and at its end included: no two windows share a millisecond.
    pub(crate) windows: &'a [Window<'a>],
}

/// What was done in a span's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// The span's start and end, in milliseconds since the request's span began. Its first and its
    /// last snapshot have the same times, and all others lie between.
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// The true start and end, in nanoseconds since the request began. Not far from the span's.
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
    /// In time order and not overlapping. What lies between two was too short to be recorded, what
    /// lies outside of the window is cut off.
    pub(crate) visits: &'a [Visit],
}

impl<'a> Window<'a> {
    /// The window of a span that has the nearest milliseconds.
    pub(crate) fn new(from_ns: u64, to_ns: u64, visits: &'a [Visit]) -> Self {
        Self { start_ms: whole_ms(from_ns), end_ms: whole_ms(to_ns), from_ns, to_ns, visits }
    }

    fn length_ns(&self) -> i64 {
        bounded_ns(self.to_ns.saturating_sub(self.from_ns))
    }
}

/// One stretch of a request, in nanoseconds since it began.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// Its start.
    pub(crate) from_ns: u64,
    /// Its end.
    pub(crate) to_ns: u64,
    /// Where the request was suspended or waited for a worker; `None` while it was being polled
    /// and no sample was taken.
    pub(crate) stack: Option<Stack>,
}

/// An await path or a thread stack, root first. Never empty: the first is the root frame.
pub(crate) type Stack = Arc<[SignatureId]>;

/// An interned code signature.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct SignatureId(pub(crate) u32);

impl SignatureId {
    /// Reserved for `[running]`: the request was being polled, and no sample says where.
    pub(crate) const RUNNING: Self = Self(0);

    /// Reserved for the last frame of a request that was woken from what is above it, and waited for a worker.
    pub(crate) const SCHEDULED: Self = Self(1);
}

/// One thread snapshot to report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    /// Its number in the segment, from 0 without a gap.
    pub(crate) sequence: i32,
    /// The dump time in milliseconds since the request's span began.
    pub(crate) time_ms: i64,
    /// The thread stack.
    pub(crate) stack: Stack,
}

/// The shortest wait that is shown alone, as the OAP counts in whole milliseconds.
pub(crate) const LEAST_WAIT_NS: u64 = 1_000_000;

/// The shortest poll that is shown.
pub(crate) const LEAST_RUN_NS: u64 = LEAST_WAIT_NS / 2;

/// The nearest whole millisecond: spans have no others.
pub(crate) fn whole_ms(ns: u64) -> i64 {
    edges::nearest_ms(bounded_ns(ns))
}

/// Nanoseconds of a request as a signed number, cut at 73 years so that sums do not overflow.
fn bounded_ns(ns: u64) -> i64 {
    ns.min(u64::MAX >> 3).cast_signed()
}
