//! Platforms whose threads are not sampled.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Sampling, ThreadSample};

/// There is no signal.
pub(crate) fn install(_wanted: Option<i32>) -> Result<i32, &'static str> {
    Err("threads are not sampled on this platform")
}

/// It does not.
pub(crate) fn sees_blocked() -> bool {
    false
}

/// Runs `run`.
pub(crate) fn watch<R>(_: &Sampling, _: u64, _: u64, _: impl Fn(ThreadSample), run: impl FnOnce() -> R) -> R {
    run()
}

/// Does nothing.
#[derive(Debug)]
pub(crate) struct Sampler;

impl Sampler {
    /// # Errors
    /// Always.
    pub(crate) fn start(
        _: &Arc<Sampling>,
        _: Duration,
        _: Option<i32>,
        _: impl Fn(ThreadSample) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
