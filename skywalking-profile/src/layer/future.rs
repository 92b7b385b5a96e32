//! [`ResponseFuture`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::body::ResponseBody;
use crate::request::Admitted;

pin_project! {
    /// The response future of [`Profile`](super::Profile). A request that is not followed is polled straight through.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        admitted: Option<Admitted>,
    }

    impl<F> PinnedDrop for ResponseFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(Admitted::Followed(followed)) = this.project().admitted {
                followed.leave();
            }
        }
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, admitted: Option<Admitted>) -> Self {
        Self { inner, admitted }
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.admitted {
            Some(Admitted::Followed(followed)) => followed.poll(cx.waker(), |cx| this.inner.poll(cx)),
            Some(Admitted::Discovered(_)) | None => this.inner.poll(cx),
        };
        let result = ready!(polled);
        let admitted = this.admitted.take();
        Poll::Ready(match result {
            Ok(response) => {
                let followed = admitted.and_then(|admitted| admitted.responded(response.status()));
                Ok(response.map(|body| ResponseBody::new(body, followed)))
            }
            Err(error) => {
                if let Some(Admitted::Followed(followed)) = admitted {
                    followed.complete();
                }
                Err(error)
            }
        })
    }
}
