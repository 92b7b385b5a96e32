//! One run of a request: its leaves, its tasks, and how they were polled and woken.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skywalking_profile::InCurrentRequest;
use tokio::task::JoinHandle;

use super::gate::{Gate, Gates};

/// What a request is made of.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    gates: Arc<Gates>,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Of its tasks.
    wakes: Arc<AtomicUsize>,
    /// Whether its tasks and parts are made part of it.
    is_covered: bool,
}

/// A leaf, task or part in one poll, or at its drop.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    what: (&'static str, usize),
    was: &'static str,
}

impl Run {
    pub(crate) fn new(gates: &Arc<Gates>, is_covered: bool) -> Self {
        Self { gates: Arc::clone(gates), seen: Arc::default(), wakes: Arc::default(), is_covered }
    }

    /// All that was watched so far, in its order.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn wakes_of_tasks(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }

    pub(crate) fn gate(&self, number: usize) -> Watched<Gate> {
        self.watch_one_of("gate", number, self.gates.at(number))
    }

    /// As the script does, but from within the request.
    pub(crate) fn open(&self, number: usize) {
        self.gates.open(number);
    }

    pub(crate) fn watch<F: Future>(&self, what: &'static str, future: F) -> Watched<F> {
        self.watch_one_of(what, 0, future)
    }

    pub(crate) fn watch_one_of<F: Future>(&self, what: &'static str, number: usize, future: F) -> Watched<F> {
        Watched { what: (what, number), is_done: false, seen: Arc::clone(&self.seen), future: Box::pin(future) }
    }

    /// A part of the request, for what polls it with a waker of its own.
    pub(crate) fn part<F>(&self, future: F) -> BoxFuture<'static, F::Output>
    where
        F: Future + Send + 'static,
    {
        let part = self.watch("part", future);
        if self.is_covered { part.in_current_request().boxed() } else { part.boxed() }
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = self.watch("task", future);
        if self.is_covered { skywalking_profile::spawn(task) } else { tokio::spawn(task) }
    }

    /// As `spawn`, where the task's wakes are counted, too.
    pub(crate) fn spawn_counted<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(counting_wakes(self.part(future), Arc::clone(&self.wakes)))
    }

    pub(crate) fn spawn_blocking<R: Send + 'static>(&self, run: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        if self.is_covered { skywalking_profile::spawn_blocking(run) } else { tokio::task::spawn_blocking(run) }
    }
}

impl Seen {
    pub(crate) fn is_of_request(&self) -> bool {
        self.what == ("request", 0)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.what.0, self.what.1, self.was)
    }
}

/// A future of whose polls and drop the run takes note.
#[derive(Debug)]
pub(crate) struct Watched<F> {
    what: (&'static str, usize),
    is_done: bool,
    seen: Arc<Mutex<Vec<Seen>>>,
    future: Pin<Box<F>>,
}

impl<F> Watched<F> {
    fn see(&self, was: &'static str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen { what: self.what, was });
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let polled = self.future.as_mut().poll(cx);
        self.is_done = polled.is_ready();
        self.see(if polled.is_ready() { "ready" } else { "pending" });
        polled
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        if !self.is_done {
            self.see("dropped");
        }
    }
}

/// Polls under a waker that counts. It is the same for as long as the waker around it is.
pub(crate) fn counting_wakes<F: Future + Unpin>(
    mut future: F,
    wakes: Arc<AtomicUsize>,
) -> impl Future<Output = F::Output> {
    let mut around = Waker::noop().clone();
    let mut counting = Waker::noop().clone();
    poll_fn(move |cx| {
        if !around.will_wake(cx.waker()) {
            around = cx.waker().clone();
            counting = counting_waker(cx.waker(), &wakes);
        }
        future.poll_unpin(&mut Context::from_waker(&counting))
    })
}

pub(crate) fn counting_waker(waker: &Waker, wakes: &Arc<AtomicUsize>) -> Waker {
    Waker::from(Arc::new(CountingWaker { wakes: Arc::clone(wakes), waker: waker.clone() }))
}

struct CountingWaker {
    wakes: Arc<AtomicUsize>,
    waker: Waker,
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        self.waker.wake_by_ref();
    }
}
