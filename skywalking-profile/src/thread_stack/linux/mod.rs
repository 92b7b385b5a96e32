//! Linux: `/proc` tells of threads that are blocked, a signal of those that run.

mod activity;
mod sampler;
mod signal;
mod thread;
mod watch;

pub(crate) use sampler::Sampler;
pub(crate) use signal::install;
pub(crate) use watch::watch;
