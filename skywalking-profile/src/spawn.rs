//! What a request has done elsewhere than in its own future: in other tasks, and on threads that may block.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

/// Makes futures part of the request that creates them.
pub trait InCurrentRequest: Future + Sized {
    /// A future that does the same and, if a followed request is being polled now, is followed as part of it.
    fn in_current_request(self) -> InRequest<Self> {
        InRequest { inner: self }
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
    }
}

impl<F: Future> Future for InRequest<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().inner.poll(cx)
    }
}

/// [`tokio::spawn`], as part of the current request.
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future.in_current_request())
}

/// [`tokio::task::spawn_blocking`], as part of the current request.
#[track_caller]
pub fn spawn_blocking<F, R>(run: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    tokio::task::spawn_blocking(run)
}
