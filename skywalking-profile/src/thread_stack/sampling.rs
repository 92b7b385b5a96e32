//! What the requests of a layer share with its sampler.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Whether there is to be a sampler, whether there is one, and whether it sleeps.
#[derive(Debug)]
pub(crate) struct Sampling {
    /// Tells samplers apart.
    id: u64,
    /// Whether polls are to be seen.
    is_wanted: AtomicBool,
    is_on: AtomicBool,
    is_asleep: AtomicBool,
    /// The kernel does not let threads be signalled.
    is_refused: AtomicBool,
    /// Whether there is reason to wake up.
    bell: Mutex<bool>,
    rung: Condvar,
    pub(crate) losses: SamplingLosses,
}

/// What was not sampled, and what harm was done, so far.
#[derive(Debug, Default)]
pub(crate) struct SamplingLosses {
    /// Looks at a thread that came too late or to nothing.
    pub(crate) ticks: AtomicU64,
    /// Signals that were not answered.
    pub(crate) signals: AtomicU64,
    /// System calls that a signal made fail with EINTR.
    pub(crate) calls: AtomicU64,
}

impl Default for Sampling {
    fn default() -> Self {
        static SAMPLERS: AtomicU64 = AtomicU64::new(0);
        Self {
            id: SAMPLERS.fetch_add(1, Ordering::Relaxed),
            is_wanted: AtomicBool::new(true),
            is_on: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            is_refused: AtomicBool::new(false),
            bell: Mutex::new(false),
            rung: Condvar::new(),
            losses: SamplingLosses::default(),
        }
    }
}

impl Sampling {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// There will be no sampler.
    pub(crate) fn forgo(&self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    pub(super) fn refuse(&self) {
        self.is_refused.store(true, Ordering::Relaxed);
    }

    /// Whether signals turned out to be refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    pub(super) fn set_on(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
        self.ring();
    }

    /// Wakes the sampler if it sleeps: somebody is polled from now on.
    pub(super) fn wake(&self) {
        // The sampler falls asleep first and looks whether somebody is polled then: one of the two sees the other.
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Sleeps until somebody is polled, or the sampler is turned off.
    pub(super) fn sleep(&self, is_somebody_polled: impl FnOnce() -> bool) {
        self.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !is_somebody_polled() {
            let mut bell = self.bell();
            while !*bell && self.is_on() {
                bell = self.rung.wait(bell).unwrap_or_else(PoisonError::into_inner);
            }
            *bell = false;
        }
        self.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Waits until `due`; false if the bell rang before.
    pub(super) fn wait_until(&self, due: Instant) -> bool {
        let left = due.saturating_duration_since(Instant::now());
        let waited = self.rung.wait_timeout_while(self.bell(), left, |rung| !*rung);
        let (mut bell, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        *bell = false;
        timeout.timed_out()
    }

    fn ring(&self) {
        *self.bell() = true;
        self.rung.notify_one();
    }

    fn bell(&self) -> MutexGuard<'_, bool> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
