//! Linux: `/proc` tells of threads that are blocked, a signal of those that run.

mod activity;
mod sampler;
mod signal;
mod thread;
mod watch;

pub(crate) use sampler::Sampler;
pub(crate) use signal::install;
pub(crate) use watch::watch;

/// Whether the kernel tells of threads that are blocked.
pub(crate) fn sees_blocked() -> bool {
    activity::Activity::of(watch::current_tid()).state() != activity::State::Unknown
}
