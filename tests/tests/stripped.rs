//! The demo run of a stripped program, with its functions marked and without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use skywalking_profile_tests::Example;

#[test]
fn marked_functions_show_in_a_stripped_program() {
    let framed = Example::program().with_file_name("slow-endpoint-framed");
    assert!(framed.is_file(), "{} is missing: `tests/run` builds it", framed.display());
    let (stdout, _) = demo(&stripped(&framed, "framed"));
    let functions: Vec<_> =
        song(&stdout).split_whitespace().filter(|word| word.starts_with("slow_endpoint::")).collect();
    let expected = ["song", "method3", "method2", "method1"].map(|name| format!("slow_endpoint::endpoints::{name}"));
    assert_eq!(functions, expected, "{stdout}");
}

#[test]
fn a_stripped_program_says_why_its_functions_do_not_show() {
    let (stdout, stderr) = demo(&stripped(&Example::program(), "plain"));
    let song = song(&stdout);
    assert!(!song.contains("slow_endpoint::") && song.contains("[unknown]"), "{stdout}");
    let lines: Vec<_> = stderr.lines().collect();
    let [line] = *lines else { panic!("not one line:\n{stderr}") };
    assert!(line.contains("this binary is stripped: ") && line.contains("strip = false"), "{line}");
}

/// The first tree of the demo. Spawned tasks, in others, are named by their types, which no program loses.
fn song(stdout: &str) -> &str {
    stdout.split("\n\n").find(|tree| tree.starts_with("POST / took")).unwrap_or_default()
}

/// A copy of the program without symbols and debug information.
#[track_caller]
fn stripped(program: &Path, name: &str) -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("slow-endpoint-{name}-stripped"));
    let stripped = Command::new("strip").arg("--strip-all").arg("-o").arg(&copy).arg(program).status();
    assert!(stripped.expect("`strip` of the binutils").success());
    copy
}

/// What the demo writes to stdout and stderr.
#[track_caller]
fn demo(program: &Path) -> (String, String) {
    let output = Command::new(program)
        .arg("--demo")
        .env_remove("SW_AGENT_COLLECTOR_BACKEND_SERVICES")
        .env_remove("PORT")
        .output()
        .expect("the program starts");
    fs::remove_file(program).expect("a copy of ours");
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    (stdout, stderr)
}
