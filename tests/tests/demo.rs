//! The demo run, as the README's first command runs it: without an OAP, trees on the terminal.

use std::path::Path;
use std::process::Command;

use skywalking_profile_tests::{Example, TOLERANCE_MS};

/// How many of the endpoints, the first, do little but await.
const AWAITING: usize = 5;
/// What a request does while it is polled is seen every 2 ms, on each of its ends.
const BETWEEN_SAMPLES_MS: f64 = 5.0;

#[test]
fn demo_prints_trees_with_the_times_that_the_program_measured() {
    let demos = demo(&Example::program());
    for demo in &demos[..AWAITING] {
        demo.assert_exact(TOLERANCE_MS);
    }
    for demo in &demos[AWAITING..] {
        demo.assert_exact(BETWEEN_SAMPLES_MS);
    }
    let meanwhile = demos.iter().map(|demo| (&*demo.title, demo.meanwhile()));
    let meanwhile: Vec<_> = meanwhile.filter(|(_, spans)| !spans.is_empty()).collect();
    let [(join, joined), (spawn, spawned)] = &meanwhile[..] else { panic!("{meanwhile:?}") };
    assert!(join.starts_with("GET /join ") && spawn.starts_with("GET /spawn "), "{meanwhile:?}");
    assert_eq!(joined, &["slow_endpoint::join::load_customer"]);
    assert_eq!(
        spawned,
        &["charge_card", "print_invoice", "reserve_stock"].map(|name| format!("slow_endpoint::spawn::{name}"))
    );
}

#[test]
fn demo_shows_the_same_functions_in_the_dev_profile() {
    let functions = |program: &Path| -> Vec<Vec<String>> { demo(program).iter().map(Demo::functions).collect() };
    let release = functions(&Example::program());
    assert_eq!(functions(&Example::program_of("debug")), release);
    assert_eq!(
        release[0],
        ["POST:/", "song", "method3", "Sleep", "method2", "Sleep", "method1", "Sleep", "Sleep"],
        "the first endpoint's tree"
    );
    assert_eq!(
        release[2],
        [
            "GET:/orders/{id}",
            "order",
            "connect_upstream",
            "ReadExact",
            "await_response",
            "send_request",
            "read_body",
            "Collect",
            "stream_answer",
            "Sleep"
        ],
        "the order's tree"
    );
    assert_eq!(release[3], ["GET:/join", "join", "load_order", "Sleep", "price_order", "Sleep"]);
    assert_eq!(
        release[4],
        ["GET:/spawn", "spawn", "JoinHandle", "reserve_stock", "Sleep", "JoinHandle", "charge_card", "Sleep"]
    );
    assert_eq!(release[5], ["GET:/cpu", "cpu", "render", "compress"]);
    // A read is `recv` for the compiler, which keeps one of equal functions.
    let [blocking @ .., read] = &*release[6] else { panic!("{release:?}") };
    assert_eq!(blocking, ["GET:/blocking", "blocking", "sleep_blocking", "sleep", "read_blocking"]);
    assert!(["read", "recv"].contains(&read.as_str()), "{read}");
    assert_eq!(release[7], ["GET:/starved", "starved", "await_turn", "Receiver"]);
}

/// What is printed of one endpoint.
#[derive(Debug, Default)]
struct Demo {
    /// The first line: `POST / took 563.91 ms`.
    title: String,
    /// Of the request's tree, and then of each one for what it did meanwhile.
    nodes: Vec<Line>,
}

/// A line of a tree: milliseconds, by the program if it has measured this, and the code signature.
#[derive(Debug)]
struct Line {
    depth: usize,
    program: Option<f64>,
    ms: f64,
    share: f64,
    own: f64,
    signature: String,
}

/// Runs the demo, which must succeed.
#[track_caller]
fn demo(program: &Path) -> Vec<Demo> {
    let output = Command::new(program)
        .arg("--demo")
        .env_remove("SW_AGENT_COLLECTOR_BACKEND_SERVICES")
        .env_remove("PORT")
        .output()
        .expect("the program starts");
    let stdout = String::from_utf8(output.stdout).expect("the output is text");
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!stdout.contains('\x1b'), "no terminal, but escapes in\n{stdout:?}");

    let mut demos: Vec<Demo> = Vec::new();
    let mut lines = stdout.lines();
    while let Some(line) = lines.next() {
        if line.contains(" took ") {
            let heads: Vec<_> = lines.next().unwrap_or_default().split_whitespace().collect();
            assert_eq!(heads, ["program", "ms", "share", "self"], "below {line} in\n{stdout}");
            let nodes = lines.by_ref().take_while(|line| !line.is_empty());
            demos.push(Demo {
                title: line.to_owned(),
                nodes: nodes.map(|line| parse(line).unwrap_or_else(|| panic!("{line} in\n{stdout}"))).collect(),
            });
        }
    }
    assert_eq!(demos.len(), 8, "endpoints in\n{stdout}");
    demos
}

fn parse(line: &str) -> Option<Line> {
    // The program's time ends before the tree's begin, and is not always there.
    let (program, mut rest) = line.split_at_checked(" program".len())?;
    let mut number = || {
        let (word, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        if word == "·" { Some(0.0) } else { word.trim_end_matches('%').parse().ok() }
    };
    let (ms, share, own) = (number()?, number()?, number()?);
    let node = rest.strip_prefix(' ')?;
    let signature = node.trim_start_matches([' ', '│', '├', '└', '─']);
    Some(Line {
        depth: (node.chars().count() - signature.chars().count()) / 3,
        program: if program.trim().is_empty() { None } else { Some(program.trim().parse().ok()?) },
        ms,
        share,
        own,
        signature: signature.to_owned(),
    })
}

impl Line {
    fn path(&self) -> &str {
        self.signature.split(" @ ").next().unwrap_or_default()
    }

    /// Without its path.
    fn function(&self) -> &str {
        self.path().rsplit("::").next().unwrap_or_default()
    }

    /// The name of what was done meanwhile, if it is the head of its tree.
    fn span(&self) -> Option<&str> {
        self.signature.strip_prefix("meanwhile: ")?.split(", ").next()
    }
}

impl Demo {
    /// The function of each node of the request's tree, but for those that are there only if they took a millisecond, or met
    /// with a sample.
    fn functions(&self) -> Vec<String> {
        let (root, others) = self.nodes.split_first().expect("a tree has a root");
        let tree = [root].into_iter().chain(others.iter().take_while(|node| node.depth > 0));
        let functions = tree.filter(|node| node.ms >= 10.0).map(Line::function);
        functions.filter(|function| !function.starts_with('[') && *function != "connect").map(str::to_owned).collect()
    }

    /// What the request did meanwhile, by name.
    fn meanwhile(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.nodes.iter().filter_map(Line::span).collect();
        names.sort_unstable();
        names
    }

    #[track_caller]
    fn assert_exact(&self, most_off_ms: f64) {
        let root = &self.nodes[0];
        assert!(self.title.ends_with(&format!(" took {:.2} ms", root.program.expect("a total"))), "{self:#?}");
        // What the request waited for a thread before its handler began is not in the program's total.
        let outside = self.nodes.iter().filter(|node| node.depth == 1 && node.signature.starts_with('['));
        let outside: f64 = outside.map(|note| note.ms).sum();
        // What is there for only a part of its time has none of the program's: below a wait what another task did meanwhile,
        // and in a tree of what was done meanwhile all above its function.
        let (mut span, mut wait) = (None, usize::MAX);
        for node in &self.nodes {
            let is_own = node.signature.starts_with("slow_endpoint::");
            if node.depth == 0 {
                span = node.span();
            } else if span == Some(node.path()) {
                span = None;
            }
            if node.depth <= wait {
                wait = if is_own || node.depth == 0 { usize::MAX } else { node.depth };
            }
            let is_whole = is_own && span.is_none() && node.depth <= wait;
            assert!(node.program.is_some() || !is_whole, "no time of {} in {self:#?}", node.signature);
            if let Some(measured) = node.program {
                let least = if node.depth == 0 { node.ms - outside } else { node.ms };
                let expected = least - most_off_ms..=node.ms + most_off_ms;
                assert!(expected.contains(&measured), "{} in {self:#?}", node.signature);
            }
            assert!((node.share - 100.0 * node.ms / root.ms).abs() < 0.06, "{} in {self:#?}", node.signature);
            assert!(node.own >= 0.0 && node.own <= node.ms, "{} in {self:#?}", node.signature);
            assert!(node.function() != "[running]" || node.ms <= root.ms / 10.0, "{self:#?}");
        }
    }
}
