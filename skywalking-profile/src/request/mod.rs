//! A followed request, from the polls of its future to the agent's thread.
//!
//! [`Followed`] belongs to the response future, then to the response body. It turns polls into [`Event`]s: stretches that
//! the request waited or ran. A wait that is still open lies in a [`Slot`] that the agent can reach, so that a request
//! that hangs can be shown while it hangs.

mod discovery;
mod event;
mod followed;
mod place;
mod slot;

pub(crate) use discovery::Discovery;
pub(crate) use event::{Ended, Event, EventQueue, Events, QUEUED, Started, events};
pub(crate) use followed::Followed;
pub(crate) use place::MOST_FOLLOWED;
#[cfg(test)]
pub(crate) use slot::Slot;
pub(crate) use slot::{OpenWait, Pause, WaitFor};

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
