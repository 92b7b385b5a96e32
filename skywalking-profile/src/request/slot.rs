//! The wait that a strand is in, where both the strand and the agent can take it.
//!
//! Whoever takes it owns it, leaves and images included, and the other side finds nothing: the request then only tells
//! when the wait ended. One atomic swap, no lock: the request's thread never waits for the agent's.
#![expect(unsafe_code, reason = "an atomic owning pointer")]

use std::fmt;
use std::ptr;

use crate::await_tree::{Cause, Leaf, LeafToken, Line};
use crate::sync::{AtomicPtr, AtomicU64, Ordering};

/// A wait that began and has not ended.
#[derive(Debug)]
pub(crate) struct OpenWait {
    /// By [`clock::now`](crate::clock::now).
    pub(crate) from: u64,
    pub(crate) what: WaitFor,
}

/// What a strand that is not being polled waits for.
#[derive(Debug)]
pub(crate) enum WaitFor {
    Leaves {
        /// Those of its await tree, in the order of their registration; none if no leaf showed itself.
        leaves: Vec<Leaf>,
        /// What woke it from waits before this one that were too short to be told.
        untold: Vec<Wake>,
    },
    Pause(Pause),
}

/// A leaf woke its strand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wake {
    pub(crate) line: Line,
    /// By [`clock::now`](crate::clock::now).
    pub(crate) at: u64,
    pub(crate) by: Option<Cause>,
}

impl Wake {
    /// `None` if it has not woken it.
    pub(crate) fn of(token: &LeafToken) -> Option<Self> {
        Some(Self { line: token.line(), at: token.woken_at()?, by: token.woken_by() })
    }
}

/// A wait that is not the strand's own doing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pause {
    /// For its executor: the service has been called, or the task spawned, and its future has not been polled.
    FirstPoll,
    /// For a thread that may be blocked.
    BlockingThread,
    /// For the client, or whatever stands between it and the layer: the request has handed out its answer, or a part of
    /// it, and has not been asked for more.
    Peer,
}

/// Holds at most one wait. Put by the request alone, taken by either side.
pub(crate) struct Slot<W = OpenWait> {
    /// Null, or from `Box::into_raw`; whoever swaps a pointer out owns its box.
    wait: AtomicPtr<W>,
    /// Since when the last wait put lasts: a hint for the agent, which may read it a wait too late.
    since: AtomicU64,
}

impl<W> Slot<W> {
    pub(crate) fn new() -> Self {
        Self { wait: AtomicPtr::new(ptr::null_mut()), since: AtomicU64::new(0) }
    }

    /// Swaps a wait, or null, in, and what was there out.
    fn swap(&self, wait: *mut W) -> Option<Box<W>> {
        let swapped_out = self.wait.swap(wait, Ordering::AcqRel);
        // SAFETY: a pointer that is not null came from `Box::into_raw` in `put`, and swapping it out made this its only
        // owner. The pointer hides its type from `Send` and `Sync`, so `put` and `take` demand it.
        (!swapped_out.is_null()).then(|| unsafe { Box::from_raw(swapped_out) })
    }
}

impl<W: Send> Slot<W> {
    pub(crate) fn put(&self, since: u64, wait: Box<W>) {
        self.since.store(since, Ordering::Relaxed);
        drop(self.swap(Box::into_raw(wait)));
    }

    pub(crate) fn take(&self) -> Option<Box<W>> {
        self.swap(ptr::null_mut())
    }

    /// Takes the wait if it began before `before`.
    pub(crate) fn take_older(&self, before: u64) -> Option<Box<W>> {
        if self.since.load(Ordering::Relaxed) < before { self.take() } else { None }
    }
}

impl<W> Drop for Slot<W> {
    fn drop(&mut self) {
        drop(self.swap(ptr::null_mut()));
    }
}

impl<W> fmt::Debug for Slot<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("open", &!self.wait.load(Ordering::Relaxed).is_null()).finish()
    }
}

#[cfg(all(test, not(skywalking_profile_loom)))]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn each_wait_is_taken_once_by_either_side() {
        const WAITS: u64 = if cfg!(miri) { 100 } else { 100_000 };
        let slot = Arc::new(Slot::new());
        let agent = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                let mut taken = 0;
                loop {
                    match slot.take() {
                        Some(wait) if *wait == WAITS => return taken,
                        Some(_) => taken += 1,
                        None => thread::yield_now(),
                    }
                }
            }
        });
        let mut kept = 0;
        for from in 0..WAITS {
            slot.put(from, Box::new(from));
            kept += u64::from(slot.take().is_some());
        }
        slot.put(WAITS, Box::new(WAITS));
        assert_eq!(kept + agent.join().unwrap(), WAITS);
    }

    #[test]
    fn a_wait_that_nobody_takes_is_dropped_with_its_slot() {
        let (slot, wait) = (Slot::new(), Arc::new(()));
        slot.put(1, Box::new(Arc::clone(&wait)));
        slot.put(2, Box::new(Arc::clone(&wait)));
        assert_eq!(Arc::strong_count(&wait), 2);
        drop(slot);
        assert_eq!(Arc::strong_count(&wait), 1);
    }
}

/// All interleavings of a request and the agent, and all that the memory model lets them see.
#[cfg(all(test, skywalking_profile_loom))]
mod model {
    use loom::cell::Cell;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;
    use loom::{model, thread};

    use super::*;

    /// Written before it is put, read by whoever takes it: loom reports the read if it may not see the write.
    struct Wait {
        number: Cell<usize>,
        dropped: Arc<AtomicUsize>,
    }

    impl Wait {
        fn new(number: usize, dropped: &Arc<AtomicUsize>) -> Box<Self> {
            let wait = Box::new(Self { number: Cell::new(0), dropped: Arc::clone(dropped) });
            wait.number.set(number);
            wait
        }
    }

    impl Drop for Wait {
        fn drop(&mut self) {
            assert!(self.number.get() > 0);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_wait_has_one_owner_at_a_time() {
        model(|| {
            let (slot, dropped) = (Arc::new(Slot::new()), Arc::new(AtomicUsize::new(0)));
            let agent = thread::spawn({
                let slot = Arc::clone(&slot);
                move || {
                    // The request's next wait may lie there by the time that the agent has read since when it lasts.
                    drop(slot.take_older(2));
                    drop(slot.take());
                }
            });
            slot.put(1, Wait::new(1, &dropped));
            drop(slot.take());
            slot.put(2, Wait::new(2, &dropped));
            slot.put(3, Wait::new(3, &dropped));
            agent.join().unwrap();
            drop(slot);
            assert_eq!(dropped.load(Ordering::Relaxed), 3);
        });
    }
}
