//! The request's side of following it: what each poll and each pause between polls was.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use super::event::{Ended, Event, Events, Started};
use super::lineage::Lineage;
use super::polls::Polls;
use super::slot::Pause;
use crate::await_tree::StrandId;
use crate::clock;
use crate::stack;
use crate::task::ActiveTask;
use crate::trace::Parent;

/// Characters of a request's path that are kept.
const LONGEST_PATH: usize = 1_000;

/// A request that is followed, from the call of the service to the end of its response body or its drop, or until its
/// task ends.
#[derive(Debug)]
pub(crate) struct Followed {
    polls: Polls,
    started: u64,
    status: Option<u16>,
    completed: bool,
    /// When its future or its body was being dropped.
    left: Option<u64>,
}

impl Followed {
    /// Begins to follow a request, of whose service `call` is about to be called. `None` if there is no room for
    /// another one, or if the agent cannot keep up.
    pub(crate) fn start<B>(events: &Events, task: Arc<ActiveTask>, request: &http::Request<B>) -> Option<Self> {
        let Some(place) = stack::has_room().then(|| events.place()).flatten() else {
            task.give_back();
            return None;
        };
        let lineage = Arc::new(Lineage::new(Arc::clone(&task), events.clone()));
        let polls = Polls::new(Arc::clone(&lineage), StrandId::of_request());
        let host = request.uri().authority().map(|authority| authority.as_str());
        let host = host.or_else(|| request.headers().get(http::header::HOST)?.to_str().ok());
        let started = clock::now();
        let is_noted = events.send(Event::Started(Box::new(Started {
            strand: Arc::clone(&polls.strand),
            task: Arc::clone(&task),
            at: started,
            wall: SystemTime::now(),
            method: request.method().clone(),
            host: host.map(str::to_owned),
            path: format!("{:.LONGEST_PATH$}", request.uri().path()),
            parent: Parent::of_headers(request.headers()),
            slot: Arc::clone(&polls.slot),
            lineage,
            _place: place,
        })));
        if !is_noted {
            task.give_back();
            return None;
        }
        Some(Self { polls, started, status: None, completed: false, left: None })
    }

    /// Calls the service by `call`. Until its first poll the request then waits for its executor.
    pub(crate) fn call<F>(&mut self, call: impl FnOnce() -> F) -> F {
        let future = self.polls.run(self.started, call);
        self.polls.pause(clock::now(), Pause::FirstPoll);
        future
    }

    /// Polls the request by `poll`.
    pub(crate) fn poll<R>(&mut self, waker: &Waker, poll: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        if self.polls.lineage.is_over() {
            self.polls.forget_wait();
            return poll(&mut Context::from_waker(waker));
        }
        let polled = self.polls.poll(waker, poll);
        if polled.is_ready() {
            self.polls.pause(clock::now(), Pause::Peer);
        }
        polled
    }

    pub(crate) fn responded(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
    }

    /// Its future or its body is about to be dropped: what that does, wakes that nobody waits for above all, is not the
    /// request's any more.
    pub(crate) fn leave(&mut self) {
        if !self.polls.lineage.is_over() {
            let at = clock::now();
            self.polls.end_wait(at);
            self.left = Some(at);
        }
    }

    /// The request came to its own end: its body did, or its service failed.
    pub(crate) fn complete(mut self) {
        self.completed = true;
    }
}

impl Drop for Followed {
    /// However the request ends: completed, timed out, or because the client went away.
    fn drop(&mut self) {
        // Then the agent has reported it as it stood.
        if self.polls.lineage.task_has_ended() {
            return;
        }
        let at = self.left.unwrap_or_else(clock::now);
        if !self.completed && self.left.is_none() {
            self.polls.end_wait(at);
        }
        self.polls.lineage.end();
        let ended = Ended {
            request: self.polls.strand.id.request,
            at,
            status: self.status,
            completed: self.completed,
            tally: self.polls.tally,
            untold: self.polls.take_untold(),
        };
        // Its loss is noticed.
        self.polls.lineage.events().send(Event::Ended(Box::new(ended)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::events;
    use super::*;
    use crate::task::{Board, ProfileTask};

    #[test]
    fn a_wake_makes_ready_what_is_suspended_but_not_what_has_been_answered() {
        let board = Board::default();
        for (polled, is_ready) in [(Poll::Pending, true), (Poll::Ready(()), false)] {
            let (events, queue) = events();
            let task = board.put_up(ProfileTask::new("GET:/"));
            let mut request = Followed::start(&events, task, &http::Request::new(())).unwrap();
            let mut stored = None;
            let _ = request.poll(Waker::noop(), |cx| {
                stored = Some(cx.waker().clone());
                polled
            });
            stored.unwrap().wake();
            let woken = clock::now();
            while clock::now() == woken {}
            drop(request);
            let ended = std::iter::from_fn(|| queue.next()).find_map(|event| match event {
                Event::Ended(ended) => Some(ended),
                _ => None,
            });
            assert_eq!(ended.unwrap().tally.scheduled_ns > 0, is_ready);
        }
    }
}
