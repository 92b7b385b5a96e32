//! The wait that a request is in, where both the request and the agent can take it.
//!
//! Whoever takes it owns it, leaves and images included, and the other side finds nothing: the request then only tells
//! when the wait ended. One atomic swap, no lock: the request's thread never waits for the agent's.
#![expect(unsafe_code, reason = "an atomic owning pointer")]

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::await_tree::Leaf;

/// A wait that began and has not ended.
#[derive(Debug)]
pub(crate) struct OpenWait {
    /// By [`clock::now`](crate::clock::now).
    pub(crate) from: u64,
    pub(crate) what: WaitFor,
}

/// What a request that is not being polled waits for.
#[derive(Debug)]
pub(crate) enum WaitFor {
    /// One of these leaves of its await tree, in the order of their registration; none if no leaf showed itself.
    Leaves(Vec<Leaf>),
    Pause(Pause),
}

/// A wait that is not the request's own doing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pause {
    /// For its executor: the service has been called, its future has not been polled.
    FirstPoll,
    /// For the client, or whatever stands between it and the layer: the request has handed out its answer, or a part of
    /// it, and has not been asked for more.
    Peer,
}

/// Holds at most one [`OpenWait`]. Put by the request alone, taken by either side.
#[derive(Default)]
pub(crate) struct Slot {
    /// Null, or from `Box::into_raw`; whoever swaps a pointer out owns its box.
    wait: AtomicPtr<OpenWait>,
    /// Since when the last wait put lasts: a hint for the agent, which may read it a wait too late.
    since: AtomicU64,
}

impl Slot {
    pub(crate) fn put(&self, wait: Box<OpenWait>) {
        self.since.store(wait.from, Ordering::Relaxed);
        drop(Self::own(self.wait.swap(Box::into_raw(wait), Ordering::AcqRel)));
    }

    pub(crate) fn take(&self) -> Option<Box<OpenWait>> {
        Self::own(self.wait.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Takes the wait if it began before `before`.
    pub(crate) fn take_older(&self, before: u64) -> Option<Box<OpenWait>> {
        if self.since.load(Ordering::Relaxed) < before { self.take() } else { None }
    }

    /// The pointer hides its type from `Send` and `Sync`: what may go through a slot is said here.
    const MAY_CROSS_THREADS: () = {
        const fn crosses<T: Send>() {}
        crosses::<OpenWait>();
    };

    fn own(swapped_out: *mut OpenWait) -> Option<Box<OpenWait>> {
        let () = Self::MAY_CROSS_THREADS;
        // SAFETY: a pointer that is not null came from `Box::into_raw` in `put`, and swapping it out made the caller its
        // only owner.
        (!swapped_out.is_null()).then(|| unsafe { Box::from_raw(swapped_out) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("open", &!self.wait.load(Ordering::Relaxed).is_null()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn each_wait_is_taken_once_by_either_side() {
        const WAITS: u64 = if cfg!(miri) { 100 } else { 100_000 };
        let slot = Arc::new(Slot::default());
        let agent = thread::spawn({
            let slot = Arc::clone(&slot);
            move || {
                let mut taken = 0;
                loop {
                    match slot.take() {
                        Some(wait) if wait.from == WAITS => return taken,
                        Some(_) => taken += 1,
                        None => thread::yield_now(),
                    }
                }
            }
        });
        let mut kept = 0;
        for from in 0..WAITS {
            slot.put(Box::new(OpenWait { from, what: WaitFor::Pause(Pause::Peer) }));
            kept += u64::from(slot.take().is_some());
        }
        slot.put(Box::new(OpenWait { from: WAITS, what: WaitFor::Pause(Pause::Peer) }));
        assert_eq!(kept + agent.join().unwrap(), WAITS);
    }

    #[test]
    fn a_wait_that_nobody_takes_is_dropped_with_its_slot() {
        let slot = Slot::default();
        slot.put(Box::new(OpenWait { from: 1, what: WaitFor::Pause(Pause::Peer) }));
        slot.put(Box::new(OpenWait { from: 2, what: WaitFor::Pause(Pause::Peer) }));
    }
}
