//! [`ResponseBody`].

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::request::Followed;

pin_project! {
    /// The response body of [`Profile`](super::Profile): the inner one, frame by frame. A followed request ends with it.
    #[derive(Debug, Default)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: B,
        followed: Option<Box<Followed>>,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(followed) = this.project().followed {
                followed.leave();
            }
        }
    }
}

impl<B: Body> ResponseBody<B> {
    pub(super) fn new(inner: B, followed: Option<Box<Followed>>) -> Self {
        let mut body = Self { inner, followed };
        // Servers do not poll a body that is already at its end.
        if body.inner.is_end_stream() {
            complete(&mut body.followed);
        }
        body
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let Some(followed) = this.followed else { return this.inner.poll_frame(cx) };
        let polled = followed.poll(cx.waker(), |cx| this.inner.as_mut().poll_frame(cx));
        match &polled {
            Poll::Ready(None) => complete(this.followed),
            // Nothing comes after trailers, and servers do not ask.
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() || this.inner.is_end_stream() => {
                complete(this.followed)
            }
            // What a failed body does next is not the request's any more.
            Poll::Ready(Some(Err(_))) => *this.followed = None,
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn complete(followed: &mut Option<Box<Followed>>) {
    if let Some(followed) = followed.take() {
        followed.complete();
    }
}
