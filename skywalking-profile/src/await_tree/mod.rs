//! Await trees: what a suspended request waits for, seen through its waker.
//!
//! A leaf future that returns `Pending` stores its waker, by cloning it. A followed request is polled under a *capture
//! waker* ([`poll`]), whose clone, made on the polling thread in the middle of the poll, finds the whole await path on the
//! native stack: it copies it ([`Capture`](crate::stack::Capture)) and returns a *leaf token* ([`LeafToken`]) to be stored.
//! The token forwards wakes and remembers the first of them; the request remembers the first since its last poll began, by
//! any of its tokens, those of earlier polls included ([`FirstWake`]): from then on it waited for a worker.
//!
//! The request is neither polled more often than without, nor woken less often. Tokens never equal the waker that a
//! later poll lends, so a leaf that compares them (`Waker::will_wake`) registers anew on every poll, which is what tells
//! the leaves of this poll from those of earlier ones.

mod first_wake;
mod lines;
mod origin;
mod poll;
mod strand;
#[cfg(test)]
mod tests;
mod token;
mod waker;

pub(crate) use lines::Registrations;
pub(crate) use origin::{Cause, Origin, has_ended, is_running};
pub(crate) use poll::{lender, poll};
pub(crate) use strand::{Line, Strand, StrandId};
pub(crate) use token::{Leaf, LeafToken};
