//! Names of functions as their authors wrote them: without hash, generic arguments and the compiler's suffixes.

use std::fmt;

/// A function's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// Path segments joined by `::`, such as `shop::db::load_order` or `tokio::time::sleep::Sleep`.
    path: Box<str>,
    /// The body of a closure, an async function or an async block: the compiler's names for the three do not differ.
    pub(crate) closure: bool,
}

impl Name {
    /// From a mangled symbol, in either of Rust's manglings, or of another language, which is then taken as it is.
    pub(crate) fn of_symbol(symbol: &str) -> Self {
        match rustc_demangle::try_demangle(symbol) {
            Ok(demangled) => Self::of_demangled(&format!("{demangled:#}")),
            // Debug information names some inlined functions by their bare name.
            Err(_) => Self::of_demangled(symbol),
        }
    }

    /// From what `type_name` says of something within the function. Whether that is a coroutine's body is not told.
    #[cfg(feature = "async-backtrace")]
    pub(crate) fn of_type(name: &str) -> Self {
        Self { closure: false, ..Self::of_demangled(name) }
    }

    /// Taken as it is.
    #[cfg(feature = "tracing-spans")]
    pub(crate) fn of_path(path: String) -> Self {
        Self { path: path.into(), closure: false }
    }

    fn of_demangled(demangled: &str) -> Self {
        let mut segments = segments(demangled, DEEPEST);
        let mut closure = false;
        while segments.len() > 1 && segments.last().is_some_and(|last| last.starts_with('{')) {
            closure |= segments.pop().is_some_and(|suffix| !suffix.contains("shim"));
        }
        Self { path: segments.join("::").into(), closure }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The crate that defines it, as far as the name tells: its first segment.
    pub(crate) fn crate_name(&self) -> &str {
        self.path.split("::").next().unwrap_or_default()
    }

    /// The path's last segments, in at most `limit` characters if there are two or more.
    pub(crate) fn short(&self, limit: usize) -> String {
        let mut rest: &str = &self.path;
        while rest.chars().count() > limit {
            match rest.split_once("::") {
                Some((_, tail)) => rest = tail,
                None => break,
            }
        }
        if rest.len() == self.path.len() { rest.to_owned() } else { format!("…{rest}") }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// The name of the function that `type_name` says a future or a closure is of; `None` if it is of a library, which may stand
/// for any: a box, an adaptor.
pub(crate) fn named_by(type_name: &str) -> Option<String> {
    /// As long as a signature is.
    const LONGEST: usize = 80;
    /// With their families.
    const LIBRARIES: [&str; 6] = ["core", "alloc", "std", "futures", "tokio", "tracing"];
    let name = Name::of_demangled(type_name);
    let is_of = |library: &&str| {
        name.crate_name().strip_prefix(*library).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    let is_known = name.path.contains("::") && !LIBRARIES.iter().any(is_of);
    is_known.then(|| name.short(LONGEST))
}

/// Types within types that a name is taken apart to.
const DEEPEST: usize = 64;

/// The path's segments without generic arguments. `<T as Trait>::f` gives `T`'s segments and `f`; a `poll` that a type
/// implements is the type itself; where `T` is no path (a type parameter, a reference, a tuple) the trait stands for it.
fn segments(name: &str, depth: usize) -> Vec<&str> {
    if depth == 0 {
        return vec![name];
    }
    let mut segments = Vec::new();
    let mut implemented = false;
    for part in split(name) {
        match part.strip_prefix('<') {
            // `<T as Trait>` or `<T>` at the start, `<impl Trait for T>` in the middle (legacy mangling), or arguments.
            Some(inner) => {
                let inner = inner.strip_suffix('>').unwrap_or(inner);
                if let Some((_, implementor)) = inner.strip_prefix("impl ").and_then(|of| split_at_word(of, " for ")) {
                    segments = type_segments(implementor, depth - 1).unwrap_or(segments);
                    implemented = true;
                } else if segments.is_empty() {
                    let (implementor, of) = split_at_word(inner, " as ").unzip();
                    segments = type_segments(implementor.unwrap_or(inner), depth - 1)
                        .or_else(|| type_segments(of?, depth - 1))
                        .unwrap_or_else(|| vec![inner]);
                    implemented = of.is_some();
                }
            }
            None => segments.push(without_arguments(part)),
        }
    }
    if implemented {
        let own = segments.iter().rposition(|segment| !segment.starts_with('{')).unwrap_or(0);
        if own > 0 && segments[own] == "poll" {
            segments.remove(own);
        }
    }
    segments
}

/// The segments of a type's path; `None` for types without one.
fn type_segments(name: &str, depth: usize) -> Option<Vec<&str>> {
    let name = name.trim_start_matches("&").trim_start_matches("mut ").trim_start_matches("dyn ");
    let path = segments(name, depth);
    (path.len() > 1 && !name.starts_with(['(', '[', '*'])).then_some(path)
}

fn without_arguments(segment: &str) -> &str {
    let end = if segment.starts_with('{') { segment.rfind('}').map(|brace| brace + 1) } else { segment.find('<') };
    &segment[..end.unwrap_or(segment.len())]
}

/// Splits at the `::` that are in no brackets.
fn split(name: &str) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for (at, _) in outside_brackets(name, "::") {
        // `a::::b` does not occur, but an index overlapping the last split must not panic.
        if at >= start {
            parts.push(&name[start..at]);
            start = at + 2;
        }
    }
    parts.push(&name[start..]);
    parts.retain(|part| !part.is_empty());
    parts
}

/// Splits at the first `word` that is in no brackets.
fn split_at_word<'a>(name: &'a str, word: &'a str) -> Option<(&'a str, &'a str)> {
    let (at, _) = outside_brackets(name, word).next()?;
    Some((&name[..at], &name[at + word.len()..]))
}

/// The places where `pattern` stands outside of `<>`, `()`, `[]` and `{}`.
fn outside_brackets<'a>(name: &'a str, pattern: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    let mut depth = 0i32;
    let mut previous = ' ';
    name.char_indices().filter_map(move |(at, c)| {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            // The arrow of a function's type closes nothing.
            '>' if previous == '-' => {}
            '>' | ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        previous = c;
        (depth == 0 && name[at..].starts_with(pattern)).then_some((at, pattern))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is_named(demangled: &str, path: &str, closure: bool) {
        let name = Name::of_demangled(demangled);
        assert_eq!((name.path(), name.closure), (path, closure), "{demangled}");
    }

    #[test]
    fn functions_keep_their_path() {
        is_named("shop::db::load_order", "shop::db::load_order", false);
        is_named("main", "main", false);
    }

    #[test]
    fn coroutine_bodies_lose_their_suffix_in_both_manglings() {
        is_named("shop::db::load_order::{{closure}}", "shop::db::load_order", true);
        is_named("shop::db::load_order::{closure#0}::{closure#1}", "shop::db::load_order", true);
        is_named("shop::db::load_order::{async_fn#0}", "shop::db::load_order", true);
        is_named("{async_fn#0}", "{async_fn#0}", false);
        is_named("shop::get::{closure#0}<alloc::string::String>", "shop::get", true);
    }

    #[test]
    fn a_poll_that_a_type_implements_is_the_type() {
        is_named(
            "<tokio::time::sleep::Sleep as core::future::future::Future>::poll",
            "tokio::time::sleep::Sleep",
            false,
        );
        is_named(
            "<tokio::net::tcp::stream::TcpStream as tokio::io::AsyncRead>::poll_read",
            "tokio::net::tcp::stream::TcpStream::poll_read",
            false,
        );
        is_named(
            "core::future::poll_fn::<impl core::future::future::Future for core::future::poll_fn::PollFn<F>>::poll",
            "core::future::poll_fn::PollFn",
            false,
        );
        is_named("shop::queue::poll", "shop::queue::poll", false);
    }

    #[test]
    fn generic_arguments_vanish() {
        is_named("alloc::vec::Vec<T,A>::push", "alloc::vec::Vec::push", false);
        is_named("shop::get::<fn(u8) -> alloc::string::String, _>::{closure#0}", "shop::get", true);
        is_named("<shop::Cache<K, (A, [u8; 4])>>::insert::<B>", "shop::Cache::insert", false);
        is_named(
            "<axum::handler::future::IntoServiceFuture<F> as core::future::future::Future>::poll",
            "axum::handler::future::IntoServiceFuture",
            false,
        );
    }

    #[test]
    fn a_trait_stands_for_a_type_without_a_path() {
        is_named("<F as axum::handler::Handler<(M,T1),S>>::call::{{closure}}", "axum::handler::Handler::call", true);
        is_named("<&T as core::fmt::Debug>::fmt", "core::fmt::Debug::fmt", false);
        is_named("<&mut shop::Body as http_body::Body>::poll_frame", "shop::Body::poll_frame", false);
        is_named("<(A, B) as tower::Service<R>>::call", "tower::Service::call", false);
        is_named(
            "<alloc::boxed::Box<dyn core::future::future::Future<Output = ()>> as core::future::future::Future>::poll",
            "alloc::boxed::Box",
            false,
        );
    }

    #[test]
    fn odd_names_are_taken_as_they_are() {
        for odd in ["", "<", ">>", "::", "<<a as b", "a->b", "operator<<", "{{closure}}", "<T>", "é::<ü"] {
            let _ = Name::of_demangled(odd);
        }
        is_named("__libc_start_main", "__libc_start_main", false);
    }

    #[test]
    fn a_name_without_end_is_not_taken_apart_without_end() {
        let _ = Name::of_demangled(&"<".repeat(5_000));
        let _ = Name::of_demangled(&format!("{}a::b{}", "<".repeat(1_000), " as c>::d".repeat(1_000)));
    }

    #[test]
    fn both_manglings_are_read() {
        assert_eq!(
            Name::of_symbol("_ZN13slow_endpoint7method328_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE").path(),
            "slow_endpoint::method3"
        );
        assert_eq!(Name::of_symbol("_RNCNvCs15kBYyAo9fc_13slow_endpoint7method30B3_").path(), "slow_endpoint::method3");
    }

    #[test]
    fn long_names_are_cut_at_the_front() {
        let name = Name::of_demangled("shop::orders::database::load_order");
        assert_eq!(name.short(80), "shop::orders::database::load_order");
        assert_eq!(name.short(25), "…database::load_order");
        assert_eq!(name.short(3), "…load_order");
    }
}
