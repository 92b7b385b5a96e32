//! [`Profile`].

use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::body::ResponseBody;
use super::future::ResponseFuture;
use super::layer::ProfileLayer;
use crate::request::Admitted;

/// The service that [`ProfileLayer`] makes. Its responses and errors are the inner service's.
#[derive(Clone, Debug)]
pub struct Profile<S> {
    inner: S,
    layer: ProfileLayer,
}

impl<S> Profile<S> {
    pub(super) fn new(inner: S, layer: ProfileLayer) -> Self {
        Self { inner, layer }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Profile<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // Before the inner call: what runs in there is the request's time, too.
        let mut admitted = self.layer.admit(&mut request);
        let future = match &mut admitted {
            Some(Admitted::Followed(followed)) => followed.call(|| self.inner.call(request)),
            Some(Admitted::Discovered(_)) | None => self.inner.call(request),
        };
        ResponseFuture::new(future, admitted)
    }
}
