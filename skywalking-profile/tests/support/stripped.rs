//! Tests of what a stripped binary shows: of a copy of the binary that they are in.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `test` in a copy of this binary that went through `strip` with `option`, as the one test of its process. `name` is
/// the test's own.
#[track_caller]
pub(crate) fn in_a_copy_without(option: &str, name: &str, test: impl FnOnce()) {
    const IS_COPY: &str = "SKYWALKING_PROFILE_TEST_IS_STRIPPED";
    if env::var_os(IS_COPY).is_some() {
        return test();
    }
    let copy = Removed(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    let program = env::current_exe().expect("the test knows its own path");
    let stripped = Command::new("strip").arg(option).arg("-o").arg(&copy.0).arg(&program).status();
    assert!(stripped.expect("`strip` of the binutils").success());
    let run = Command::new(&copy.0).args(["--exact", name]).env(IS_COPY, "").output().expect("the copy starts");
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&run.stderr));
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
