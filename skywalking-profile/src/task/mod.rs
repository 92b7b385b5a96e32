//! Profile tasks: what to profile ([`ProfileTask`]), and those in force ([`Board`]), which requests look at.

mod active;
mod board;
mod profile_task;

pub(crate) use active::ActiveTask;
pub(crate) use board::{Board, Lookup};
pub(crate) use profile_task::{Origin, cut_endpoint};
pub use profile_task::{ProfileTask, TaskError};
