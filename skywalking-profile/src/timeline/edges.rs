//! The edges of cells as whole milliseconds.

use super::cells::Cell;
use super::paths::{PathId, Paths};
use super::{Window, bounded_ns};

/// A time during which one stack is dumped, in milliseconds since the request's span began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// Its start.
    pub(super) from_ms: i64,
    /// Its end, not before its start.
    pub(super) to_ms: i64,
    /// What is dumped.
    pub(super) path: PathId,
}

/// The steps of a window, in time order and not overlapping.
///
/// Every cell that is shown is part of one. Another cell needs a step only if its neighbours share
/// frames that it does not have and a millisecond was found for it: those frames would go on
/// through that millisecond.
pub(super) fn steps(cells: &[Cell], window: &Window<'_>, paths: &Paths) -> Vec<Step> {
    let mut edges =
        Edges { paths, latest_ms: window.start_ms, end_ms: window.end_ms, errors_ns: vec![0; 2 * paths.len()] };
    let start_ns = bounded_ns(window.from_ns);
    let mut steps: Vec<Step> = Vec::with_capacity(cells.len());
    let mut before = PathId::ROOT;
    // What begins with the window begins where its span does, whatever that makes longer or shorter.
    let mut from_ms = edges.place(start_ns, before, cells.first().map_or(PathId::ROOT, |first| first.path));
    for (index, &Cell { to_ns, path, shown }) in cells.iter().enumerate() {
        let after = cells.get(index + 1).map_or(PathId::ROOT, |next| next.path);
        let to_ms = edges.place(start_ns + to_ns, path, after);
        if shown {
            match steps.last_mut() {
                Some(last) if last.path == path => last.to_ms = to_ms,
                _ => steps.push(Step { from_ms, to_ms, path }),
            }
        } else if from_ms < to_ms && paths.common(before, after) != path {
            steps.push(Step { from_ms, to_ms: from_ms, path });
        }
        before = path;
        from_ms = to_ms;
    }
    steps
}

/// Places the edges of cells, one after the other.
///
/// Were each edge rounded for itself, the errors of a node with many visits would add up. So the
/// errors are carried on: an edge takes that one of the two milliseconds around it that makes the
/// sum of their squares least, over the nodes that end or begin there. Moving it by `d` adds `d`
/// to the errors of those that end and takes `d` from the others', so the sum is a parabola in
/// `d`: best is the millisecond nearest to its vertex, the mean of the errors of those that begin
/// and of the negative errors of those that end.
///
/// A node takes part with its duration, and again with its self time where that ends or begins:
/// otherwise the short times between visits, which are self time of the visits' common ancestors,
/// would be left with whatever suits the visits.
#[derive(Debug)]
struct Edges<'a> {
    paths: &'a Paths,
    /// Where the latest edge is, or the window's start: the next one is not before it.
    latest_ms: i64,
    /// No edge is after it.
    end_ms: i64,
    /// Nanoseconds shown so far less those to be shown, by [`duration`] and [`self_time`].
    errors_ns: Vec<i64>,
}

impl Edges<'_> {
    /// The millisecond of the edge between a cell of `before` and one of `after`.
    fn place(&mut self, at_ns: i64, before: PathId, after: PathId) -> i64 {
        let shared = self.paths.common(before, after);
        let ending = self.paths.below(shared, before).map(duration);
        let beginning = self.paths.below(shared, after).map(duration);
        let moved: Vec<(usize, i64)> = ending
            .chain([self_time(before)])
            .map(|time| (time, 1))
            .chain(beginning.chain([self_time(after)]).map(|time| (time, -1)))
            .collect();

        let errors_ns = moved.iter().map(|&(time, sign)| sign * self.errors_ns[time]);
        let vertex_ns = at_ns - errors_ns.sum::<i64>() / moved.len() as i64;
        let edge_ms = nearest_ms(vertex_ns)
            .clamp(at_ns / NS_PER_MS, (at_ns + NS_PER_MS - 1) / NS_PER_MS)
            .clamp(self.latest_ms, self.end_ms);

        for &(time, sign) in &moved {
            self.errors_ns[time] += sign * (edge_ms * NS_PER_MS - at_ns);
        }
        self.latest_ms = edge_ms;
        edge_ms
    }
}

/// Where the error of a node's duration is kept.
fn duration(path: PathId) -> usize {
    2 * path.index()
}

/// Where the error of a node's self time is kept.
fn self_time(path: PathId) -> usize {
    2 * path.index() + 1
}

/// Halves are rounded up.
pub(super) fn nearest_ms(ns: i64) -> i64 {
    (ns + NS_PER_MS / 2).div_euclid(NS_PER_MS)
}

const NS_PER_MS: i64 = 1_000_000;
