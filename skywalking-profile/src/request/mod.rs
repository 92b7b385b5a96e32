//! A followed request, from the polls of its future to the agent's thread.
//!
//! [`Followed`] belongs to the response future, then to the response body; a [`Child`] to a future or a closure that the
//! request has run elsewhere. Their [`Polls`](polls::Polls) become [`Event`]s: stretches that a strand of the request waited
//! or ran. A wait that is still open lies in a [`Slot`] that the agent can reach, so that a request that hangs can be shown
//! while it hangs.

mod child;
mod discovery;
mod event;
mod followed;
mod lineage;
mod place;
mod polls;
mod slot;

pub(crate) use child::Child;
pub(crate) use discovery::Discovery;
pub(crate) use event::{Began, Ended, Event, EventQueue, Events, Left, QUEUED, Started, events};
pub(crate) use followed::Followed;
#[cfg(test)]
pub(crate) use lineage::Lineage;
pub(crate) use place::MOST_FOLLOWED;
#[cfg(test)]
pub(crate) use polls::Tally;
pub(crate) use slot::{OpenWait, Pause, Slot, WaitFor, Wake};

/// What the layer does about a request that it looks at.
#[derive(Debug)]
pub(crate) enum Admitted {
    Followed(Box<Followed>),
    Discovered(Box<Discovery>),
}

impl Admitted {
    /// The response is there; what is followed goes on with its body.
    pub(crate) fn responded(self, status: http::StatusCode) -> Option<Box<Followed>> {
        match self {
            Self::Followed(mut followed) => {
                followed.responded(status);
                Some(followed)
            }
            Self::Discovered(discovery) => {
                discovery.responded(status);
                None
            }
        }
    }
}
