//! What the names of a leaf's functions tell of it.
//!
//! Where those functions are inlined and have no debug information, they tell nothing.

use super::Frame;

/// Of a leaf that has asked for nothing but to be polled again: its waker lies with tokio's scheduler itself, as that of
/// `yield_now` does, or of whatever has spent its task's budget. It is woken only once other tasks have run, but is ready all
/// the while.
pub(crate) fn is_deferred(frame: &Frame) -> bool {
    let path = frame.name.path();
    path.starts_with("tokio::runtime::") && path.ends_with("::defer")
}

/// Of a leaf that drops the waker it holds before it stores another one, when it is polled again (`tokio/src/sync/oneshot.rs`).
pub(crate) fn begins_anew(frame: &Frame) -> bool {
    frame.name.path().starts_with("tokio::sync::oneshot::")
}

/// Of a leaf that waits for what is not polled through it: a task of its own, or futures that have wakers of their own.
pub(crate) fn hides(frame: &Frame) -> bool {
    const HIDING: [&str; 8] = [
        "async_task::",
        "futures_buffered::",
        "futures_concurrency::",
        "futures_util::future::future::shared::",
        "futures_util::stream::futures_unordered::",
        "tokio::runtime::task::join::",
        "tokio::task::join_set::",
        "tokio_util::task::",
    ];
    HIDING.iter().any(|module| frame.name.path().starts_with(module))
}

/// Whether the signature is that of tokio's or tower's timeout: only its timer is awaited by nothing below it.
pub(crate) fn is_timeout(signature: &str) -> bool {
    const TIMEOUTS: [&str; 2] = ["tokio::time::timeout::Timeout", "tower_http::timeout::"];
    TIMEOUTS.iter().any(|timeout| signature.starts_with(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_by_their_names() {
        let frame = |symbol: &str| Frame::new(symbol, None);
        assert!(is_deferred(&frame("tokio::runtime::context::defer")));
        assert!(!is_deferred(&frame("shop::defer")));
        assert!(begins_anew(&frame("<tokio::sync::oneshot::Receiver<T> as core::future::future::Future>::poll")));
        for hiding in [
            "<tokio::runtime::task::join::JoinHandle<T> as core::future::future::Future>::poll",
            "tokio::task::join_set::JoinSet<T>::poll_join_next",
            "<futures_util::stream::futures_unordered::FuturesUnordered<F> as futures_core::stream::Stream>::poll_next",
            "<futures_util::future::future::shared::Shared<F> as core::future::future::Future>::poll",
        ] {
            assert!(hides(&frame(hiding)), "{hiding}");
        }
        assert!(!hides(&frame("tokio::time::sleep::Sleep")));
        assert!(is_timeout("tokio::time::timeout::Timeout @ main.rs:12"));
    }
}
