//! What requests tell the agent, and the queue that carries it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::SystemTime;

use tokio::sync::Notify;

use super::lineage::Lineage;
use super::place::{Place, Places};
use super::polls::Tally;
use super::slot::{OpenWait, Slot, Wake};
use crate::await_tree::Strand;
use crate::task::ActiveTask;
use crate::thread_stack::{Sampling, ThreadSample};
use crate::trace::Parent;

/// Events that may wait for the agent, some megabytes; beyond, events are lost, and requests count theirs.
pub(crate) const QUEUED: usize = 16_384;

/// Times are by [`clock::now`](crate::clock::now); `strand` is the number of one that [`Started`] or [`Began`] told of.
#[derive(Debug)]
pub(crate) enum Event {
    Started(Box<Started>),
    /// Another strand of a request began.
    Began(Box<Began>),
    /// The strand waited until `to`: from `ready` on for a worker to poll it.
    Waited {
        strand: u64,
        wait: Box<OpenWait>,
        ready: u64,
        to: u64,
    },
    /// The wait that the agent has taken ended.
    WaitEnded {
        strand: u64,
        ready: u64,
        to: u64,
    },
    /// The strand was being polled, or run.
    Ran {
        strand: u64,
        from: u64,
        to: u64,
    },
    /// Where a strand was in the middle of a poll.
    Sampled(ThreadSample),
    /// A strand of which [`Began`] told is over.
    Left {
        strand: u64,
        at: u64,
        how: Left,
        untold: Vec<Wake>,
    },
    Ended(Box<Ended>),
    /// An endpoint was called that SkyWalking does not know yet.
    Discovered {
        endpoint: Arc<str>,
        started: SystemTime,
        took_ns: u64,
        status: u16,
    },
    /// Discovery met known endpoints only, and is to rest.
    NothingNew,
    /// Discovery met more endpoints than are reported.
    TooManyEndpoints,
}

/// A request that matches a profile task began.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) strand: Arc<Strand>,
    pub(crate) task: Arc<ActiveTask>,
    pub(crate) at: u64,
    pub(crate) wall: SystemTime,
    pub(crate) method: http::Method,
    pub(crate) host: Option<String>,
    pub(crate) path: String,
    pub(crate) parent: Option<Parent>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) lineage: Arc<Lineage>,
    /// Held as long as the agent knows of the request.
    pub(crate) _place: Place,
}

impl Started {
    /// Without its query, which may hold secrets.
    pub(crate) fn url(&self) -> String {
        match &self.host {
            Some(host) => format!("http://{host}{}", self.path),
            None => self.path.clone(),
        }
    }
}

/// A strand began beside the request's own future.
#[derive(Debug)]
pub(crate) struct Began {
    pub(crate) strand: Arc<Strand>,
    /// The type of its future or closure.
    pub(crate) name: &'static str,
    pub(crate) at: u64,
    pub(crate) slot: Arc<Slot>,
    /// Held as long as the agent knows of the strand.
    pub(crate) _place: Place,
}

/// How a strand ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Completed,
    /// Before it was ready.
    Dropped,
    /// It is polled as a part of another strand of the request.
    Inline,
}

/// A followed request ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The number of its own strand.
    pub(crate) request: u64,
    pub(crate) at: u64,
    /// `None` if there was no response.
    pub(crate) status: Option<u16>,
    /// Whether its body came to its end or its service failed, rather than being dropped on the way.
    pub(crate) completed: bool,
    /// Of its own strand.
    pub(crate) tally: Tally,
    pub(crate) untold: Vec<Wake>,
}

/// The requests' end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    sender: SyncSender<Event>,
    worth_a_look: Arc<Notify>,
    places: Places,
    child_places: Places,
    sampling: Arc<Sampling>,
}

/// The agent's end of the queue.
#[derive(Debug)]
pub(crate) struct EventQueue {
    receiver: Receiver<Event>,
    worth_a_look: Arc<Notify>,
}

pub(crate) fn events() -> (Events, EventQueue) {
    let (sender, receiver) = sync_channel(QUEUED);
    let worth_a_look = Arc::<Notify>::default();
    let events = Events {
        sender,
        worth_a_look: Arc::clone(&worth_a_look),
        places: Places::default(),
        child_places: Places::default(),
        sampling: Arc::default(),
    };
    (events, EventQueue { receiver, worth_a_look })
}

impl Events {
    /// Whether the event is in the queue. Never blocks. The agent looks at stretches when it has reason to; a request
    /// that begins or ends wakes it.
    pub(crate) fn send(&self, event: Event) -> bool {
        let wakes = matches!(event, Event::Started(_) | Event::Ended(_) | Event::Discovered { .. })
            || matches!(event, Event::NothingNew | Event::TooManyEndpoints);
        let is_queued = self.sender.try_send(event).is_ok();
        if wakes {
            self.worth_a_look.notify_one();
        }
        is_queued
    }

    /// A place for one more request to be followed.
    pub(crate) fn place(&self) -> Option<Place> {
        self.places.take()
    }

    /// A place for one more strand beside the requests' own: there are as many of each.
    pub(super) fn child_place(&self) -> Option<Place> {
        self.child_places.take()
    }

    pub(crate) fn sampling(&self) -> &Arc<Sampling> {
        &self.sampling
    }
}

impl EventQueue {
    pub(crate) async fn worth_a_look(&self) {
        self.worth_a_look.notified().await;
    }

    pub(crate) fn next(&self) -> Option<Event> {
        self.receiver.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let (events, queue) = events();
        let refused = (0..QUEUED + 3).filter(|_| !events.send(Event::Ran { strand: 1, from: 0, to: 1 }));
        assert_eq!(refused.count(), 3);
        assert_eq!(std::iter::from_fn(|| queue.next()).count(), QUEUED);
    }
}
