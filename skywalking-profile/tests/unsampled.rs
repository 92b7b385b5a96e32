//! Without thread stacks: a process of its own, in which nobody else samples.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "asks for the handlers of signals")]

mod support;

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::time::Instant;
use std::{fs, ptr};

use skywalking_profile::ProfileConfig;
use support::{ms, on_one_thread, profile_with};

#[test]
fn running_samples_can_be_turned_off() {
    let handled = handled();
    let config = ProfileConfig::new("test").unwrap().running_samples(false);
    let (tree, ()) = profile_with(
        config,
        || async {
            // The agent has begun with its task by the time that this wait has ended.
            tokio::time::sleep(ms(50)).await;
            let start = Instant::now();
            while start.elapsed() < ms(50) {
                black_box(start);
            }
            let threads = fs::read_dir("/proc/self/task").unwrap();
            let names = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
            let names: Vec<_> = names.collect();
            assert!(names.iter().any(|name| name.trim_end() == "sw-profile"), "{names:?}");
            assert!(!names.iter().any(|name| name.trim_end() == "sw-profile-tick"), "{names:?}");
        },
        on_one_thread,
    );
    assert!(tree.time_of("[running]") >= ms(45), "{tree}");
    assert_eq!(self::handled(), handled);
}

/// The handler of each signal.
fn handled() -> Vec<usize> {
    let handler = |signal| {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: only asks; `action` is writable, and read after success.
        unsafe {
            if libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0 {
                action.assume_init().sa_sigaction
            } else {
                libc::SIG_DFL
            }
        }
    };
    (1..=libc::SIGRTMAX()).map(handler).collect()
}
