//! Platforms whose stacks are not captured: every wait shows as pending, and the agent says so at its start.

use std::sync::Arc;

use super::Frame;

/// Whether stacks can be captured here.
pub(crate) const SUPPORTED: bool = false;

/// There are no images.
pub(crate) fn has_room() -> bool {
    true
}

/// Never made here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PollFrame {}

impl PollFrame {
    pub(crate) fn here() -> Option<Self> {
        None
    }
}

/// Never made here.
#[derive(Debug)]
pub(crate) enum Image {}

impl Image {
    /// # Safety
    /// - None: there is no frame to call this with.
    #[expect(unsafe_code, reason = "the signature of the platforms that capture")]
    pub(crate) unsafe fn capture(frame: &PollFrame) -> Option<Self> {
        match *frame {}
    }
}

#[derive(Debug)]
pub(crate) struct Unwinder;

impl Unwinder {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn refresh(&mut self) {}

    pub(crate) fn unwind(&mut self, image: &Image) -> Vec<u64> {
        match *image {}
    }
}

#[derive(Debug)]
pub(crate) struct Symbolizer;

impl Symbolizer {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn symbolize(&mut self, _: &[u64]) -> Vec<Arc<[Frame]>> {
        Vec::new()
    }
}
