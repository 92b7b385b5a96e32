//! Where two captures of one poll part, and what that tells: whether nobody awaits one of the leaves any more, whether one of
//! them is to win.
//!
//! Some leaves keep their waker when they are no longer awaited: a read that lost a `select!`, a pinned `Sleep` that has
//! elapsed. Two captures of one poll tell: a coroutine is suspended at one await, so where their stacks part in the body
//! of a coroutine, the older one is stale. Where they part in a `poll`, or in the closure that `join!` and `select!` poll
//! their arms from, both are awaited.
//!
//! Code does not tell two futures of one type apart. Below a call that polls many of them, `join_all`'s say, nothing can
//! be told, and no leaf counts as stale.
//!
//! In the same way the names tell the arms of a `select!` from those of a `join!`.

use super::Frame;
use super::frame::UNKNOWN;
use super::trim::{is_poll_fn, is_standard};

/// Whether the older of two captures of one poll is stale.
///
/// `older` and `newer` are the frames, inlined ones included, at the first code address from the root that differs between
/// them; `common` are all above. Symbols are compared as they are mangled: generic arguments count. Without debug
/// information inlined frames do not show: a capture that cannot be placed counts as stale.
pub(crate) fn is_stale<'a>(common: impl IntoIterator<Item = &'a Frame>, older: &'a [Frame], newer: &[Frame]) -> bool {
    let shared = shared(common, older, newer);
    if shared.iter().any(|frame| polls_many(frame)) {
        return false;
    }
    parts_in(&shared)
        .is_some_and(|i| shared[i].name.path() == UNKNOWN || shared[i].name.closure && !is_arms(&shared, i))
}

/// Whether two captures are of arms of one `select!`, or of what does the same. Frames as those of [`is_stale`].
pub(crate) fn are_rivals<'a>(common: impl IntoIterator<Item = &'a Frame>, one: &'a [Frame], other: &[Frame]) -> bool {
    /// What polls the arms of the macros has the place of its code in the macro.
    const MACROS: [&str; 2] = ["select.rs", "select_mod.rs"];
    const FUNCTIONS: [&str; 3] =
        ["futures_util::future::select", "futures_util::stream::select", "futures_lite::future::"];
    let shared = shared(common, one, other);
    parts_in(&shared).is_some_and(|i| {
        let is_of_macro = |file: &str| is_arms(&shared, i) && MACROS.contains(&file);
        shared[i].source.as_ref().is_some_and(|source| source.library && is_of_macro(&source.file))
            || FUNCTIONS.iter().any(|function| shared[i].name.path().starts_with(function))
    })
}

/// The frames that two stacks share.
fn shared<'a>(common: impl IntoIterator<Item = &'a Frame>, one: &'a [Frame], other: &[Frame]) -> Vec<&'a Frame> {
    let mut shared: Vec<&Frame> = common.into_iter().collect();
    for (one, other) in one.iter().zip(other) {
        if one.symbol != other.symbol {
            break;
        }
        shared.push(one);
        // Two places in this function.
        if one.source != other.source {
            break;
        }
    }
    shared
}

/// Of the frames that two stacks share, the one in which they part.
fn parts_in(shared: &[&Frame]) -> Option<usize> {
    (0..shared.len()).rev().find(|&i| !passes_on(shared, i))
}

/// The closure that polls the arms of a `join!` or `select!`.
fn is_arms(frames: &[&Frame], i: usize) -> bool {
    i > 0 && is_poll_fn(frames[i - 1])
}

/// Whether a call in this function may be of many futures, in turn.
pub(crate) fn polls_many(frame: &Frame) -> bool {
    let path = frame.name.path();
    let is_of = |combinator: &str| path.strip_suffix(combinator).is_some_and(|module| module.ends_with("::"));
    path.starts_with("core::iter::") || ["JoinAll", "TryJoinAll", "SelectAll", "SelectOk"].into_iter().any(is_of)
}

/// Whether the frame polls one future after the other: a pin or a box, an adaptor, or a closure for one.
fn passes_on(frames: &[&Frame], i: usize) -> bool {
    /// Of these, a closure's name below is a coroutine's.
    const FUTURES: [&str; 4] =
        ["core::pin::Pin", "core::panic::unwind_safe::AssertUnwindSafe", "alloc::boxed::Box", "core::future::"];
    /// The adaptors of `FutureExt` and `TryFutureExt`, and what they are made of.
    const ADAPTORS: [&str; 7] = [
        "futures_core::future::",
        "futures_core::stream::",
        "futures_util::future::either::",
        "futures_util::future::future::",
        "futures_util::future::try_future::",
        "futures_util::stream::unfold::",
        "tracing::instrument::",
    ];
    let path = frames[i].name.path();
    if frames[i].name.closure {
        let is_called_by = |above: &Frame| {
            is_standard(above) && !is_poll_fn(above) && !FUTURES.iter().any(|of| above.name.path().starts_with(of))
        };
        return i.checked_sub(1).is_some_and(|above| is_called_by(frames[above]));
    }
    is_standard(frames[i]) && !is_poll_fn(frames[i])
        || ADAPTORS.iter().any(|module| path.starts_with(module))
        || is_stream_adaptor(path)
}

/// Whether this is an adaptor of `StreamExt` or `TryStreamExt` that polls either its stream or the future of one item.
fn is_stream_adaptor(path: &str) -> bool {
    const EXTENSIONS: [&str; 3] =
        ["futures_util::stream::stream::", "futures_util::stream::try_stream::", "tokio_stream::stream_ext::"];
    /// Others poll several at once: `zip`, `buffered`, `take_until`.
    const ADAPTORS: [&str; 20] = [
        "StreamExt",
        "TryStreamExt",
        "and_then",
        "collect",
        "concat",
        "filter",
        "filter_map",
        "fold",
        "for_each",
        "fuse",
        "map",
        "next",
        "or_else",
        "then",
        "try_collect",
        "try_filter",
        "try_filter_map",
        "try_fold",
        "try_for_each",
        "try_next",
    ];
    let adaptor = EXTENSIONS.iter().find_map(|module| path.strip_prefix(module)?.split("::").next());
    adaptor.is_some_and(|adaptor| ADAPTORS.contains(&adaptor))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::stack::frame::Source;

    const POLL_FN: &str = "<core::future::poll_fn::PollFn<F> as core::future::future::Future>::poll";
    const FUTURES_POLL_FN: &str = "<futures_util::future::poll_fn::PollFn<F> as core::future::future::Future>::poll";

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
        assert!(is_stale(&common, &frames([("a::poll", 1)]), &frames([("b::poll", 1)])), "from one place");
        let elsewhere = frames([("shop::load::{{closure}}", 21), ("tokio::net::TcpStream::poll_read", 5)]);
        assert!(is_stale(&common, &read, &elsewhere));
    }

    #[test]
    fn arms_of_a_combinator_are_awaited_at_once() {
        let one = frames([("shop::one::{{closure}}", 20)]);
        let two = frames([("shop::two::{{closure}}", 30)]);
        for combinator in [
            frames([
                ("shop::order::{{closure}}", 10),
                ("<futures_util::future::join_all::JoinAll<F> as core::future::future::Future>::poll", 7),
            ]),
            frames([("shop::order::{{closure}}", 10), (POLL_FN, 7), ("shop::order::{{closure}}::{{closure}}", 11)]),
            frames([
                ("shop::order::{{closure}}", 10),
                (FUTURES_POLL_FN, 7),
                ("shop::order::{closure#0}::{closure#1}", 11),
            ]),
        ] {
            assert!(!is_stale(&combinator, &one, &two));
        }
        // The same, inlined into the function that parts.
        let arm = |line, arm| frames([(POLL_FN, 7), ("shop::order::{{closure}}::{{closure}}", line), (arm, 1)]);
        let common = frames([("shop::order::{{closure}}", 10)]);
        assert!(!is_stale(&common, &arm(11, "shop::one::{{closure}}"), &arm(12, "shop::two::{{closure}}")));
    }

    #[test]
    fn what_polls_one_future_at_a_time_is_passed_over() {
        let one = frames([("<shop::One as shop::Step>::run::{{closure}}", 20)]);
        let two = frames([("<shop::Two as shop::Step>::run::{{closure}}", 30)]);
        let coroutine = ("shop::order::{{closure}}", 10);
        for between in [
            "<core::pin::Pin<P> as core::future::future::Future>::poll",
            "<futures_util::future::future::Map<Fut, F> as core::future::future::Future>::poll",
            "<futures_util::future::either::Either<A, B> as core::future::future::Future>::poll",
            "<futures_util::stream::stream::then::Then<St, Fut, F> as futures_core::stream::Stream>::poll_next",
            "futures_util::stream::stream::StreamExt::poll_next_unpin",
            "<tokio_stream::stream_ext::next::Next<St> as core::future::future::Future>::poll",
        ] {
            assert!(is_stale(&frames([coroutine, (between, 7)]), &one, &two), "{between}");
            let combinator = ("<shop::Both<A, B> as core::future::future::Future>::poll", 3);
            assert!(!is_stale(&frames([coroutine, combinator, (between, 7)]), &one, &two), "{between}");
        }
        let caught = [coroutine, ("std::panic::catch_unwind", 1), ("shop::order::{{closure}}::{{closure}}", 11)];
        assert!(is_stale(&frames(caught), &one, &two));
    }

    #[test]
    fn what_polls_two_streams_awaits_both() {
        let next = ("<futures_util::stream::stream::next::Next<St> as core::future::future::Future>::poll", 7);
        let (one, two) = (frames([("shop::one::{{closure}}", 20)]), frames([("shop::two::{{closure}}", 30)]));
        for both in [
            "<futures_util::stream::stream::zip::Zip<St1, St2> as futures_core::stream::Stream>::poll_next",
            "futures_util::stream::select_with_strategy::poll_side",
        ] {
            assert!(!is_stale(&frames([("shop::order::{{closure}}", 10), next, (both, 7)]), &one, &two), "{both}");
        }
    }

    #[test]
    fn below_what_polls_many_futures_nothing_is_told() {
        let place = |line| frames([("shop::fetch::{{closure}}", line), ("tokio::time::sleep::Sleep::poll", 1)]);
        for many in [
            "<futures_util::future::join_all::JoinAll<F> as core::future::future::Future>::poll",
            "core::iter::traits::iterator::Iterator::for_each",
        ] {
            assert!(
                !is_stale(&frames([("shop::order::{{closure}}", 10), (many, 7)]), &place(20), &place(21)),
                "{many}"
            );
        }
    }

    #[test]
    fn arms_of_a_select_are_rivals() {
        let one = frames([("shop::one::{{closure}}", 20)]);
        let two = frames([("shop::two::{{closure}}", 30)]);
        let coroutine = &frames([("shop::order::{{closure}}", 10)])[..];
        let in_macro = |file: &str| {
            let source = Source::new(Path::new("/home/me/.cargo/registry/src/x/tokio-1/src/macros"), file, 710, None);
            let arms = Frame::new("shop::order::{{closure}}::{{closure}}", Some(source));
            [coroutine, &frames([(POLL_FN, 7)]), &[arms]].concat()
        };
        let in_function = |function: &str| [coroutine, &frames([(function, 7)])].concat();
        assert!(are_rivals(&in_macro("select.rs"), &one, &two));
        assert!(!are_rivals(&in_macro("join.rs"), &one, &two));
        let select = "<futures_util::future::select::Select<A, B> as core::future::future::Future>::poll";
        assert!(are_rivals(&in_function(select), &one, &two));
        let join = "<futures_util::future::join::Join<A, B> as core::future::future::Future>::poll";
        assert!(!are_rivals(&in_function(join), &one, &two));
        assert!(!are_rivals(coroutine, &one, &two));
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
