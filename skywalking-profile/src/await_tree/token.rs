//! What a leaf future stores in place of the request's waker.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Wake, Waker};

use super::first_wake::FirstWake;
use crate::clock;
use crate::stack::Capture;

/// A leaf of a request's await tree: where it waits, and the token that it stored.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) token: Arc<LeafToken>,
    /// `None` if the stack could not be copied.
    pub(crate) capture: Option<Capture>,
}

impl Leaf {
    /// Whether the leaf waits, or has woken the request. Otherwise it let go of its token: it completed or was dropped.
    pub(crate) fn is_live(&self) -> bool {
        !self.token.is_released() || self.token.woken_at().is_some()
    }
}

/// Wakes the request and remembers when it first did.
///
/// Shared between the leaf future, which holds it as its `Waker`, and the [`Leaf`]. Wakes come from any thread and under
/// the locks of whatever the leaf waits for: nothing here blocks, panics or allocates.
#[derive(Debug)]
pub(crate) struct LeafToken {
    request: Waker,
    woken: FirstWake,
    /// The request's own: of all its tokens.
    first_wake: Arc<FirstWake>,
}

impl LeafToken {
    pub(super) fn new(request: Waker, first_wake: Arc<FirstWake>) -> Arc<Self> {
        Arc::new(Self { request, woken: FirstWake::default(), first_wake })
    }

    /// When the leaf first woke the request, by [`clock::now`].
    pub(crate) fn woken_at(&self) -> Option<u64> {
        self.woken.at()
    }

    /// Whether the leaf future has let go of it: it was woken, completed otherwise, or was dropped.
    fn is_released(self: &Arc<Self>) -> bool {
        let is_released = Arc::strong_count(self) == 1;
        // What the leaf did before it let go, a wake above all, is to be seen after.
        fence(Ordering::Acquire);
        is_released
    }

    pub(super) fn note_wake(&self, at: u64) {
        self.woken.note(at);
        self.first_wake.note(at);
    }
}

impl Wake for LeafToken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the wake: the poll that it brings about is to find it.
        self.note_wake(clock::now());
        self.request.wake_by_ref();
    }
}
