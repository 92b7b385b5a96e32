//! [`FirstWake`].

use std::sync::atomic::{AtomicU64, Ordering};

/// When something was first woken, by [`clock::now`](crate::clock::now). Noted on any thread and under other people's
/// locks: nothing here blocks, panics or allocates.
#[derive(Debug, Default)]
pub(crate) struct FirstWake(
    /// 0: not woken.
    AtomicU64,
);

impl FirstWake {
    pub(super) fn note(&self, at: u64) {
        // A lost race is a wake at the same instant.
        if self.0.load(Ordering::Relaxed) == 0 {
            let _ = self.0.compare_exchange(0, at.max(1), Ordering::Release, Ordering::Relaxed);
        }
    }

    pub(crate) fn at(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|at| *at > 0)
    }

    /// From here on the next wake is the first.
    pub(crate) fn take(&self) -> Option<u64> {
        Some(self.0.swap(0, Ordering::Acquire)).filter(|at| *at > 0)
    }
}
