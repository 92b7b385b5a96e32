//! What a request did beside its main tree, as segments of their own.
//!
//! A *lane* is such a segment: its spans follow one another. The OAP analyses a span by the snapshots that were dumped from
//! its start to its end, both included, so spans of one lane share no millisecond.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::Part;
use crate::timeline::{LEAST_WAIT_NS, SignatureId, Timeline, Visit, Window, snapshots};
use crate::trace::{Segment, Span};

/// What a request did beside its main tree for a while: a branch of a join or select, another task, a blocking closure.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    /// Of the span: the function.
    pub(super) name: Arc<str>,
    /// In nanoseconds since the request began, as `to_ns` and the visits.
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// It was dropped, or cut off by a timeout, before it was ready.
    pub(super) is_cancelled: bool,
    /// Otherwise it still went on when the request ended or was reported.
    pub(super) is_finished: bool,
    /// Their stacks begin with the root frame, the endpoint.
    pub(super) visits: Vec<Visit>,
}

/// The lanes of a request.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) list: Vec<Part>,
    /// So many spans found no place in them.
    pub(super) left_out: u64,
    /// Shorter waits, in nanoseconds, are not shown alone.
    pub(super) least_ns: u64,
}

/// Puts what a request did beside into `most` lanes at most: the longest first.
pub(super) fn lanes(
    besides: Vec<Beside>,
    most: usize,
    request: &Segment,
    root: SignatureId,
    dump_period: Duration,
) -> Lanes {
    let mut lanes = Lanes { list: Vec::new(), left_out: 0, least_ns: LEAST_WAIT_NS };
    for beside in besides {
        if lanes.list.len() == most {
            lanes.left_out += 1;
            continue;
        }
        let window = Window { from_ns: beside.from_ns, to_ns: beside.to_ns, visits: &beside.visits };
        let (start_ms, end_ms) = window.span_ms();
        let snapshots = snapshots(&Timeline { root, dump_period, windows: &[window] });
        lanes.least_ns = lanes.least_ns.max(snapshots.least_ns);
        let mut span = Span::local(beside.name, request.first.start_ms + start_ms, request.first.start_ms + end_ms);
        if beside.is_cancelled {
            span.tags.push(("profile.cancelled", "true".to_owned()));
        }
        if !beside.is_finished {
            span.tags.push(("profile.unfinished", "true".to_owned()));
        }
        lanes.list.push(Part { segment: request.lane(vec![span]), snapshots: snapshots.list });
    }
    lanes
}
