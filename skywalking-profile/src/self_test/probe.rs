//! A future as an application writes them, for the self-test to look at.
//!
//! It must be compiled with the application's crate, whose debug information is often not that of its dependencies. So it
//! and all that leads to it from the application, `ProfileLayer::new` above all, is `#[inline]`; coroutines are compiled
//! where they are polled or made a trait object anyway.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// Makes the future that is looked at.
pub(crate) type Probe = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The [`Probe`].
#[inline]
pub(crate) fn probe() -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(outer())
}

#[inline]
async fn outer() {
    inner().await;
}

#[inline]
async fn inner() {
    Leaf(None).await;
}

/// Waits for ever.
#[derive(Debug)]
struct Leaf(Option<Waker>);

impl Future for Leaf {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0 = Some(cx.waker().clone());
        Poll::Pending
    }
}
