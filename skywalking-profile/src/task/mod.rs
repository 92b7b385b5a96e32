//! Profile tasks: what to profile ([`ProfileTask`]), and those in force ([`Board`]), which requests look at.

mod active;
mod board;
mod endpoint;
mod profile_task;

pub(crate) use active::{ActiveTask, Losses};
pub(crate) use board::{Board, Lookup, MOST_ENDPOINTS};
pub(crate) use endpoint::{Route, cut_endpoint};
pub(crate) use profile_task::Origin;
pub use profile_task::{ProfileTask, TaskError};
