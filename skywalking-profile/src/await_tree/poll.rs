//! One poll of a followed request, under a capture waker.
//!
//! While it lasts, [`CURRENT`] of the polling thread names its [`PollLeaves`]. A clone of the waker adds a leaf if, and
//! only if, that is the poll that lent the waker: then it runs on the polling thread, within the poll, and nobody else
//! touches the list. Elsewhere (a thread that was lent the waker, an outer layer's waker in an inner layer's poll) the
//! request's own waker is cloned.
#![expect(unsafe_code, reason = "captures the stack, shares the poll's leaves with its waker")]

use std::cell::{Cell, UnsafeCell};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::{mem, ptr};

use super::first_wake::FirstWake;
use super::token::{Leaf, LeafToken};
use super::waker::{Lent, lend};
use crate::clock;
use crate::stack::{AroundPoll, Capture, PollFrame};

/// More leaves than this in one poll are not told apart: further clones are the request's own waker.
const MOST_LEAVES: usize = 256;

thread_local! {
    /// The innermost poll of a followed request on this thread.
    static CURRENT: Cell<*const ()> = const { Cell::new(ptr::null()) };
}

/// Polls by `poll` under a capture waker that forwards to `waker`, and adds the leaves that registered to `leaves`,
/// in the order of their registration. Their wakes count for `first_wake`, and so do those by the capture waker itself.
#[inline(never)]
pub(crate) fn poll<R>(
    waker: &Waker,
    first_wake: &Arc<FirstWake>,
    leaves: &mut Vec<Leaf>,
    poll: impl FnOnce(&mut Context<'_>) -> R,
) -> R {
    let lent = PollLeaves {
        request: waker,
        first_wake,
        frame: PollFrame::here(),
        around: AroundPoll::enter(),
        leaves: UnsafeCell::new(leaves),
        is_full: Cell::new(false),
    };
    lend(&lent, |capture_waker| {
        let _current = Current::enter(lent.id());
        poll(&mut Context::from_waker(capture_waker))
    })
}

/// The leaves of one poll.
struct PollLeaves<'a> {
    request: &'a Waker,
    first_wake: &'a Arc<FirstWake>,
    frame: Option<PollFrame>,
    around: AroundPoll,
    leaves: UnsafeCell<&'a mut Vec<Leaf>>,
    /// There are too many leaves that wait.
    is_full: Cell<bool>,
}

// SAFETY: `leaves` and `is_full` are touched only in `add` and what it calls, and there only while `CURRENT` of the calling
// thread is this poll: on the one thread that polls, and so is `around`. `request`, `first_wake` and `frame` are only read.
unsafe impl Sync for PollLeaves<'_> {}

impl PollLeaves<'_> {
    fn id(&self) -> *const () {
        ptr::from_ref(self).cast()
    }

    /// Adds the leaf that is registering, and returns its token; `None` outside of this poll or beyond the limit.
    fn add(&self) -> Option<Arc<LeafToken>> {
        if CURRENT.get() != self.id() || self.is_full.get() {
            return None;
        }
        // SAFETY: `CURRENT` is this poll: we are on the polling thread, within the poll. No other reference to the list is
        // alive: each is made in this function alone, and for this one statement.
        let mut leaves = mem::take(unsafe { &mut **self.leaves.get() });
        // From here on other people's code may run, the drop of a waker, and even come back here: it finds an empty list.
        let token = self.add_to(&mut leaves);
        // SAFETY: as above.
        let back = mem::replace(unsafe { &mut **self.leaves.get() }, leaves);
        drop(back);
        token
    }

    fn add_to(&self, leaves: &mut Vec<Leaf>) -> Option<Arc<LeafToken>> {
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
        let token = LeafToken::new(self.request.clone(), Arc::clone(self.first_wake));
        leaves.push(Leaf { token: Arc::clone(&token), capture });
        Some(token)
    }
}

impl Lent for PollLeaves<'_> {
    fn clone_waker(&self) -> Waker {
        self.add().map_or_else(|| self.request.clone(), Waker::from)
    }

    fn wake(&self) {
        let now = clock::now();
        match self.add() {
            Some(token) => token.note_wake(now),
            None => self.first_wake.note(now),
        }
        self.request.wake_by_ref();
    }
}

/// Restores the outer poll, also when the poll panics.
struct Current {
    outer: *const (),
}

impl Current {
    fn enter(poll: *const ()) -> Self {
        Self { outer: CURRENT.replace(poll) }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(self.outer);
    }
}
