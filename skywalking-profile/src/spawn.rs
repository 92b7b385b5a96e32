//! What a request has done elsewhere than in its own future: in other tasks, and on threads that may block.

use std::any::type_name;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use crate::request::{Child, Pause};

/// Makes futures part of the request that creates them.
///
/// A request is followed through everything that its own future polls. What is handed to another task, or to a collection
/// that polls futures by wakers of its own, is out of its sight; this brings it in:
///
/// ```no_run
/// use futures_util::{StreamExt, stream};
/// use skywalking_profile::InCurrentRequest;
/// # async fn fetch(_: u32) {}
///
/// # async fn handler() {
/// let audit = tokio::spawn(async { /* … */ }.in_current_request());
/// let fetched = stream::iter(0..40).map(|page| fetch(page).in_current_request()).buffer_unordered(8);
/// fetched.collect::<Vec<_>>().await;
/// # drop(audit);
/// # }
/// ```
///
/// Wanted for futures given to `tokio::spawn`, `spawn_local`, `JoinSet`, `FuturesUnordered`, `buffer_unordered`,
/// `buffered`, and `join_all` of more than 30; in `join!`, `select!`, `timeout` and their like it changes nothing.
pub trait InCurrentRequest: Future + Sized {
    /// A future that does the same and is followed as a part of the request that is being polled on this thread, if that
    /// is followed: as a span of its own, named after the future's function. Otherwise it costs a look at a thread-local
    /// variable now and at a null pointer in each poll.
    ///
    /// It is followed until it ends, or until the request does.
    fn in_current_request(self) -> InRequest<Self> {
        InRequest { child: Child::begin(type_name::<Self>(), Pause::FirstPoll), inner: self }
    }
}

impl<F: Future> InCurrentRequest for F {}

pin_project! {
    /// The future that [`in_current_request`](InCurrentRequest::in_current_request) returns.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct InRequest<F> {
        #[pin]
        inner: F,
        child: Option<Box<Child>>,
    }

    impl<F> PinnedDrop for InRequest<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(child) = this.project().child {
                child.leave();
            }
        }
    }
}

impl<F: Future> Future for InRequest<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some(child) = this.child.take_if(|child| child.is_inline(cx.waker())) {
            child.be_inline();
        }
        let Some(child) = this.child else { return this.inner.poll(cx) };
        let polled = child.poll(cx.waker(), |cx| this.inner.poll(cx));
        if polled.is_ready() {
            // Told now: whoever waits for the output is woken after.
            *this.child = None;
        }
        polled
    }
}

/// [`tokio::spawn`], as a part of the current request: see [`InCurrentRequest`].
///
/// # Panics
/// As `tokio::spawn`: outside of a runtime.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.in_current_request())
}

/// [`tokio::task::spawn_blocking`], as a part of the current request: the closure is a span of its own, in which thread
/// stacks are sampled.
///
/// # Panics
/// As `tokio::task::spawn_blocking`: outside of a runtime.
#[track_caller]
pub fn spawn_blocking<F, R>(run: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    match Child::begin(type_name::<F>(), Pause::BlockingThread) {
        Some(child) => tokio::task::spawn_blocking(move || child.run(run)),
        None => tokio::task::spawn_blocking(run),
    }
}
