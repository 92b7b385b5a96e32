//! The polls of one strand, and its waits between them, as the agent is told of them.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::event::Event;
use super::lineage::{Lineage, Running};
use super::slot::{OpenWait, Pause, Slot, WaitFor, Wake};
use crate::await_tree::{self, Leaf, Registrations, Strand, StrandId};
use crate::clock;
use crate::thread_stack::watch;
use crate::timeline::{LEAST_RUN_NS, LEAST_WAIT_NS};

/// Wakes that ended waits which were too short to be told, kept until the next one that is not.
const MOST_UNTOLD: usize = 64;

/// One strand's side of following it.
#[derive(Debug)]
pub(super) struct Polls {
    pub(super) lineage: Arc<Lineage>,
    pub(super) strand: Arc<Strand>,
    pub(super) slot: Arc<Slot>,
    /// Since when it waits, unless that is a pause.
    suspended: Option<u64>,
    /// Empty; kept for their memory.
    registrations: Registrations,
    untold: Vec<Wake>,
    pub(super) tally: Tally,
}

/// All polls together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) polls: u64,
    pub(crate) busy_ns: u64,
    /// It was woken and not polled yet.
    pub(crate) scheduled_ns: u64,
    pub(crate) longest_poll_ns: u64,
}

impl Polls {
    pub(super) fn new(lineage: Arc<Lineage>, id: StrandId) -> Self {
        Self {
            lineage,
            strand: Arc::new(Strand::new(id)),
            slot: Arc::new(Slot::new()),
            suspended: None,
            registrations: Registrations::default(),
            untold: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn number(&self) -> u64 {
        self.strand.id.number
    }

    /// Runs `run`, a part of the strand that began at `since` and is no poll.
    pub(super) fn run<R>(&mut self, since: u64, run: impl FnOnce() -> R) -> R {
        let output = self.watch(since, run);
        self.ran(since, clock::now());
        output
    }

    /// Polls the strand by `poll`. The wait before it has ended.
    pub(super) fn poll<R>(&mut self, waker: &Waker, poll: impl FnOnce(&mut Context<'_>) -> Poll<R>) -> Poll<R> {
        let from = clock::now();
        self.end_wait(from);
        let mut registrations = mem::take(&mut self.registrations);
        let polled = self.watch(from, || await_tree::poll(waker, &self.strand, &mut registrations, poll));
        let to = clock::now();
        self.tally.polls += 1;
        self.tally.longest_poll_ns = self.tally.longest_poll_ns.max(to.saturating_sub(from));
        self.ran(from, to);
        if polled.is_pending() {
            registrations.leaves.retain(Leaf::is_live);
            let leaves = mem::take(&mut registrations.leaves);
            let untold = self.take_untold();
            self.wait(to, WaitFor::Leaves { leaves, untold });
        }
        registrations.clear();
        self.registrations = registrations;
        polled
    }

    /// From here on it waits.
    pub(super) fn wait(&mut self, from: u64, what: WaitFor) {
        self.suspended = matches!(what, WaitFor::Leaves { .. }).then_some(from);
        self.slot.put(from, Box::new(OpenWait { from, what }));
        // The agent ends the task first and then takes what is there; if it came too early, this does not.
        if self.lineage.is_over() {
            self.forget_wait();
        }
    }

    pub(super) fn pause(&mut self, from: u64, pause: Pause) {
        self.wait(from, WaitFor::Pause(pause));
    }

    pub(super) fn forget_wait(&self) {
        drop(self.slot.take());
    }

    pub(super) fn end_wait(&mut self, to: u64) {
        let ready = self.ready(to);
        self.tally.scheduled_ns += to - ready;
        match self.slot.take() {
            Some(wait) if to.saturating_sub(wait.from) < LEAST_WAIT_NS => {
                if let WaitFor::Leaves { mut leaves, mut untold } = wait.what {
                    let room = MOST_UNTOLD.saturating_sub(untold.len());
                    untold.extend(leaves.iter().filter_map(|leaf| Wake::of(&leaf.token)).take(room));
                    leaves.clear();
                    self.untold = untold;
                    self.registrations.leaves = leaves;
                }
            }
            Some(wait) => self.lineage.send(Event::Waited { strand: self.number(), wait, ready, to }),
            None => self.lineage.send(Event::WaitEnded { strand: self.number(), ready, to }),
        }
    }

    /// What woke it since the latest wait that was told.
    pub(super) fn take_untold(&mut self) -> Vec<Wake> {
        mem::take(&mut self.untold)
    }

    /// Runs `run`, which begins at `since`, where thread stacks are sampled.
    fn watch<R>(&self, since: u64, run: impl FnOnce() -> R) -> R {
        let _running = Running { lineage: Arc::clone(&self.lineage), strand: self.strand.id }.enter();
        let panics = Panics { polls: self, since, is_over: false };
        let deliver = |sample| self.lineage.send(Event::Sampled(sample));
        let output = watch(self.lineage.events().sampling(), self.number(), since, deliver, run);
        panics.not();
        output
    }

    fn ran(&mut self, from: u64, to: u64) {
        self.tally.busy_ns += to.saturating_sub(from);
        self.tell_ran(from, to);
    }

    fn tell_ran(&self, from: u64, to: u64) {
        if to.saturating_sub(from) >= LEAST_RUN_NS {
            self.lineage.send(Event::Ran { strand: self.number(), from, to });
        }
    }

    /// Since when the strand that is polled, or dropped, at `to` was ready for it; not before if nothing woke it.
    fn ready(&mut self, to: u64) -> u64 {
        match (self.suspended.take(), self.strand.first_wake.take()) {
            (Some(from), Some(woken)) => woken.max(from).min(to),
            _ => to,
        }
    }
}

/// Tells of a poll that panics, as of others.
struct Panics<'a> {
    polls: &'a Polls,
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
            self.polls.tell_ran(self.since, clock::now());
        }
    }
}
