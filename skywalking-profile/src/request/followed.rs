//! The request's side of following it: what each poll and each pause between polls was.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use super::event::{Ended, Event, Events, Started};
use super::slot::{OpenWait, Pause, Slot, WaitFor};
use crate::await_tree::{self, FirstWake, Leaf};
use crate::clock;
use crate::stack;
use crate::task::ActiveTask;
use crate::thread_stack::watch;
use crate::timeline::{LEAST_RUN_NS, LEAST_WAIT_NS};
use crate::trace::Parent;

/// Characters of a request's path that are kept.
const LONGEST_PATH: usize = 1_000;

/// A request that is followed, from the call of the service to the end of its response body or its drop, or until its
/// task ends.
#[derive(Debug)]
pub(crate) struct Followed {
    request: u64,
    task: Arc<ActiveTask>,
    events: Events,
    slot: Arc<Slot>,
    /// Events that found no room in the queue.
    lost: Arc<AtomicU64>,
    started: u64,
    /// Since its last poll began.
    first_wake: Arc<FirstWake>,
    /// Since when it waits, unless that is a pause.
    suspended: Option<u64>,
    /// Empty; kept for its memory.
    leaves: Vec<Leaf>,
    status: Option<u16>,
    completed: bool,
    polls: u64,
    busy_ns: u64,
    /// It was woken and not polled yet.
    scheduled_ns: u64,
    longest_poll_ns: u64,
}

impl Followed {
    /// Begins to follow a request, of whose service `call` is about to be called. `None` if there is no room for
    /// another one, or if the agent cannot keep up.
    pub(crate) fn start<B>(events: &Events, task: Arc<ActiveTask>, request: &http::Request<B>) -> Option<Self> {
        let Some(place) = stack::has_room().then(|| events.place()).flatten() else {
            task.give_back();
            return None;
        };
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let (slot, lost) = (Arc::new(Slot::new()), Arc::<AtomicU64>::default());
        let first_wake = Arc::<FirstWake>::default();
        let host = request.uri().authority().map(|authority| authority.as_str());
        let host = host.or_else(|| request.headers().get(http::header::HOST)?.to_str().ok());
        let started = clock::now();
        let is_noted = events.send(Event::Started(Box::new(Started {
            request: number,
            task: Arc::clone(&task),
            at: started,
            wall: SystemTime::now(),
            method: request.method().clone(),
            host: host.map(str::to_owned),
            path: format!("{:.LONGEST_PATH$}", request.uri().path()),
            parent: Parent::of_headers(request.headers()),
            slot: Arc::clone(&slot),
            first_wake: Arc::clone(&first_wake),
            lost: Arc::clone(&lost),
            _place: place,
        })));
        if !is_noted {
            task.give_back();
            return None;
        }
        Some(Self {
            request: number,
            task,
            events: events.clone(),
            slot,
            lost,
            started,
            first_wake,
            suspended: None,
            leaves: Vec::new(),
            status: None,
            completed: false,
            polls: 0,
            busy_ns: 0,
            scheduled_ns: 0,
            longest_poll_ns: 0,
        })
    }

    /// Calls the service by `call`. Until its first poll the request then waits for its executor.
    pub(crate) fn call<F>(&mut self, call: impl FnOnce() -> F) -> F {
        let future = self.watch(self.started, call);
        let now = clock::now();
        self.ran(self.started, now);
        self.wait(now, WaitFor::Pause(Pause::FirstPoll));
        future
    }

    /// Polls the request by `poll`.
    pub(crate) fn poll<R>(&mut self, waker: &Waker, poll: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        if self.task.has_ended() {
            drop(self.slot.take());
            return poll(&mut Context::from_waker(waker));
        }
        let from = clock::now();
        self.end_wait(from);
        let mut leaves = mem::take(&mut self.leaves);
        let polled = self.watch(from, || await_tree::poll(waker, &self.first_wake, &mut leaves, poll));
        let to = clock::now();
        self.polls += 1;
        self.longest_poll_ns = self.longest_poll_ns.max(to.saturating_sub(from));
        self.ran(from, to);
        let what = if polled.is_pending() {
            leaves.retain(Leaf::is_live);
            WaitFor::Leaves(leaves)
        } else {
            leaves.clear();
            self.leaves = leaves;
            WaitFor::Pause(Pause::Peer)
        };
        self.wait(to, what);
        polled
    }

    pub(crate) fn responded(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
    }

    /// The request came to its own end: its body did, or its service failed.
    pub(crate) fn complete(mut self) {
        self.completed = true;
    }

    /// Runs `run`, which begins at `since`, where thread stacks are sampled.
    fn watch<R>(&self, since: u64, run: impl FnOnce() -> R) -> R {
        let panics = Panics { followed: self, since, is_over: false };
        let output =
            watch(self.events.sampling(), self.request, since, |sample| self.send(Event::Sampled(sample)), run);
        panics.not();
        output
    }

    fn ran(&mut self, from: u64, to: u64) {
        self.busy_ns += to.saturating_sub(from);
        self.tell_ran(from, to);
    }

    fn tell_ran(&self, from: u64, to: u64) {
        if to.saturating_sub(from) >= LEAST_RUN_NS {
            self.send(Event::Ran { request: self.request, from, to });
        }
    }

    fn wait(&mut self, from: u64, what: WaitFor) {
        self.suspended = matches!(what, WaitFor::Leaves(_)).then_some(from);
        self.slot.put(from, Box::new(OpenWait { from, what }));
        // The agent ends the task first and then takes what is there; if it came too early, this does not.
        if self.task.has_ended() {
            drop(self.slot.take());
        }
    }

    fn send(&self, event: Event) {
        if !self.events.send(event) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Since when the request that is polled, or dropped, at `to` was ready for it; not before if nothing woke it.
    fn ready(&mut self, to: u64) -> u64 {
        match (self.suspended.take(), self.first_wake.take()) {
            (Some(from), Some(woken)) => woken.max(from).min(to),
            _ => to,
        }
    }

    fn end_wait(&mut self, to: u64) {
        let ready = self.ready(to);
        self.scheduled_ns += to - ready;
        match self.slot.take() {
            Some(wait) if to.saturating_sub(wait.from) < LEAST_WAIT_NS => {
                if let WaitFor::Leaves(mut leaves) = wait.what {
                    leaves.clear();
                    self.leaves = leaves;
                }
            }
            Some(wait) => self.send(Event::Waited { request: self.request, wait, ready, to }),
            None => self.send(Event::WaitEnded { request: self.request, ready, to }),
        }
    }
}

/// Tells of a poll that panics, as of others.
struct Panics<'a> {
    followed: &'a Followed,
    since: u64,
    is_over: bool,
}

impl Panics<'_> {
    /// The poll came to its end.
    fn not(mut self) {
        self.is_over = true;
    }
}

impl Drop for Panics<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.followed.tell_ran(self.since, clock::now());
        }
    }
}

impl Drop for Followed {
    /// However the request ends: completed, timed out, or because the client went away.
    fn drop(&mut self) {
        // Then the agent has reported it as it stood.
        if self.task.has_ended() {
            return;
        }
        let at = clock::now();
        if !self.completed {
            self.end_wait(at);
        }
        self.events.send(Event::Ended(Box::new(Ended {
            request: self.request,
            at,
            status: self.status,
            completed: self.completed,
            polls: self.polls,
            busy_ns: self.busy_ns,
            scheduled_ns: self.scheduled_ns,
            longest_poll_ns: self.longest_poll_ns,
        })));
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
            assert_eq!(ended.unwrap().scheduled_ns > 0, is_ready);
        }
    }
}
