//! The committed code is what the `.proto` files generate.

use std::env;
use std::fs;
use std::path::Path;

const BLESS_COMMAND: &str = "BLESS=1 cargo test -p skywalking-profile-proto --test generated";

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = root.join("src/generated/skywalking.v3.rs");

    let generated = generate(&root.join("proto"));
    if env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::write(&committed, generated).unwrap();
        return;
    }

    let found = fs::read_to_string(&committed).expect("the crate does not build without it");
    if let Some(line) = first_difference(&found, &generated) {
        panic!(
            "{} differs from the .proto files from line {line} on, rewrite it with: {BLESS_COMMAND}",
            committed.display(),
        );
    }
}

fn generate(protos: &Path) -> String {
    let files = ["common.proto", "management.proto", "profile.proto", "tracing.proto"];
    let descriptors = protox::compile(files, [protos]).expect("the .proto files compile");

    let out_dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tonic_prost_build::configure()
        .build_server(false)
        // Else the output depends on whether another crate of the build turns the generator's
        // `transport` feature on.
        .build_transport(false)
        // The protocol has grown values before.
        .enum_attribute(".", "#[non_exhaustive]")
        .out_dir(out_dir)
        .compile_fds(descriptors)
        .expect("the descriptors generate code");
    fs::read_to_string(out_dir.join("skywalking.v3.rs")).expect("one file per package")
}

/// The number, from 1, of the first line that is not in both.
fn first_difference(left: &str, right: &str) -> Option<usize> {
    if left == right {
        return None;
    }
    let equal = left.lines().zip(right.lines()).take_while(|(l, r)| l == r);
    Some(equal.count() + 1)
}
