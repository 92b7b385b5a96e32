//! A request that is reported, unprofiled, so that SkyWalking can offer its endpoint before any profile task exists.

use std::sync::Arc;
use std::time::SystemTime;

use super::event::{Event, Events};
use crate::clock;
use crate::task::Board;

/// Reports its endpoint once the response is there. Holds the board's turn: one request does at a time.
#[derive(Debug)]
pub(crate) struct Discovery {
    events: Events,
    board: Arc<Board>,
    endpoint: Option<Arc<str>>,
    wall: SystemTime,
    from: u64,
}

impl Discovery {
    /// Takes the board's turn if there is one and the endpoint is due.
    pub(crate) fn start(events: &Events, board: &Arc<Board>, endpoint: impl FnOnce() -> String) -> Option<Self> {
        if !board.take_discovery_turn() {
            return None;
        }
        match board.note_endpoint(endpoint()) {
            Some(endpoint) => Some(Self {
                events: events.clone(),
                board: Arc::clone(board),
                endpoint: Some(endpoint),
                wall: SystemTime::now(),
                from: clock::now(),
            }),
            None => {
                events.send(Event::NothingNew);
                None
            }
        }
    }

    pub(crate) fn responded(mut self, status: http::StatusCode) {
        if let Some(endpoint) = self.endpoint.take() {
            let took_ns = clock::now() - self.from;
            self.events.send(Event::Discovered { endpoint, started: self.wall, took_ns, status: status.as_u16() });
        }
        self.board.give_discovery_turn();
    }
}

impl Drop for Discovery {
    /// Without a response the endpoint stays unknown, for another request to report.
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            self.board.forget_endpoint(&endpoint);
            self.board.give_discovery_turn();
        }
    }
}
