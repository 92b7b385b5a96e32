//! Visits made sound: in time order, within the request, none of them empty, each with a path.

use super::paths::{PathId, Paths};
use super::{SignatureId, Window, bounded_ns};

/// One visit, or several that touch and have the same path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    /// Nanoseconds since the window's start.
    pub(super) from_ns: i64,
    /// More than `from_ns`.
    pub(super) to_ns: i64,
    /// Where the request was.
    pub(super) path: PathId,
    /// It was being polled.
    pub(super) running: bool,
}

/// The stretches of a window, in time order and not overlapping. Where visits overlap, the earlier
/// one has the time; what lies outside of the window is cut off.
///
/// A poll without a sample is `[running]` in what is [between](Paths::between) the stacks before
/// and after it.
pub(super) fn stretches(window: &Window<'_>, paths: &mut Paths) -> Vec<Stretch> {
    let since_start_ns = |ns: u64| bounded_ns(ns.saturating_sub(window.from_ns));
    let end_ns = window.length_ns();
    let mut at_ns = 0;
    let mut visits = Vec::with_capacity(window.visits.len());
    for visit in window.visits {
        let from_ns = since_start_ns(visit.from_ns).max(at_ns);
        let to_ns = since_start_ns(visit.to_ns).min(end_ns);
        if from_ns < to_ns {
            let path = visit.stack.as_deref().map(|stack| paths.intern(stack));
            visits.push((from_ns, to_ns, path));
            at_ns = to_ns;
        }
    }

    let mut stretches: Vec<Stretch> = Vec::with_capacity(visits.len());
    let mut before = PathId::ROOT;
    let mut rows = visits.chunk_by(|(.., path), (.., next)| path.is_none() && next.is_none()).peekable();
    while let Some(row) = rows.next() {
        let after = rows.peek().and_then(|next| next[0].2);
        for &(from_ns, to_ns, known) in row {
            let path = known.unwrap_or_else(|| {
                let shared = paths.between(before, after.unwrap_or(PathId::ROOT));
                paths.child(shared, SignatureId::RUNNING)
            });
            match stretches.last_mut() {
                Some(last) if last.to_ns == from_ns && last.path == path => last.to_ns = to_ns,
                _ => stretches.push(Stretch { from_ns, to_ns, path, running: known.is_none() }),
            }
            before = path;
        }
    }
    stretches
}
