//! A request that is reported, unprofiled, so that SkyWalking can offer its endpoint before any profile task exists.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::event::{Event, Events};
use crate::clock;
use crate::task::{Board, Lookup};

/// Reports its endpoint once the response is there.
#[derive(Debug)]
pub(crate) struct Discovery {
    events: Events,
    board: Arc<Board>,
    /// Taken when it is reported.
    endpoint: Option<Arc<str>>,
    wall: SystemTime,
    from: u64,
}

impl Discovery {
    /// `None` if the endpoint is known, or if it is not time to look.
    pub(crate) fn start(events: &Events, board: &Arc<Board>, endpoint: fmt::Arguments<'_>) -> Option<Self> {
        match board.look_up(endpoint)? {
            Lookup::Due(endpoint) => Some(Self {
                events: events.clone(),
                board: Arc::clone(board),
                endpoint: Some(endpoint),
                wall: SystemTime::now(),
                from: clock::now(),
            }),
            Lookup::Known => None,
            Lookup::Exhausted => {
                events.send(Event::NothingNew);
                None
            }
            Lookup::TooMany => {
                events.send(Event::TooManyEndpoints);
                None
            }
        }
    }

    pub(crate) fn responded(mut self, status: http::StatusCode) {
        if let Some(endpoint) = self.endpoint.take() {
            let took_ns = clock::now().saturating_sub(self.from);
            self.events.send(Event::Discovered { endpoint, started: self.wall, took_ns, status: status.as_u16() });
        }
    }
}

impl Drop for Discovery {
    /// Without a response the endpoint stays unknown, for another request to report.
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            self.board.forget_endpoint(&endpoint);
        }
    }
}
