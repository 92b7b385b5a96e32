//! Whose doing a wake is: that of the strand that runs on the thread, or of one whose own wake is being passed on.
//!
//! Three marks of a thread tell. Each is of one strand, which counts if it is another one of the woken leaf's request:
//!
//! - A leaf token of the strand is passing on its wake at this moment: a collection (`FuturesUnordered`, `JoinSet`) lends
//!   its futures wakers of its own, and wakes whoever polls the collection.
//! - The strand is being polled: it sends to a channel, or lets go of a lock.
//! - The strand has ended, and nothing of a followed request has begun to run on the thread since: its executor hands its
//!   output to the `JoinHandle`. That is laid to it once only, for what comes after is somebody else's. And if nobody awaits the output,
//!   the next wake is somebody else's, too: whether the leaf is one that waits for an end, its stack tells.

use std::cell::Cell;

use super::strand::StrandId;

#[derive(Clone, Copy, Debug)]
struct Marks {
    passes_on: Option<StrandId>,
    runs: Option<StrandId>,
    has_ended: Option<StrandId>,
}

thread_local! {
    static MARKS: Cell<Marks> = const { Cell::new(Marks { passes_on: None, runs: None, has_ended: None }) };
}

/// The strand whose doing a wake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) strand: u64,
    /// It had ended before.
    pub(crate) has_ended: bool,
}

impl Cause {
    /// Never 0.
    pub(super) fn to_bits(self) -> u64 {
        self.strand << 1 | u64::from(self.has_ended)
    }

    /// `None` of 0.
    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        (bits > 0).then_some(Self { strand: bits >> 1, has_ended: bits & 1 == 1 })
    }
}

/// Restores the marks as they were.
#[derive(Debug)]
pub(crate) struct Origin {
    before: Marks,
    /// What ended meanwhile was told to whoever polls it here: a collection.
    forgets_end: bool,
}

impl Origin {
    /// From here on `strand` runs on this thread.
    pub(crate) fn run(strand: StrandId) -> Self {
        let running = Marks { passes_on: None, runs: Some(strand), has_ended: None };
        Self { before: MARKS.replace(running), forgets_end: true }
    }

    /// From here on a token of `strand` passes on its wake.
    pub(super) fn pass_on(strand: StrandId) -> Self {
        let before = MARKS.get();
        MARKS.set(Marks { passes_on: Some(strand), ..before });
        Self { before, forgets_end: false }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        let has_ended = MARKS.get().has_ended.filter(|_| !self.forgets_end);
        MARKS.set(Marks { has_ended, ..self.before });
    }
}

/// Whether a strand runs on this thread. Allocates nothing.
pub(crate) fn is_running() -> bool {
    MARKS.get().runs.is_some()
}

/// The strand has ended on this thread.
pub(crate) fn has_ended(strand: StrandId) {
    MARKS.set(Marks { has_ended: Some(strand), ..MARKS.get() });
}

/// What a wake of `woken` on this thread is to be laid to, if it is another strand of the same request.
pub(super) fn of_wake(woken: StrandId) -> Option<Cause> {
    let is_other = |strand: &StrandId| strand.request == woken.request && strand.number != woken.number;
    let mut marks = MARKS.get();
    if let Some(strand) = marks.passes_on.or(marks.runs).filter(is_other) {
        return Some(Cause { strand: strand.number, has_ended: false });
    }
    let ended = marks.has_ended.take_if(|strand| is_other(strand))?;
    MARKS.set(marks);
    Some(Cause { strand: ended.number, has_ended: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(woken: StrandId) -> Option<(u64, bool)> {
        of_wake(woken).and_then(|cause| Cause::from_bits(cause.to_bits())).map(|cause| (cause.strand, cause.has_ended))
    }

    #[test]
    fn a_wake_is_laid_to_another_strand_of_its_request() {
        let parent = StrandId::of_request();
        let (child, stranger) = (parent.beside(), StrandId::of_request());
        assert_eq!(by(parent), None);
        let runs = Origin::run(child);
        assert_eq!((by(parent), by(child), by(stranger)), (Some((child.number, false)), None, None));
        let nested = Origin::run(stranger);
        assert_eq!(by(parent), None);
        drop(nested);
        assert_eq!(by(parent), Some((child.number, false)));
        drop(runs);
        assert_eq!(by(parent), None);
    }

    #[test]
    fn a_wake_that_is_passed_on_is_laid_to_who_passes_it_on() {
        let parent = StrandId::of_request();
        let (child, grandchild) = (parent.beside(), parent.beside());
        let _runs = Origin::run(grandchild);
        let passed_on = Origin::pass_on(child);
        assert_eq!(by(parent), Some((child.number, false)));
        drop(passed_on);
        assert_eq!(by(parent), Some((grandchild.number, false)));
    }

    #[test]
    fn an_end_within_another_strand_is_forgotten_with_its_poll() {
        let parent = StrandId::of_request();
        let runs = Origin::run(parent);
        has_ended(parent.beside());
        drop(runs);
        assert_eq!(by(parent), None);
    }

    #[test]
    fn an_end_wakes_once_and_not_after_something_else_ran() {
        let parent = StrandId::of_request();
        let child = parent.beside();
        has_ended(child);
        assert_eq!((by(StrandId::of_request()), by(child)), (None, None), "not for them");
        assert_eq!((by(parent), by(parent)), (Some((child.number, true)), None));
        has_ended(child);
        drop(Origin::run(StrandId::of_request()));
        assert_eq!(by(parent), None);
    }
}
