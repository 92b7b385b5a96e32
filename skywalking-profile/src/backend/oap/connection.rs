//! The connection to the OAP: calls through it, whether it holds, and waiting for it to come back.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::iter;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Response, Status, TimeoutExpired};
use tracing::{info, warn};

use super::backoff::Backoff;
use crate::TARGET;

const CONNECTING: Duration = Duration::from_secs(5);
const ANSWERING: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connects when first used, and again whenever that is needed.
#[derive(Debug)]
pub(super) struct Connection {
    address: String,
    endpoint: Endpoint,
    channel: RefCell<Channel>,
    /// Whether the last call went through; `None` before the first.
    holds: Cell<Option<bool>>,
    back: Notify,
}

impl Connection {
    /// To be called within the agent's runtime.
    pub(super) fn new(address: String) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(address.clone())?
            .connect_timeout(CONNECTING)
            .timeout(ANSWERING)
            .tcp_keepalive(Some(KEEPALIVE));
        Ok(Self {
            channel: RefCell::new(endpoint.connect_lazy()),
            endpoint,
            address,
            holds: Cell::new(None),
            back: Notify::new(),
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Whether the last call failed.
    pub(super) fn is_broken(&self) -> bool {
        self.holds.get() == Some(false)
    }

    /// Makes a call. Says once when the OAP goes away and once when it is back.
    pub(super) async fn call<T>(
        &self,
        call: impl AsyncFnOnce(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        let channel = self.channel.borrow().clone();
        let answer = call(channel).await;
        match &answer {
            Ok(_) => {
                if self.holds.replace(Some(true)) != Some(true) {
                    info!(target: TARGET, oap = self.address, "connected to the OAP");
                    self.back.notify_waiters();
                }
            }
            // The connection is fine; what is missing concerns the caller.
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => {
                let held = self.holds.replace(Some(false));
                if held != Some(false) {
                    let trouble = trouble(status, held.is_some());
                    warn!(target: TARGET, oap = self.address, error = %reason(status), "{trouble}; trying on");
                }
                if is_timeout(status) {
                    // The connection may be half open, and would go on to swallow calls.
                    *self.channel.borrow_mut() = self.endpoint.connect_lazy();
                }
            }
        }
        answer.map(Response::into_inner)
    }

    /// Waits before the next try, but no longer than until another call has found the OAP again.
    pub(super) async fn rest(&self, backoff: &mut Backoff) {
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = self.back.notified() => {}
        }
    }
}

/// Whether the call never left this process: there was no connection to send it on, or it had closed before the call's
/// turn came.
pub(super) fn is_unsent(status: &Status) -> bool {
    let is_closed = |cause: &(dyn Error + 'static)| cause.downcast_ref().is_some_and(hyper::Error::is_canceled);
    causes(status).any(|cause| cause.is::<ConnectError>() || is_closed(cause))
}

fn is_timeout(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || causes(status).any(|cause| cause.is::<TimeoutExpired>())
}

/// What a failed call means to whoever reads the log; after an OAP has answered there, that it is one is not in doubt.
fn trouble(status: &Status, has_answered: bool) -> &'static str {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => "the OAP refuses this agent; it may want a token",
        Code::Unavailable => "the OAP does not answer",
        _ if has_answered || is_unsent(status) || is_timeout(status) => "the OAP does not answer",
        _ => "no OAP seems to answer there; its gRPC port is 11800 by default",
    }
}

/// The innermost cause says what happened ("Connection refused"), the status itself often only "transport error".
pub(super) fn reason(status: &Status) -> String {
    let said = causes(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string);
    if said.is_empty() { status.code().description().to_owned() } else { said }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    iter::successors(status.source(), |&cause| cause.source())
}
