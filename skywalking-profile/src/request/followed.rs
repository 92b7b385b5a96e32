//! The request's side of following it: what each poll and each pause between polls was.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use super::event::{Ended, Event, Events, Started};
use super::slot::{OpenWait, Slot, WaitFor};
use crate::await_tree::{self, Leaf};
use crate::clock;
use crate::task::ActiveTask;
use crate::timeline::{LEAST_RUN_NS, LEAST_WAIT_NS};
use crate::trace::Parent;

/// A request that is followed, from the call of the service to the end of its response body or its drop.
#[derive(Debug)]
pub(crate) struct Followed {
    request: u64,
    events: Events,
    slot: Arc<Slot>,
    /// Since when it runs; between polls, since when it last did.
    ran_from: u64,
    polled: bool,
    /// Kept for its memory.
    leaves: Vec<Leaf>,
    status: Option<u16>,
    completed: bool,
    polls: u64,
    busy_ns: u64,
    longest_poll_ns: u64,
}

impl Followed {
    /// Begins to follow a request, of whose service `call` is about to be called.
    pub(crate) fn start<B>(events: &Events, task: Arc<ActiveTask>, request: &http::Request<B>) -> Self {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::<Slot>::default();
        let host = request.uri().authority().map(|authority| authority.as_str());
        let host = host.or_else(|| request.headers().get(http::header::HOST)?.to_str().ok());
        let at = clock::now();
        events.send(Event::Started(Box::new(Started {
            request: number,
            task,
            at,
            wall: SystemTime::now(),
            method: request.method().clone(),
            host: host.map(str::to_owned),
            path: request.uri().path().to_owned(),
            parent: Parent::of_headers(request.headers()),
            slot: Arc::clone(&slot),
        })));
        Self {
            request: number,
            events: events.clone(),
            slot,
            ran_from: at,
            polled: false,
            leaves: Vec::new(),
            status: None,
            completed: false,
            polls: 0,
            busy_ns: 0,
            longest_poll_ns: 0,
        }
    }

    /// Polls the request by `poll`.
    pub(crate) fn poll<R>(&mut self, waker: &Waker, poll: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        // Until the first poll the call itself ran.
        let from = clock::now();
        if mem::replace(&mut self.polled, true) {
            self.end_wait(from);
            self.ran_from = from;
        }
        let mut leaves = mem::take(&mut self.leaves);
        leaves.clear();
        let polled = await_tree::poll(waker, &mut leaves, poll);
        let to = clock::now();
        self.note_poll(from, to);
        let what = if polled.is_pending() {
            // A leaf that let go of its token without a wake has completed or was dropped.
            leaves.retain(|leaf| !leaf.token.is_released() || leaf.token.woken_at().is_some());
            WaitFor::Leaves(leaves)
        } else {
            self.leaves = leaves;
            WaitFor::Peer
        };
        self.slot.put(Box::new(OpenWait { from: to, what }));
        polled
    }

    pub(crate) fn responded(&mut self, status: http::StatusCode) {
        self.status = Some(status.as_u16());
    }

    /// The response's body has reached its end.
    pub(crate) fn complete(mut self) {
        self.completed = true;
    }

    fn note_poll(&mut self, from: u64, to: u64) {
        self.polls += 1;
        self.busy_ns += to - self.ran_from.min(to);
        self.longest_poll_ns = self.longest_poll_ns.max(to.saturating_sub(from));
        if to.saturating_sub(self.ran_from) >= LEAST_RUN_NS {
            self.events.send(Event::Ran { request: self.request, from: self.ran_from, to });
        }
    }

    fn end_wait(&mut self, to: u64) {
        match self.slot.take() {
            Some(wait) if to.saturating_sub(wait.from) < LEAST_WAIT_NS => {
                if let WaitFor::Leaves(leaves) = wait.what {
                    self.leaves = leaves;
                }
            }
            Some(wait) => self.events.send(Event::Waited { request: self.request, wait, to }),
            None => self.events.send(Event::WaitEnded { request: self.request, to }),
        }
    }
}

impl Drop for Followed {
    /// However the request ends: completed, timed out, or because the client went away.
    fn drop(&mut self) {
        let at = clock::now();
        if self.polled && !self.completed {
            self.end_wait(at);
        }
        self.events.send(Event::Ended(Box::new(Ended {
            request: self.request,
            at,
            status: self.status,
            completed: self.completed,
            polls: self.polls,
            busy_ns: self.busy_ns,
            longest_poll_ns: self.longest_poll_ns,
        })));
    }
}
