//! One poll of a strand, under a capture waker.
//!
//! While it lasts, [`CURRENT`] of the polling thread names its [`PollLeaves`]. A clone of the waker adds a leaf if, and
//! only if, that is the poll that lent the waker: then it runs on the polling thread, within the poll, and nobody else
//! touches the list. Elsewhere (a thread that was lent the waker, an outer layer's waker in an inner layer's poll) the
//! strand's own waker is cloned.
#![expect(unsafe_code, reason = "captures the stack, shares the poll's leaves with its waker")]

use std::cell::{Cell, UnsafeCell};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::{mem, ptr};

use super::lines::Registrations;
use super::strand::{Line, Strand, StrandId};
use super::token::{Leaf, LeafToken};
use super::waker::{Lent, lend, of_token};
use crate::clock;
use crate::stack::{AroundPoll, Capture, PollFrame};

/// More leaves than this in one poll are not told apart: further clones are the strand's own waker.
const MOST_LEAVES: usize = 256;

thread_local! {
    /// The innermost poll of a strand on this thread.
    static CURRENT: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

/// Polls `strand` by `poll` under a capture waker that forwards to `waker`, and adds the leaves that registered to
/// `registrations`, which are empty. Their wakes count as the strand's, and so do those by the capture waker itself.
#[inline(never)]
pub(crate) fn poll<R>(
    waker: &Waker,
    strand: &Arc<Strand>,
    registrations: &mut Registrations,
    poll: impl FnOnce(&mut Context<'_>) -> R,
) -> R {
    let before = strand.next_line();
    let lent = PollLeaves {
        waker,
        strand,
        frame: PollFrame::here(),
        around: AroundPoll::enter(),
        registrations: UnsafeCell::new(registrations),
        before,
        latest: Cell::new(before),
        is_full: Cell::new(false),
    };
    let output = lend(&lent, |capture_waker| {
        let _current = Current::enter(lent.id());
        poll(&mut Context::from_waker(capture_waker))
    });
    registrations.continue_lines();
    output
}

/// The strand whose poll on this thread, the innermost, has lent `waker`.
pub(crate) fn lender(waker: &Waker) -> Option<StrandId> {
    let poll = CURRENT.get().cast::<PollLeaves<'_>>();
    // SAFETY: `CURRENT` is a poll that has not ended, or null.
    let poll = unsafe { poll.as_ref() }?;
    poll.has_lent(waker).then_some(poll.strand.id)
}

/// A token has been dropped by its leaf before it was woken.
pub(super) fn let_go(token: &LeafToken) {
    let poll = CURRENT.try_with(Cell::get).unwrap_or(ptr::null()).cast::<PollLeaves<'_>>();
    // SAFETY: `CURRENT` is a poll that has not ended, or null.
    if let Some(poll) = unsafe { poll.as_ref() }
        && token.is_of(poll.strand)
    {
        poll.note_let_go(token);
    }
}

/// The leaves of one poll.
struct PollLeaves<'a> {
    /// The strand's own.
    waker: &'a Waker,
    strand: &'a Arc<Strand>,
    frame: Option<PollFrame>,
    around: AroundPoll,
    registrations: UnsafeCell<&'a mut Registrations>,
    /// A line before those of this poll.
    before: Line,
    /// The line that was registered with last.
    latest: Cell<Line>,
    /// There are too many leaves that wait.
    is_full: Cell<bool>,
}

// SAFETY: `registrations`, `latest` and `is_full` are touched only in `add`, `note_let_go` and what they call, and there only
// while `CURRENT` of the calling thread is this poll: on the one thread that polls, and so is `around`. The rest is only read.
unsafe impl Sync for PollLeaves<'_> {}

impl PollLeaves<'_> {
    fn id(&self) -> *const () {
        ptr::from_ref(self).cast()
    }

    /// Adds the leaf that is registering, or waking its strand, and returns its token; `None` outside of this poll or beyond the limit.
    fn add(&self, has_yielded: bool) -> Option<Arc<LeafToken>> {
        if CURRENT.get() != self.id() || self.is_full.get() {
            return None;
        }
        // SAFETY: `CURRENT` is this poll: we are on the polling thread, within the poll. No other reference to the lists is
        // alive: each is made in this function or in `note_let_go`, for one statement that runs nobody else's code.
        let mut leaves = mem::take(&mut unsafe { &mut **self.registrations.get() }.leaves);
        // From here on other people's code may run, the drop of a waker, and even come back here: it finds an empty list.
        let token = self.add_to(&mut leaves, has_yielded);
        // SAFETY: as above.
        let back = mem::replace(&mut unsafe { &mut **self.registrations.get() }.leaves, leaves);
        drop(back);
        token
    }

    /// A token of this strand was dropped on this thread, in this poll.
    fn note_let_go(&self, token: &LeafToken) {
        // What registered in this very poll does not go on.
        if token.line() < self.before {
            // SAFETY: as in `add`; the caller has found this poll by `CURRENT`.
            unsafe { &mut **self.registrations.get() }.note_let_go(token, self.latest.get());
        }
    }

    fn has_lent(&self, waker: &Waker) -> bool {
        waker.data() == self.id()
    }

    fn add_to(&self, leaves: &mut Vec<Leaf>, has_yielded: bool) -> Option<Arc<LeafToken>> {
        if leaves.len() >= MOST_LEAVES {
            leaves.retain(Leaf::is_live);
            // Not to be tried at each further clone.
            self.is_full.set(leaves.len() >= MOST_LEAVES / 2);
        }
        if leaves.len() >= MOST_LEAVES || leaves.try_reserve(1).is_err() {
            return None;
        }
        // SAFETY: `add` calls this within the poll and on its thread, so `frame` is of a function that has not returned.
        let capture = unsafe { Capture::take(self.frame.as_ref(), &self.around) };
        let registered = self.strand.next_line();
        self.latest.set(registered);
        let token = LeafToken::new(self.waker.clone(), self.strand, registered);
        leaves.push(Leaf { token: Arc::clone(&token), registered, has_yielded, capture });
        Some(token)
    }
}

impl Lent for PollLeaves<'_> {
    fn clone_waker(&self) -> Waker {
        self.add(false).map_or_else(|| self.waker.clone(), of_token)
    }

    fn wake(&self) {
        let now = clock::now();
        match self.add(true) {
            Some(token) => token.note_wake(now),
            None => self.strand.first_wake.note(now),
        }
        self.waker.wake_by_ref();
    }
}

/// Restores the outer poll, also when the poll panics.
struct Current {
    poll: *const (),
    outer: *const (),
}

impl Current {
    fn enter(poll: *const ()) -> Self {
        Self { poll, outer: CURRENT.replace(poll) }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        // Polls on fibers, stacks that a thread switches between, need not end in the reverse order of their beginnings, nor
        // on one thread: then the outer one may be long gone, and what goes on is not known.
        CURRENT.set(if CURRENT.get() == self.poll { self.outer } else { ptr::null() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_that_ends_after_the_one_around_it_does_not_bring_that_back() {
        let (outer, inner) = (Current::enter(ptr::from_ref(&1_u8).cast()), Current::enter(ptr::from_ref(&2_u8).cast()));
        drop(outer);
        assert!(CURRENT.get().is_null());
        drop(inner);
        assert!(CURRENT.get().is_null());
    }
}
