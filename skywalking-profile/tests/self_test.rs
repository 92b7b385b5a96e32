//! The line that tells at the start what can be seen in this binary.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod support;

use skywalking_profile::{ProfileConfig, ProfileLayer};
use support::{FOREVER, Line, Log, block_on, in_a_copy_without};
use tracing::Level;

const ANNOTATIONS: bool = cfg!(any(feature = "async-backtrace", feature = "tracing-spans"));

/// What the first agent says of this binary.
fn line() -> Line {
    let log = Log::of("test", "first");
    let _layer = layer("first");
    log.line("this binary", FOREVER)
}

/// A layer whose OAP is away: its agent names itself.
fn layer(instance: &str) -> ProfileLayer {
    let config = ProfileConfig::new("test").and_then(|config| config.instance(instance));
    ProfileLayer::new(config.and_then(|config| config.backend_service("127.0.0.1:1")).expect("names and an address"))
}

#[test]
fn a_binary_with_debug_information_says_so() {
    let line = line();
    assert_eq!(line.level, Level::INFO);
    let [seen, running] = *line.message.split("; ").collect::<Vec<_>>() else { panic!("{line}") };
    assert_eq!(seen, "this binary has debug information: functions show with file and line");
    assert!(running.starts_with("what runs is sampled by signal "), "{line}");
}

#[test]
fn a_binary_with_symbols_alone_says_what_would_show_more() {
    in_a_copy_without("--strip-debug", "a_binary_with_symbols_alone_says_what_would_show_more", || {
        let line = line();
        assert_eq!(line.level, Level::WARN);
        assert!(line.message.starts_with("this binary has no debug information, only symbols: "), "{line}");
        assert!(line.message.contains("debug = \"limited\""), "{line}");
    });
}

#[test]
fn a_stripped_binary_says_what_would_show_more() {
    in_a_copy_without("--strip-all", "a_stripped_binary_says_what_would_show_more", || {
        let line = line();
        assert_eq!(line.level, if ANNOTATIONS { Level::INFO } else { Level::WARN });
        assert!(line.message.starts_with("this binary is stripped: "), "{line}");
        assert!(line.message.contains("strip = false"), "{line}");
        assert_eq!(line.message.contains("`async-backtrace`"), !ANNOTATIONS, "{line}");
    });
}

#[test]
fn a_second_agent_does_not_say_it_again() {
    in_a_copy_without("--strip-all", "a_second_agent_does_not_say_it_again", || {
        let _first = line();
        let log = Log::of("test", "second");
        block_on(layer("second").shutdown());
        assert_eq!((log.lines_with("skywalking-profile ").len(), log.lines_with("this binary").len()), (1, 0), "{log}");
    });
}
