//! What the self-test finds, and how that is said.

use crate::stack::{CUT_OFF, Frame, UNKNOWN};

/// What native stacks tell of the application's async functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// Names, files and lines, by debug information.
    Lines,
    /// Files and lines, by line tables.
    LinesOnly,
    /// Names, by symbols.
    Symbols,
    /// There are symbols, but the functions are inlined into others.
    Inlined,
    /// There are neither symbols nor debug information.
    Stripped,
    /// A stack could not be copied or unwound.
    NoStack,
    /// It is not tried on this platform.
    Unsupported,
}

/// The annotations that are there to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) framed: bool,
    pub(super) spans: bool,
}

/// The functions of the probe, outer ones first.
const FUNCTIONS: [&str; 2] =
    ["skywalking_profile::self_test::probe::outer", "skywalking_profile::self_test::probe::inner"];

impl Finding {
    /// From the frames of the probe's stack.
    pub(super) fn of<'a>(frames: impl Iterator<Item = &'a Frame> + Clone) -> Self {
        let function = |name: &str| frames.clone().find(|frame| frame.name.path() == name);
        if function(CUT_OFF).is_some() {
            Self::NoStack
        } else if let [Some(outer), Some(inner)] = FUNCTIONS.map(function) {
            if outer.source.is_some() && inner.source.is_some() { Self::Lines } else { Self::Symbols }
        } else if function("{async_fn#0}").is_some_and(|frame| frame.source.is_some()) {
            Self::LinesOnly
        } else if frames.clone().all(|frame| frame.name.path() == UNKNOWN) {
            Self::Stripped
        } else {
            Self::Inlined
        }
    }

    /// Whether they are told apart.
    pub(super) fn tells_functions(self) -> bool {
        match self {
            Self::Lines | Self::LinesOnly | Self::Symbols => true,
            Self::Inlined | Self::Stripped | Self::NoStack | Self::Unsupported => false,
        }
    }

    /// Whether less is seen than the application was built for.
    pub(super) fn is_lacking(self, marks: Marks) -> bool {
        if self.tells_functions() { self != Self::Lines } else { !(marks.framed || marks.spans) }
    }

    /// What is found, what is seen then, and what would let more be seen.
    pub(super) fn line(self, marks: Marks) -> String {
        /// Ends a list of the lines of `[profile.release]` in `Cargo.toml`.
        const DEBUG: &str = "debug = \"limited\"` and `[profile.release.package.\"*\"] debug = false`";
        let found = match self {
            Self::Lines => "this binary has debug information",
            Self::LinesOnly => "the debug information of this binary is line tables only",
            Self::Symbols | Self::Inlined => "this binary has no debug information, only symbols",
            Self::Stripped => "this binary is stripped",
            Self::NoStack => "stacks cannot be unwound in this process",
            Self::Unsupported => "stacks cannot be captured on this platform, only on x86_64 and aarch64 Linux",
        };
        let seen = match (self, marks) {
            (Self::Lines, _) => "functions show with file and line",
            (Self::LinesOnly, _) => "async functions show with file and line, but without their names",
            (Self::Symbols, _) => "functions show without file and line",
            (_, Marks { framed: true, spans: false }) => "functions marked `#[async_backtrace::framed]` show",
            (_, Marks { framed: true, spans: true }) => {
                "functions marked `#[async_backtrace::framed]` show, where there are none `tracing` spans"
            }
            (_, Marks { framed: false, spans: true }) => "`tracing` spans show in place of functions",
            (Self::Inlined, _) => {
                "async functions cannot be told apart, nor a leaf that is awaited from one that was; only what they await shows"
            }
            (Self::Stripped, _) => "functions have no names, and waits show as [unknown]",
            (Self::NoStack | Self::Unsupported, _) => "waits show as [pending]",
        };
        let build = match self {
            Self::Lines | Self::NoStack | Self::Unsupported => None,
            Self::LinesOnly => Some("set `debug = \"limited\"` in Cargo.toml".to_owned()),
            Self::Symbols | Self::Inlined => Some(format!("set in Cargo.toml `[profile.release] {DEBUG}")),
            Self::Stripped => Some(format!(
                "set in Cargo.toml `[profile.release] strip = false, {DEBUG}, or keep its `.debug` file beside it"
            )),
        };
        let mark = if self.tells_functions() || marks.framed || marks.spans {
            None
        } else if cfg!(feature = "tracing-spans") {
            Some("add `SpanLayer` to the `tracing` subscriber before the profile layer is made")
        } else {
            Some("mark functions, by the features `async-backtrace` or `tracing-spans` of skywalking-profile")
        };
        let more: Vec<&str> = build.as_deref().into_iter().chain(mark).collect();
        let more = if more.is_empty() { String::new() } else { format!("; to see more, {}", more.join(", or ")) };
        format!("{found}: {seen}{more}")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::stack::Source;

    const NONE: Marks = Marks { framed: false, spans: false };
    const FRAMED: Marks = Marks { framed: true, spans: false };
    const ALL: [Finding; 7] = [
        Finding::Lines,
        Finding::LinesOnly,
        Finding::Symbols,
        Finding::Inlined,
        Finding::Stripped,
        Finding::NoStack,
        Finding::Unsupported,
    ];

    #[track_caller]
    fn finds(frames: &[(&str, bool)], expected: Finding) {
        let source = |has_line: bool| has_line.then(|| Source::new(Path::new("/srv"), "probe.rs", 7, None));
        let frames: Vec<_> = frames.iter().map(|(symbol, has_line)| Frame::new(symbol, source(*has_line))).collect();
        assert_eq!(Finding::of(frames.iter()), expected, "{frames:?}");
    }

    #[test]
    fn the_probes_functions_tell_what_is_known_of_the_applications() {
        let [outer, inner] = FUNCTIONS.map(|function| format!("{function}::{{{{closure}}}}"));
        let poll = ("skywalking_profile::await_tree::poll::poll", false);
        finds(&[poll, (&outer, true), (&inner, true)], Finding::Lines);
        finds(&[poll, ("{async_fn#0}", true), ("{async_fn#0}", true)], Finding::LinesOnly);
        finds(&[poll, (&outer, false), (&inner, false)], Finding::Symbols);
        finds(&[poll, (&outer, false)], Finding::Inlined);
        finds(&[poll], Finding::Inlined);
        finds(&[(UNKNOWN, false), (UNKNOWN, false)], Finding::Stripped);
        finds(&[(CUT_OFF, false), (UNKNOWN, false)], Finding::NoStack);
    }

    #[test]
    fn a_line_is_a_warning_unless_functions_show_as_they_are_meant_to() {
        for finding in ALL {
            assert_eq!(finding.is_lacking(NONE), finding != Finding::Lines, "{finding:?}");
            assert_eq!(
                finding.is_lacking(FRAMED),
                matches!(finding, Finding::LinesOnly | Finding::Symbols),
                "{finding:?}"
            );
        }
    }

    #[test]
    fn a_line_says_what_would_show_more() {
        assert_eq!(Finding::Lines.line(NONE), "this binary has debug information: functions show with file and line");
        for finding in [Finding::Symbols, Finding::Inlined, Finding::Stripped] {
            for marks in [NONE, FRAMED] {
                let line = finding.line(marks);
                assert!(
                    line.contains("debug = \"limited\"` and `[profile.release.package.\"*\"] debug = false`"),
                    "{line}"
                );
                assert_eq!(line.contains("strip = false"), finding == Finding::Stripped, "{line}");
            }
        }
        assert!(!Finding::Unsupported.line(NONE).contains("Cargo.toml"));
        assert!(Finding::Unsupported.line(FRAMED).ends_with("functions marked `#[async_backtrace::framed]` show"));
    }
}
