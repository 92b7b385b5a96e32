//! From the frames of a stack to the code signatures that are shown: the application's functions, and what they wait for.

use std::fmt::Write;

use super::Frame;
use super::frame::{CUT_OFF, UNKNOWN};

/// The longest code signature, in characters. SkyWalking's UI shows about this much (500 pixels) and cuts the rest.
const LONGEST: usize = 80;

/// Which frames of a stack are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frames {
    /// The application's own functions, and below the last of them the outermost library function: what it called or
    /// awaited.
    #[default]
    Application,
    /// Every frame below the layer, those of tower, the web framework and the standard library included.
    All,
}

/// How a stack ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Leaf {
    /// In what is awaited.
    Awaited,
    /// In what runs, or blocks its thread.
    Running,
}

/// The code signatures of one stack, root first, without the request's root.
pub(crate) type Signatures = Vec<String>;

/// The code signatures of `frames`, which are root first. May be empty: a stack of library frames alone.
///
/// A signature is `function @ file:line`: the function, and the place in the frame shown above it where it was called or
/// awaited. So one function is one node, and two awaits of it stay apart.
pub(crate) fn signatures(frames: &[Frame], shown: Frames, leaf: Leaf) -> Signatures {
    let kept: Vec<&Frame> = match shown {
        Frames::All => frames.iter().collect(),
        Frames::Application => {
            let lines_known = lines_known(frames);
            let is_shown = |frame: &Frame| !is_plumbing(frame) || leaf == Leaf::Running && is_call(frame);
            let library =
                |i: usize| !is_application(&frames[i], lines_known) && is_shown(&frames[i]) && !is_glue(frames, i);
            let mut kept: Vec<_> = own(frames).collect();
            let above = kept.last().copied().or_else(|| frames.iter().rposition(|frame| is_of(frame, &LAYERS)));
            let below = above.map_or(0, |above| above + 1);
            kept.extend((below..frames.len()).find(|&i| library(i)));
            kept.into_iter().map(|i| &frames[i]).collect()
        }
    };
    let callers = [None].into_iter().chain(kept.iter().map(|frame| frame.source.as_ref()));
    kept.iter()
        .zip(callers)
        .map(|(frame, caller)| {
            let place =
                caller.and_then(|source| Some(format!(" @ {}:{}", source.file, source.line?))).unwrap_or_default();
            let mut signature = frame.name.short(LONGEST.saturating_sub(place.chars().count()));
            let _ = write!(signature, "{place}");
            // The UI's tooltip takes what stands in angle brackets for HTML.
            signature.replace(['<', '>'], "")
        })
        .collect()
}

/// How many signatures the application's own functions among `frames` have.
pub(crate) fn own_signatures(frames: &[Frame], shown: Frames) -> usize {
    match shown {
        Frames::All => frames.len(),
        Frames::Application => own(frames).count(),
    }
}

/// The application's own functions.
fn own(frames: &[Frame]) -> impl Iterator<Item = usize> {
    let lines_known = lines_known(frames);
    let is_own =
        move |i: &usize| is_application(&frames[*i], lines_known) && !is_glue(frames, *i) && !is_wrapper(frames, *i);
    (0..frames.len()).filter(is_own)
}

fn lines_known(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| frame.source.is_some() && is_application(frame, false))
}

/// The source file decides. Without one the name does; but where the application's lines are known, a frame without one
/// is not the application's.
fn is_application(frame: &Frame, lines_known: bool) -> bool {
    let library = match &frame.source {
        // What was cut off is to be seen; what has no name tells nothing.
        None if frame.name.path() == CUT_OFF => false,
        None if frame.name.path() == UNKNOWN => true,
        Some(source) => source.library,
        None => lines_known || !is_rust(frame) || is_compilers(frame) || is_of(frame, &LIBRARIES),
    };
    !library && !frame.foreign && !OURS.contains(&frame.name.crate_name())
}

/// A function of Rust has a path; the C library's, which may be linked in, have bare names.
fn is_rust(frame: &Frame) -> bool {
    frame.name.path().contains("::")
}

/// Whether the frame's crate is one of `crates`, or of its family: `tokio_util` is of `tokio`'s.
fn is_of(frame: &Frame, crates: &[&str]) -> bool {
    let name = frame.name.crate_name();
    let is_family = |of: &&str| name.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    crates.iter().any(is_family)
}

/// Closures that a macro or a combinator wraps around the application's code: `join!` and `select!` poll their arms from
/// one below `PollFn`, adaptors call theirs by `FnOnce` and its kin.
fn is_glue(frames: &[Frame], i: usize) -> bool {
    let called_by =
        |above: usize| is_poll_fn(&frames[above]) || frames[above].name.path().starts_with("core::ops::function::");
    frames[i].name.closure && i.checked_sub(1).is_some_and(called_by)
}

/// `#[framed]` and `#[instrument]` make a function await its own body, in a future of theirs: it stands there twice.
fn is_wrapper(frames: &[Frame], i: usize) -> bool {
    const WRAPS: [&str; 2] = ["async_backtrace::", "tracing::instrument::"];
    let wraps = |frame: &Frame| WRAPS.iter().any(|module| frame.name.path().starts_with(module));
    let below = &frames[i + 1..];
    let body = below.iter().position(|frame| !wraps(frame) && !is_standard(frame));
    body.is_some_and(|body| below[body].name == frames[i].name && below[..body].iter().any(wraps))
}

/// The future that `join!` and `select!` are, of the standard library or of `futures`: it calls a closure, which polls the
/// arms.
pub(super) fn is_poll_fn(frame: &Frame) -> bool {
    frame.name.path().ends_with("::future::poll_fn::PollFn")
}

/// What every await and call passes through, and this crate's own frames, say nothing.
fn is_plumbing(frame: &Frame) -> bool {
    /// What joins are made of, and adaptors.
    const ON_THE_WAY: [&str; 7] = [
        "futures_util::future::either::",
        "futures_util::future::future::",
        "futures_util::future::maybe_done::",
        "futures_util::future::poll_fn::",
        "futures_util::future::try_future::",
        "futures_util::future::try_maybe_done::",
        "tokio::future::maybe_done::",
    ];
    /// Among the adaptors, but polls on behalf of others, too.
    const SHARED: &str = "futures_util::future::future::shared::";
    let path = frame.name.path();
    is_standard(frame)
        || OURS.contains(&frame.name.crate_name())
        || ON_THE_WAY.iter().any(|module| path.starts_with(module)) && !path.starts_with(SHARED)
}

/// A function of the standard library that calls the system or waits, and is not just on the way to others. What `core` and
/// `alloc` do is as good as the caller's own.
fn is_call(frame: &Frame) -> bool {
    const ON_THE_WAY: [&str; 4] = ["std::panic::", "std::panicking::", "std::rt::", "std::thread::local::"];
    let path = frame.name.path();
    path.starts_with("std::") && !frame.inlined && !ON_THE_WAY.iter().any(|way| path.starts_with(way))
}

/// Of the standard library, or added by the compiler.
pub(super) fn is_standard(frame: &Frame) -> bool {
    let name = frame.name.crate_name();
    ["core", "std", "alloc"].contains(&name) || PRIMITIVES.contains(&name) || is_compilers(frame)
}

/// Types whose functions go by their names alone: `u64::wrapping_mul`.
const PRIMITIVES: [&str; 18] = [
    "bool", "char", "f32", "f64", "i128", "i16", "i32", "i64", "i8", "isize", "slice", "str", "u128", "u16", "u32",
    "u64", "u8", "usize",
];

/// The compiler's own functions have neither crate nor source: `__rust_try` below `catch_unwind`.
fn is_compilers(frame: &Frame) -> bool {
    frame.name.path().starts_with("__rust_")
}

/// This project's own crates.
const OURS: [&str; 2] = ["skywalking_profile", "skywalking_profile_axum"];

/// Crates between the layer and the application, each with its family. Where no frame is known to be the
/// application's, what it awaits comes after theirs.
const LAYERS: [&str; 4] = ["axum", "hyper", "tonic", "tower"];

/// Crates that are not the application's, each with its family, for frames whose source file is not known.
const LIBRARIES: [&str; 23] = [
    "alloc",
    "axum",
    "bytes",
    "core",
    "crossbeam",
    "futures",
    "h2",
    "http",
    "hyper",
    "matchit",
    "mio",
    "parking_lot",
    "pin_project",
    "prost",
    "reqwest",
    "rustls",
    "sqlx",
    "std",
    "tokio",
    "tonic",
    "tower",
    "tracing",
    "want",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::stack::frame::Source;

    const HERE: &str = "/srv/shop/src";
    const DEPENDENCY: &str = "/home/me/.cargo/registry/src/x/tokio-1/src";
    const STANDARD: &str = "/rustc/59807/library/core/src";

    fn frame(symbol: &str, folder: &str, file: &str, line: u32) -> Frame {
        Frame::new(symbol, Some(Source::new(Path::new(folder), file, line, None)))
    }

    fn symbol(symbol: &str) -> Frame {
        Frame::new(symbol, None)
    }

    fn axum_stack() -> Vec<Frame> {
        vec![
            frame("skywalking_profile::await_tree::poll", HERE, "poll.rs", 20),
            frame(
                "<axum::routing::route::RouteFuture<E> as core::future::future::Future>::poll",
                DEPENDENCY,
                "route.rs",
                148,
            ),
            frame("<F as axum::handler::Handler<(M,T1),S>>::call::{{closure}}", DEPENDENCY, "mod.rs", 230),
            frame("shop::order::{{closure}}", HERE, "src/main.rs", 12),
            frame("<core::pin::Pin<P> as core::future::future::Future>::poll", STANDARD, "future.rs", 124),
            frame("shop::load::{{closure}}", HERE, "main.rs", 30),
            symbol("<tokio::time::sleep::Sleep as core::future::future::Future>::poll"),
            symbol("tokio::runtime::time::entry::TimerEntry::poll_elapsed"),
            frame("skywalking_profile::await_tree::waker::clone", HERE, "waker.rs", 9),
        ]
    }

    #[test]
    fn the_application_and_what_it_awaits_are_shown() {
        assert_eq!(
            signatures(&axum_stack(), Frames::Application, Leaf::Awaited),
            ["shop::order", "shop::load @ main.rs:12", "tokio::time::sleep::Sleep @ main.rs:30"]
        );
    }

    #[test]
    fn all_frames_are_shown_on_demand() {
        let all = signatures(&axum_stack(), Frames::All, Leaf::Awaited);
        assert_eq!(all.len(), 9);
        assert_eq!(all[1], "axum::routing::route::RouteFuture @ poll.rs:20");
    }

    #[test]
    fn an_application_may_be_named_like_a_library() {
        let frames = [
            frame("axum_shop::order::{{closure}}", HERE, "main.rs", 12),
            frame("http_api::load::{{closure}}", HERE, "api.rs", 30),
            symbol("tokio_util::time::delay_queue::DelayQueue::poll_expired"),
        ];
        assert_eq!(
            signatures(&frames, Frames::Application, Leaf::Awaited),
            [
                "axum_shop::order",
                "http_api::load @ main.rs:12",
                "tokio_util::time::delay_queue::DelayQueue::poll_expired @ api.rs:30"
            ]
        );
        assert_eq!(signatures(&[symbol("httpbin::get")], Frames::Application, Leaf::Awaited), ["httpbin::get"]);
    }

    #[test]
    fn closures_of_combinators_are_glue() {
        let frames = [
            frame("shop::order::{{closure}}", HERE, "main.rs", 12),
            frame(
                "<core::future::poll_fn::PollFn<F> as core::future::future::Future>::poll",
                STANDARD,
                "poll_fn.rs",
                151,
            ),
            frame("shop::order::{{closure}}::{{closure}}", DEPENDENCY, "join.rs", 126),
            frame("shop::load::{{closure}}", HERE, "main.rs", 30),
        ];
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Awaited), ["shop::order", "shop::load @ main.rs:12"]);
    }

    #[test]
    fn a_function_that_an_attribute_wraps_is_shown_once() {
        for wraps in [
            &["async_backtrace::framed::Framed::poll", "async_backtrace::framed::Framed::poll::{{closure}}"][..],
            &["<tracing::instrument::Instrumented<T> as core::future::future::Future>::poll"],
        ] {
            let mut frames = vec![frame("shop::order::{{closure}}", HERE, "main.rs", 11)];
            frames.extend(wraps.iter().map(|symbol| frame(symbol, DEPENDENCY, "framed.rs", 7)));
            frames.push(frame("shop::order::{{closure}}::{{closure}}", HERE, "main.rs", 12));
            frames.push(frame("shop::load::{{closure}}", HERE, "main.rs", 30));
            assert_eq!(
                signatures(&frames, Frames::Application, Leaf::Awaited),
                ["shop::order", "shop::load @ main.rs:12"]
            );
        }
        let recursion = [
            frame("shop::walk::{{closure}}", HERE, "main.rs", 3),
            frame("shop::walk::{{closure}}", HERE, "main.rs", 3),
        ];
        assert_eq!(signatures(&recursion, Frames::Application, Leaf::Awaited).len(), 2);
    }

    #[test]
    fn without_lines_names_decide() {
        let frames = [
            symbol("axum::routing::route::Route::call"),
            symbol("shop::load::{{closure}}"),
            symbol("tokio::time::sleep::Sleep::poll_elapsed"),
        ];
        assert_eq!(
            signatures(&frames, Frames::Application, Leaf::Awaited),
            ["shop::load", "tokio::time::sleep::Sleep::poll_elapsed"]
        );
    }

    #[test]
    fn without_any_frame_of_the_application_what_it_awaits_is_shown() {
        let frames = [
            symbol("skywalking_profile::await_tree::poll::poll"),
            symbol("<F as axum::handler::Handler<(M,T1),S>>::call::{{closure}}"),
            symbol("<tokio::time::sleep::Sleep as core::future::future::Future>::poll"),
            symbol("tokio::sync::task::atomic_waker::AtomicWaker::register_by_ref"),
        ];
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Awaited), ["tokio::time::sleep::Sleep"]);
    }

    #[test]
    fn what_runs_ends_in_what_the_application_called() {
        let shown = |frames: &[Frame]| signatures(frames, Frames::Application, Leaf::Running);
        let handler = frame("shop::order", HERE, "main.rs", 12);
        let std = |symbol_: &str| frame(symbol_, "/rustc/59807/library/std/src", "lib.rs", 9);
        let sleep = [handler.clone(), std("std::thread::functions::sleep"), symbol("clock_nanosleep")];
        assert_eq!(shown(&sleep), ["shop::order", "std::thread::functions::sleep @ main.rs:12"]);
        // What is inlined, and what the language consists of, is the caller's own.
        let inlined = Frame { inlined: true, ..std("std::io::Read::read") };
        let next = frame("core::ops::range::Range::next", STANDARD, "range.rs", 9);
        assert_eq!(shown(&[handler.clone(), next.clone(), inlined]), ["shop::order"]);
        let product = frame("u64::wrapping_mul", STANDARD, "num.rs", 9);
        assert_eq!(shown(&[handler.clone(), product]), ["shop::order"]);
        assert_eq!(shown(&[handler.clone(), next, symbol("malloc")]), ["shop::order", "malloc @ main.rs:12"]);
        let caught = [handler, std("std::panicking::catch_unwind"), frame("shop::item", HERE, "item.rs", 1)];
        assert_eq!(shown(&caught), ["shop::order", "shop::item @ main.rs:12"]);
    }

    #[test]
    fn functions_of_other_modules_and_languages_are_not_the_applications() {
        let recv = Frame { foreign: true, ..frame("__libc_recv", "./socket", "recv.c", 23) };
        let frames = [frame("shop::order", HERE, "main.rs", 12), recv.clone(), recv];
        assert_eq!(
            signatures(&frames, Frames::Application, Leaf::Running),
            ["shop::order", "__libc_recv @ main.rs:12"]
        );
        let frames = [symbol("shop::order"), symbol("malloc"), symbol("_int_malloc")];
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Running), ["shop::order", "malloc"]);
    }

    #[test]
    fn what_the_compiler_adds_says_nothing() {
        let frames = [
            symbol("tokio::runtime::task::harness::poll_future"),
            symbol("__rust_try"),
            symbol("<tower_http::timeout::service::ResponseFuture<F> as core::future::future::Future>::poll"),
            symbol("<tokio::time::sleep::Sleep as core::future::future::Future>::poll"),
        ];
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Awaited), ["tokio::time::sleep::Sleep"]);
    }

    #[test]
    fn a_slice_of_the_standard_library_is_not_the_applications() {
        let frames = [
            frame("shop::order", HERE, "main.rs", 12),
            frame("<[T]>::sort", STANDARD, "slice.rs", 9),
            symbol("tokio::time::sleep::Sleep::poll_elapsed"),
        ];
        assert_eq!(frames[1].name.path(), "[T]::sort");
        assert!(!is_application(&frames[1], true));
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Awaited), ["shop::order", "[T]::sort @ main.rs:12"]);
    }

    #[test]
    fn what_has_no_name_is_one_node() {
        let frames = [symbol(UNKNOWN), symbol(UNKNOWN), symbol(UNKNOWN)];
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Awaited), [UNKNOWN]);
        let frames = [symbol(CUT_OFF), symbol("shop::load"), symbol(UNKNOWN)];
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Awaited), [CUT_OFF, "shop::load", UNKNOWN]);
    }

    #[test]
    fn the_arm_of_a_select_is_not_what_it_awaits() {
        // The arms' closure has the application's name and the macro's file.
        let frames = [
            frame("shop::order::{{closure}}", HERE, "main.rs", 12),
            frame(
                "<core::future::poll_fn::PollFn<F> as core::future::future::Future>::poll",
                STANDARD,
                "poll_fn.rs",
                7,
            ),
            frame("shop::order::{{closure}}::{{closure}}", DEPENDENCY, "select.rs", 706),
            frame("<tokio::time::sleep::Sleep as core::future::future::Future>::poll", DEPENDENCY, "sleep.rs", 447),
        ];
        assert_eq!(
            signatures(&frames, Frames::Application, Leaf::Awaited),
            ["shop::order", "tokio::time::sleep::Sleep @ main.rs:12"]
        );
    }

    #[test]
    fn a_future_written_by_hand_is_its_own_leaf() {
        let frames = [
            frame("shop::order::{{closure}}", HERE, "main.rs", 12),
            frame("<shop::Gate as core::future::future::Future>::poll", HERE, "gate.rs", 5),
            frame("core::task::wake::Waker::clone", STANDARD, "wake.rs", 1),
            frame("skywalking_profile::await_tree::waker::clone", HERE, "waker.rs", 9),
        ];
        assert_eq!(signatures(&frames, Frames::Application, Leaf::Awaited), ["shop::order", "shop::Gate @ main.rs:12"]);
    }

    #[test]
    fn signatures_keep_their_length_and_no_angle_brackets() {
        let long = "module::".repeat(20);
        let frames = [frame("shop::a", HERE, "main.rs", 1), frame(&format!("shop::{long}load<<x"), HERE, "main.rs", 2)];
        let shown = signatures(&frames, Frames::Application, Leaf::Awaited);
        assert!(shown[1].chars().count() <= LONGEST + 1, "{}", shown[1]);
        assert!(shown[1].ends_with(" @ main.rs:1"));
        assert!(!shown[1].contains(['<', '>']));
    }
}
