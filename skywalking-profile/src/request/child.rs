//! A strand beside the request's own future: a future in another task, or a closure that may block its thread.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::event::{Began, Event, Left};
use super::lineage::Running;
use super::polls::Polls;
use super::slot::Pause;
use crate::await_tree::{self, has_ended};
use crate::clock;
use crate::stack;

/// A strand that is followed until it ends, or until its request does.
#[derive(Debug)]
pub(crate) struct Child {
    polls: Polls,
    left: Left,
    /// When it was being dropped.
    left_at: Option<u64>,
}

impl Child {
    /// Begins to follow what the request that runs on this thread is about to have done elsewhere. `None` if there is no
    /// such request, or no room.
    ///
    /// `name` is that of the function, `first` what it waits for until it first runs.
    pub(crate) fn begin(name: &'static str, first: Pause) -> Option<Box<Self>> {
        let Running { lineage, strand: parent } = Running::current().filter(|running| !running.lineage.is_over())?;
        let room = (lineage.admit_child() && stack::has_room()).then(|| lineage.events().child_place()).flatten();
        let Some(place) = room else {
            lineage.refuse_child();
            return None;
        };
        let mut polls = Polls::new(Arc::clone(&lineage), parent.beside());
        let at = clock::now();
        let began = Began { strand: Arc::clone(&polls.strand), name, at, slot: Arc::clone(&polls.slot), _place: place };
        if !lineage.events().send(Event::Began(Box::new(began))) {
            lineage.refuse_child();
            return None;
        }
        polls.pause(at, first);
        Some(Box::new(Self { polls, left: Left::Dropped, left_at: None }))
    }

    /// Whether `waker` is lent by a poll of the same request, which sees all that this one would.
    pub(crate) fn is_inline(&self, waker: &Waker) -> bool {
        await_tree::lender(waker).is_some_and(|lender| lender.request == self.polls.strand.id.request)
    }

    /// It is polled by another strand of the request, as a part of that.
    pub(crate) fn be_inline(mut self) {
        self.left = Left::Inline;
    }

    /// Polls the future by `poll`.
    pub(crate) fn poll<R>(&mut self, waker: &Waker, poll: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        if self.polls.lineage.is_over() {
            self.forget_wait();
            return poll(&mut Context::from_waker(waker));
        }
        let polled = self.polls.poll(waker, poll);
        if polled.is_ready() {
            self.left = Left::Completed;
        }
        polled
    }

    /// Its future is about to be dropped, as in [`Followed::leave`](super::Followed::leave).
    pub(crate) fn leave(&mut self) {
        if matches!(self.left, Left::Dropped) && !self.polls.lineage.is_over() {
            let at = clock::now();
            self.polls.end_wait(at);
            self.left_at = Some(at);
        }
    }

    /// Nothing is followed any more. What it waited for when its request ended is still to be shown, and the agent's to take;
    /// after the task's end nobody does.
    fn forget_wait(&self) {
        if self.polls.lineage.task_has_ended() {
            self.polls.forget_wait();
        }
    }

    /// Runs the closure.
    pub(crate) fn run<R>(mut self, run: impl FnOnce() -> R) -> R {
        if self.polls.lineage.is_over() {
            return run();
        }
        let since = clock::now();
        self.polls.end_wait(since);
        let output = self.polls.run(since, run);
        self.left = Left::Completed;
        output
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.polls.lineage.is_over() {
            return self.forget_wait();
        }
        let at = self.left_at.unwrap_or_else(clock::now);
        if matches!(self.left, Left::Dropped) && self.left_at.is_none() {
            self.polls.end_wait(at);
        }
        let id = self.polls.strand.id;
        let left = Event::Left { strand: id.number, at, how: self.left, untold: self.polls.take_untold() };
        self.polls.lineage.send(left);
        if !matches!(self.left, Left::Inline) {
            has_ended(id);
        }
    }
}
