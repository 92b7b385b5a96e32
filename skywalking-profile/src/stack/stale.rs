//! Telling a leaf that nobody awaits any more from one of several that are awaited at once.
//!
//! Some leaves keep their waker when they are no longer awaited: a read that lost a `select!`, a pinned `Sleep` that has
//! elapsed. Two captures of one poll tell: a coroutine is suspended at one await, so where their stacks part in the body
//! of a coroutine, the older one is stale. Where they part in a `poll`, or in the closure that `join!` and `select!` poll
//! their arms from, both are awaited.

use super::Frame;
use super::frame::UNKNOWN;
use super::trim::is_glue;

/// Whether the older of two captures of one poll is stale.
///
/// `older` and `newer` are the frames, inlined ones included, at the first code address from the root that differs between
/// them; `common` are those at the address above. Symbols are compared as they are mangled: generic arguments count.
/// Without debug information inlined frames do not show: a capture that cannot be placed counts as stale.
pub(crate) fn is_stale(common: &[Frame], older: &[Frame], newer: &[Frame]) -> bool {
    let mut shared = common.len();
    for (older, newer) in older.iter().zip(newer) {
        if older.symbol != newer.symbol {
            break;
        }
        shared += 1;
        // Two places in this function.
        if older.source != newer.source {
            break;
        }
    }
    let frames: Vec<&Frame> = common.iter().chain(older).collect();
    match shared.checked_sub(1) {
        Some(deepest) if frames[deepest].name.path() == UNKNOWN => true,
        Some(deepest) => frames[deepest].name.closure && !is_glue(&frames, deepest),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::stack::frame::Source;

    const POLL_FN: &str = "<core::future::poll_fn::PollFn<F> as core::future::future::Future>::poll";

    fn frames<const N: usize>(frames: [(&str, u32); N]) -> Vec<Frame> {
        let source = |line| (line > 0).then(|| Source::new(Path::new("/srv"), "main.rs", line, None));
        frames.map(|(symbol, line)| Frame::new(symbol, source(line))).into()
    }

    #[test]
    fn a_coroutine_awaits_one_leaf_at_a_time() {
        let common = frames([("shop::order::{{closure}}", 10)]);
        let read = frames([("shop::load::{{closure}}", 20), ("tokio::net::TcpStream::poll_read", 5)]);
        let sleep = frames([("shop::load::{{closure}}", 21), ("tokio::time::sleep::Sleep::poll", 9)]);
        assert!(is_stale(&common, &read, &sleep));
        assert!(is_stale(&common, &frames([("a::poll", 1)]), &frames([("b::poll", 1)])), "by dynamic dispatch");
        let elsewhere = frames([("shop::load::{{closure}}", 21), ("tokio::net::TcpStream::poll_read", 5)]);
        assert!(is_stale(&common, &read, &elsewhere));
    }

    #[test]
    fn arms_of_a_combinator_are_awaited_at_once() {
        let one = frames([("shop::one::{{closure}}", 20)]);
        let two = frames([("shop::two::{{closure}}", 30)]);
        for combinator in [
            frames([("shop::order::{{closure}}", 10), ("futures_util::future::join_all::JoinAll<F>::poll", 7)]),
            frames([("shop::order::{{closure}}", 10), (POLL_FN, 7), ("shop::order::{{closure}}::{{closure}}", 11)]),
        ] {
            assert!(!is_stale(&combinator, &one, &two));
        }
        // The same, inlined into the function that parts.
        let arm = |line, arm| frames([(POLL_FN, 7), ("shop::order::{{closure}}::{{closure}}", line), (arm, 1)]);
        let common = frames([("shop::order::{{closure}}", 10)]);
        assert!(!is_stale(&common, &arm(11, "shop::one::{{closure}}"), &arm(12, "shop::two::{{closure}}")));
    }

    #[test]
    fn what_cannot_be_placed_is_stale() {
        let common = frames([("shop::order::{{closure}}", 0)]);
        assert!(is_stale(&common, &frames([(UNKNOWN, 0)]), &frames([(UNKNOWN, 0)])));
        let handler = frames([("shop::order::{{closure}}", 0)]);
        assert!(is_stale(&[], &handler, &handler), "everything may be inlined into it");
        assert!(!is_stale(&[], &frames([("a", 1)]), &frames([("b", 1)])), "nothing in common");
    }
}
