//! Leaves that a script opens.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Gates by their numbers. Any number of futures may wait at one; it stays open once it is.
#[derive(Debug)]
pub(crate) struct Gates(Vec<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_open: bool,
    waiters: Vec<Waiter>,
    /// Of all that ever waited.
    last: usize,
}

#[derive(Debug)]
struct Waiter {
    id: usize,
    /// The newest is the last.
    wakers: Vec<Waker>,
}

/// What a gate does with wakers: leaves differ in it, and may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    /// A new one in each poll, then the old one is dropped; used up by the wake.
    Replace,
    /// As `Replace`, but the old one is dropped before.
    DropFirst,
    /// The old one if it would wake the same; kept by the wake, which comes under the gate's lock.
    Keep,
    /// All of them; each wake wakes all.
    Hoard,
}

impl Storage {
    /// Neighbours differ.
    fn of(gate: usize) -> Self {
        [Self::Replace, Self::Keep, Self::DropFirst, Self::Hoard][gate % 4]
    }

    fn store(self, wakers: &mut Vec<Waker>, waker: &Waker) {
        match self {
            Self::Replace => {
                wakers.push(waker.clone());
                wakers.drain(..wakers.len() - 1);
            }
            Self::DropFirst => {
                wakers.clear();
                wakers.push(waker.clone());
            }
            Self::Keep if wakers.last().is_some_and(|last| last.will_wake(waker)) => {}
            Self::Keep => *wakers = vec![waker.clone()],
            Self::Hoard => wakers.push(waker.clone()),
        }
    }
}

impl Gates {
    pub(crate) fn new(gates: usize) -> Arc<Self> {
        Arc::new(Self((0..gates).map(|_| Mutex::default()).collect()))
    }

    pub(crate) fn at(self: &Arc<Self>, number: usize) -> Gate {
        Gate { gates: Arc::clone(self), number, id: None }
    }

    pub(crate) fn is_open(&self, number: usize) -> bool {
        self.lock(number).is_open
    }

    /// Wakes whoever waits, also if it was open.
    pub(crate) fn open(&self, number: usize) {
        self.lock(number).is_open = true;
        self.nudge(number);
    }

    /// Wakes whoever waits, for nothing unless it is open.
    pub(crate) fn nudge(&self, number: usize) {
        let mut state = self.lock(number);
        let storage = Storage::of(number);
        let mut used_up = Vec::new();
        for waiter in &mut state.waiters {
            match storage {
                Storage::Keep | Storage::Hoard => waiter.wakers.iter().for_each(Waker::wake_by_ref),
                Storage::Replace | Storage::DropFirst => used_up.append(&mut waiter.wakers),
            }
        }
        drop(state);
        used_up.into_iter().for_each(Waker::wake);
    }

    fn lock(&self, number: usize) -> MutexGuard<'_, State> {
        self.0[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until its gate is open, and returns the gate's number.
#[derive(Debug)]
pub(crate) struct Gate {
    gates: Arc<Gates>,
    number: usize,
    /// Of its [`Waiter`], from its first poll on.
    id: Option<usize>,
}

impl Future for Gate {
    type Output = usize;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        let (gates, number) = (Arc::clone(&self.gates), self.number);
        let mut state = gates.lock(number);
        if state.is_open {
            return Poll::Ready(number);
        }
        let id = *self.id.get_or_insert_with(|| {
            state.last += 1;
            let id = state.last;
            state.waiters.push(Waiter { id, wakers: Vec::new() });
            id
        });
        let waiter = state.waiters.iter_mut().find(|waiter| waiter.id == id).expect("it waits until it is dropped");
        Storage::of(number).store(&mut waiter.wakers, cx.waker());
        Poll::Pending
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut state = self.gates.lock(self.number);
        let (others, own) = mem::take(&mut state.waiters).into_iter().partition(|waiter| Some(waiter.id) != self.id);
        state.waiters = others;
        drop(state);
        drop::<Vec<_>>(own);
    }
}
