//! [`Strand`].

use std::sync::atomic::{AtomicU64, Ordering};

use super::first_wake::FirstWake;

/// A part of a request that is polled on its own: the request's own future, one in another task, or a closure that may
/// block its thread. Its leaves' tokens share this.
#[derive(Debug)]
pub(crate) struct Strand {
    pub(crate) id: StrandId,
    /// By any of its tokens since its last poll began, those of earlier polls included: from then on it waits for a worker.
    pub(crate) first_wake: FirstWake,
    lines: AtomicU64,
}

/// Unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StrandId {
    /// The number of the strand that is the request's own future.
    pub(crate) request: u64,
    /// Never 0.
    pub(crate) number: u64,
}

/// A leaf, from poll to poll: numbered from 1 in the order in which a strand's leaves showed themselves.
pub(crate) type Line = u64;

impl StrandId {
    /// That of a new request.
    pub(crate) fn of_request() -> Self {
        let number = Self::next();
        Self { request: number, number }
    }

    /// That of another strand of the request.
    pub(crate) fn beside(self) -> Self {
        Self { request: self.request, number: Self::next() }
    }

    fn next() -> u64 {
        static STRANDS: AtomicU64 = AtomicU64::new(1);
        STRANDS.fetch_add(1, Ordering::Relaxed)
    }
}

impl Strand {
    pub(crate) fn new(id: StrandId) -> Self {
        Self { id, first_wake: FirstWake::default(), lines: AtomicU64::new(0) }
    }

    /// The number of a leaf that was not seen before.
    pub(super) fn next_line(&self) -> Line {
        // One thread at a time polls the strand, and only polls call this.
        let line = self.lines.load(Ordering::Relaxed) + 1;
        self.lines.store(line, Ordering::Relaxed);
        line
    }
}
