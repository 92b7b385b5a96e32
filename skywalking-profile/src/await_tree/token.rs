//! What a leaf future stores in place of the request's waker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::task::Waker;

use super::first_wake::FirstWake;
use super::origin::{self, Cause, Origin};
use super::poll;
use super::strand::{Line, Strand};
use crate::clock;
use crate::stack::Capture;

/// A leaf of a strand's await tree: where it waits, and the token that it stored.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) token: Arc<LeafToken>,
    /// The line that it began with, before it was known which it is.
    pub(super) registered: Line,
    /// It did not store a waker, but woke the strand itself: it has yielded.
    pub(crate) has_yielded: bool,
    /// `None` if the stack could not be copied.
    pub(crate) capture: Option<Capture>,
}

impl Leaf {
    /// Whether the leaf waits, or has woken the request. Otherwise it let go of its token: it completed or was dropped.
    pub(crate) fn is_live(&self) -> bool {
        !self.token.is_released() || self.token.woken_at().is_some()
    }
}

/// Wakes the strand and remembers when it first did.
///
/// Shared between the leaf future, which holds it as its `Waker`, and the [`Leaf`]. Wakes come from any thread and under
/// the locks of whatever the leaf waits for: nothing here blocks, panics or allocates.
#[derive(Debug)]
pub(crate) struct LeafToken {
    /// The waker that the strand itself was polled with.
    waker: Waker,
    woken: FirstWake,
    /// Whose doing that was, as the bits of a [`Cause`]; 0 if that is not known.
    woken_by: AtomicU64,
    line: AtomicU64,
    strand: Arc<Strand>,
}

impl LeafToken {
    pub(super) fn new(waker: Waker, strand: &Arc<Strand>, line: Line) -> Arc<Self> {
        Arc::new(Self {
            waker,
            woken: FirstWake::default(),
            woken_by: AtomicU64::new(0),
            line: AtomicU64::new(line),
            strand: Arc::clone(strand),
        })
    }

    /// When the leaf first woke the strand, by [`clock::now`].
    pub(crate) fn woken_at(&self) -> Option<u64> {
        self.woken.at()
    }

    /// What made it do so, if that was another strand of the request.
    pub(crate) fn woken_by(&self) -> Option<Cause> {
        Cause::from_bits(self.woken_by.load(Ordering::Relaxed))
    }

    /// Which of the strand's leaves it is: the same as long as it waits for one thing, from poll to poll.
    pub(crate) fn line(&self) -> Line {
        self.line.load(Ordering::Relaxed)
    }

    /// It is the leaf of an earlier poll. Told within the poll, by the thread that polls.
    pub(super) fn continue_line(&self, line: Line) {
        self.line.store(line, Ordering::Relaxed);
    }

    pub(super) fn is_of(&self, strand: &Arc<Strand>) -> bool {
        Arc::ptr_eq(&self.strand, strand)
    }

    /// Whether the leaf future has let go of it: it was woken, completed otherwise, or was dropped.
    fn is_released(self: &Arc<Self>) -> bool {
        let is_released = Arc::strong_count(self) == 1;
        // What the leaf did before it let go, a wake above all, is to be seen after.
        fence(Ordering::Acquire);
        is_released
    }

    pub(super) fn note_wake(&self, at: u64) {
        if self.woken.at().is_none()
            && let Some(cause) = origin::of_wake(self.strand.id)
        {
            self.woken_by.store(cause.to_bits(), Ordering::Relaxed);
        }
        self.woken.note(at);
        self.strand.first_wake.note(at);
    }

    pub(super) fn wake(&self) {
        // Before the wake: the poll that it brings about is to find it.
        self.note_wake(clock::now());
        let _origin = Origin::pass_on(self.strand.id);
        self.waker.wake_by_ref();
    }

    /// A `Waker` with it is dropped.
    pub(super) fn let_go(self: Arc<Self>) {
        /// It and the [`Leaf`].
        const HOLDERS_OF_THE_LAST: usize = 2;
        if self.woken.at().is_none() && Arc::strong_count(&self) <= HOLDERS_OF_THE_LAST {
            poll::let_go(&self);
        }
    }
}
