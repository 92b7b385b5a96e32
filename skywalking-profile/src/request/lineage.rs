//! What the strands of one request have in common, and the strand that runs on a thread.
//!
//! A *strand* is a part of a request that is polled on its own: the request's own future, one that was made part of it in
//! another task ([`InCurrentRequest`](crate::InCurrentRequest)), or a closure that may block its thread.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::event::{Event, Events};
use crate::await_tree::{Origin, StrandId, is_running};
use crate::task::ActiveTask;

/// Strands of one request that are followed beside its own future, those that have ended included.
const MOST_CHILDREN: u64 = 1_000;

/// Shared by the strands of one followed request.
#[derive(Debug)]
pub(crate) struct Lineage {
    task: Arc<ActiveTask>,
    events: Events,
    /// The request has ended: what its strands go on to do is not followed.
    has_ended: AtomicBool,
    children: AtomicU64,
    /// Events that found no room in the queue, and strands that are not followed.
    pub(crate) losses: Losses,
}

/// What the agent is not told of a request.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    pub(crate) events: AtomicU64,
    pub(crate) children: AtomicU64,
}

impl Lineage {
    pub(crate) fn new(task: Arc<ActiveTask>, events: Events) -> Self {
        Self { task, events, has_ended: AtomicBool::new(false), children: AtomicU64::new(0), losses: Losses::default() }
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    pub(super) fn send(&self, event: Event) {
        if !self.events.send(event) {
            self.losses.events.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether nothing of the request is followed any more.
    pub(super) fn is_over(&self) -> bool {
        self.task.has_ended() || self.has_ended.load(Ordering::Relaxed)
    }

    pub(super) fn task_has_ended(&self) -> bool {
        self.task.has_ended()
    }

    /// The request itself has ended.
    pub(super) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Whether there is room for one more strand.
    pub(super) fn admit_child(&self) -> bool {
        self.children.fetch_add(1, Ordering::Relaxed) < MOST_CHILDREN
    }

    pub(super) fn refuse_child(&self) {
        self.losses.children.fetch_add(1, Ordering::Relaxed);
    }
}

/// A strand and the request that it is of.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) lineage: Arc<Lineage>,
    pub(super) strand: StrandId,
}

thread_local! {
    /// The strand that runs on this thread, the innermost.
    static RUNNING: Cell<Option<Running>> = const { Cell::new(None) };
}

impl Running {
    /// The strand that runs on this thread.
    pub(super) fn current() -> Option<Self> {
        // The first look at a variable that is to be dropped with its thread may allocate.
        if !is_running() {
            return None;
        }
        RUNNING
            .try_with(|running| {
                let current = running.take();
                running.set(current.clone());
                current
            })
            .ok()
            .flatten()
    }

    /// Runs on this thread until the return value is dropped.
    pub(super) fn enter(self) -> Entered {
        let origin = Origin::run(self.strand);
        Entered { outer: RUNNING.try_with(|running| running.replace(Some(self))).ok().flatten(), _origin: origin }
    }
}

/// Restores the outer strand, also when the poll panics.
#[derive(Debug)]
pub(super) struct Entered {
    outer: Option<Running>,
    _origin: Origin,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let outer = self.outer.take();
        // Nobody asks any more when the thread's own variables are gone.
        let _ = RUNNING.try_with(|running| running.set(outer));
    }
}
