//! Whether a leaf has asked for nothing but to be polled again.

use super::Frame;

/// Whether the stack, `frames`, is of a leaf whose waker lies with tokio's scheduler itself, as that of `yield_now` does, or
/// of whatever has spent its task's budget. It is woken only once other tasks have run, but is ready all the while.
///
/// Told by name: where that part of tokio is inlined and has no debug information, the leaf passes for one that waits.
pub(crate) fn is_deferred<'a>(mut frames: impl Iterator<Item = &'a Frame>) -> bool {
    let is_defer = |path: &str| path.starts_with("tokio::runtime::") && path.ends_with("::defer");
    frames.any(|frame| is_defer(frame.name.path()))
}
