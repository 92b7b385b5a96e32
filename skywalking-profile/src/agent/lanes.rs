//! What a request did beside its main tree, as segments of their own.
//!
//! A *lane* is such a segment: its spans follow one another. The OAP finds a span's snapshots by their dump times, those at
//! its start and at its end included, so the spans of a lane share no millisecond: one that follows another at once begins
//! with the next. All times are whole milliseconds of the request, so that what happened at one time in several lanes and in
//! the main tree is shown at one time.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::Part;
use crate::timeline::{LEAST_WAIT_NS, SignatureId, Timeline, Visit, Window, snapshots, whole_ms};
use crate::trace::{CANCELLED, Segment, Span, UNFINISHED};

/// Spans beside each request, as the Java agent has in a segment.
const MOST_SPANS: usize = 300;

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

/// Puts what a request did beside into `most` lanes at most. Where more goes on at once, what lasted longest is shown;
/// what lasted less than the least wait is not, and is not counted either.
pub(super) fn lanes(
    besides: Vec<Beside>,
    most: usize,
    request: &Segment,
    root: SignatureId,
    dump_period: Duration,
) -> Lanes {
    let placed: Vec<_> =
        besides.into_iter().filter(|beside| beside.lasts_ns() >= LEAST_WAIT_NS).map(Placed::new).collect();
    let all = placed.len();
    let longest = longest(placed, most);
    let mut lanes = Lanes { list: Vec::new(), left_out: (all - longest.len()) as u64, least_ns: 0 };
    for lane in partition(longest) {
        let windows: Vec<_> = lane.iter().map(Placed::window).collect();
        let snapshots = snapshots(&Timeline { root, dump_period, windows: &windows });
        lanes.least_ns = lanes.least_ns.max(snapshots.least_ns);
        let spans = lane.iter().map(|placed| placed.span(request.first.start_ms)).collect();
        lanes.list.push(Part { segment: request.lane(spans), snapshots: snapshots.list });
    }
    lanes
}

/// Those that fit into `most` lanes if the longest choose first.
fn longest(mut candidates: Vec<Placed>, most: usize) -> Vec<Placed> {
    candidates.sort_by_key(|candidate| Reverse(candidate.beside.lasts_ns()));
    let mut chosen = Vec::new();
    for candidate in candidates {
        if chosen.len() < MOST_SPANS && candidate.most_at_once(&chosen) < most {
            chosen.push(candidate);
        }
    }
    chosen
}

/// As few lanes as can be: as many as there are spans at once. Spans follow each other at once only if they must.
fn partition(mut spans: Vec<Placed>) -> Vec<Vec<Placed>> {
    spans.sort_by_key(|span| span.beside.from_ns);
    let mut lanes: Vec<(i64, Vec<Placed>)> = Vec::new();
    for mut span in spans {
        let free = lanes.iter_mut().filter(|(end_ms, _)| *end_ms <= span.start_ms);
        match free.min_by_key(|(end_ms, _)| *end_ms == span.start_ms) {
            Some((end_ms, lane)) => {
                span.start_ms = span.start_ms.max(*end_ms + 1);
                *end_ms = span.end_ms;
                lane.push(span);
            }
            None => lanes.push((span.end_ms, vec![span])),
        }
    }
    lanes.into_iter().map(|(_, lane)| lane).collect()
}

/// With the times of its span, in milliseconds since the request's began.
#[derive(Debug)]
struct Placed {
    beside: Beside,
    start_ms: i64,
    end_ms: i64,
}

impl Beside {
    fn lasts_ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

impl Placed {
    /// What lasts a millisecond ends in a later one than it starts in.
    fn new(beside: Beside) -> Self {
        Self { start_ms: whole_ms(beside.from_ns), end_ms: whole_ms(beside.to_ns), beside }
    }

    /// How many of the others there are at once in its time.
    fn most_at_once(&self, others: &[Self]) -> usize {
        let meanwhile = others.iter().filter(|other| other.start_ms < self.end_ms && self.start_ms < other.end_ms);
        let mut edges: Vec<_> = meanwhile.flat_map(|other| [(other.end_ms, -1), (other.start_ms, 1)]).collect();
        // One that ends where another starts makes room for it.
        edges.sort_unstable();
        let mut at_once: usize = 0;
        let counts = edges.iter().map(|(_, change)| {
            at_once = at_once.wrapping_add_signed(*change);
            at_once
        });
        counts.max().unwrap_or(0)
    }

    fn window(&self) -> Window<'_> {
        let Beside { from_ns, to_ns, ref visits, .. } = self.beside;
        Window { start_ms: self.start_ms, end_ms: self.end_ms, from_ns, to_ns, visits }
    }

    /// `request_ms` is the start of the request's span.
    fn span(&self, request_ms: i64) -> Span {
        let name = Arc::clone(&self.beside.name);
        let mut span = Span::local(name, request_ms + self.start_ms, request_ms + self.end_ms);
        if self.beside.is_cancelled {
            span.mark(CANCELLED);
        }
        if !self.beside.is_finished {
            span.mark(UNFINISHED);
        }
        span
    }
}
