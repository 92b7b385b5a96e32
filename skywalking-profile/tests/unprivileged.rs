//! A server that has given up its privileges: the kernel then hides the process's own files from it.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "gives up privileges")]

mod support;

use std::env;
use std::fs::File;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use support::{finely_sampled, ms, on_one_thread, profile_with, succeeds};

const LONG: Duration = Duration::from_millis(60);

/// A busy machine may keep the sampler from looking for so long.
const LATE: Duration = Duration::from_millis(40);

#[inline(never)]
fn computes() {
    let start = Instant::now();
    while start.elapsed() < LONG {
        (0..1_000_u64).for_each(|i| _ = black_box(i));
    }
}

async fn waits() {
    tokio::time::sleep(LONG).await;
}

#[inline(never)]
fn sleeps() {
    thread::sleep(LONG);
    black_box(());
}

/// As servers do that open their port as root. Others are not dumpable for other reasons.
fn give_up_privileges() {
    const NOBODY: libc::uid_t = 65_534;
    // SAFETY: change this process alone.
    unsafe {
        if libc::geteuid() == 0 {
            assert_eq!(libc::setresuid(0, NOBODY, 0), 0);
        }
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
    }
    assert!(File::open("/proc/self/mem").is_err());
}

#[test]
fn what_a_process_without_privileges_does_is_seen() {
    give_up_privileges();
    // Below a folder of root's nobody can read this program to name its functions.
    if File::open(env::current_exe().unwrap()).is_err() {
        return;
    }
    let handler = || async {
        tokio::time::sleep(ms(50)).await;
        waits().await;
        computes();
        sleeps();
    };
    succeeds(|| {
        let (tree, ()) = profile_with(finely_sampled(), handler, on_one_thread);
        let is_seen = |name| tree.time_of(name).abs_diff(LONG) <= LATE;
        // The kernel does not tell who blocks.
        let is_right = tree.time_of("unprivileged::sleeps") <= LONG + LATE;
        let is_right = is_right && is_seen("unprivileged::waits") && is_seen("unprivileged::computes");
        if is_right { Ok(()) } else { Err(tree.to_string()) }
    });
}
