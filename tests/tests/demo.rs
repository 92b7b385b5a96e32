//! The demo run, as the README's first command runs it: without an OAP, trees on the terminal.

use std::path::Path;
use std::process::Command;

use skywalking_profile_tests::{Example, TOLERANCE_MS};

#[test]
fn demo_prints_trees_with_the_times_that_the_program_measured() {
    for demo in demo(&Example::program()) {
        demo.assert_exact();
    }
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
}

/// What is printed of one endpoint.
#[derive(Debug, Default)]
struct Demo {
    /// Function and milliseconds, by the program.
    measured: Vec<(String, f64)>,
    /// Milliseconds, milliseconds of its own, and the code signature.
    tree: Vec<(f64, f64, String)>,
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

    let mut demos: Vec<Demo> = Vec::new();
    for line in stdout.lines() {
        if let Some((_, measured)) = line.split_once("  the program measured ") {
            let time = |time: &str| {
                let (function, ms) = time.split_once(' ').expect("function and time");
                (function.to_owned(), ms.parse().expect("milliseconds"))
            };
            demos.push(Demo { measured: measured.split(", ").map(time).collect(), tree: Vec::new() });
        } else if let (Some(demo), Some(node)) = (demos.last_mut(), tree_line(line)) {
            demo.tree.push(node);
        }
    }
    assert_eq!(demos.len(), 2, "endpoints in\n{stdout}");
    demos
}

fn tree_line(line: &str) -> Option<(f64, f64, String)> {
    let mut words = line.split_whitespace();
    let (ms, own) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let signature: Vec<_> = words.skip_while(|word| word.starts_with(['│', '├', '└'])).collect();
    Some((ms, own, signature.join(" ")))
}

impl Demo {
    /// Each node's function without its path, but for `[running]`, which may or may not be there.
    fn functions(&self) -> Vec<String> {
        let name = |signature: &str| {
            let function = signature.split(" @ ").next().unwrap_or_default();
            function.rsplit("::").next().unwrap_or_default().to_owned()
        };
        self.tree.iter().map(|(.., signature)| name(signature)).filter(|name| name != "[running]").collect()
    }

    #[track_caller]
    fn assert_exact(&self) {
        for (function, measured) in &self.measured {
            let (ms, ..) = match function.as_str() {
                "total" => &self.tree[0],
                // The handler's own, which is the last and the longest.
                "sleep" => self.tree.last().expect("a tree has nodes"),
                function => {
                    let mut nodes = self.tree.iter().filter(|(.., signature)| {
                        signature.split(" @ ").next().is_some_and(|name| name.ends_with(&format!("::{function}")))
                    });
                    let node = nodes.next().unwrap_or_else(|| panic!("no {function} in {self:#?}"));
                    assert!(nodes.next().is_none(), "more than one {function} in {self:#?}");
                    node
                }
            };
            assert!((ms - measured).abs() <= TOLERANCE_MS, "{function}: {ms} instead of {measured} in {self:#?}");
        }
        for (ms, own, signature) in &self.tree {
            assert!(*own >= 0.0 && own <= ms, "{signature} in {self:#?}");
            assert!(signature != "[running]" || *ms <= 1.0, "{self:#?}");
        }
    }
}
