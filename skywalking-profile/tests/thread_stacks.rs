//! What a request does while it is being polled: where it computes, and where it blocks its thread.

mod support;

use std::hint::black_box;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use skywalking_profile::ProfileConfig;
use support::{Times, Tree, block_on, ms, on_a_new_thread, on_one_thread, on_workers, profile, profile_with};
use tokio::time::sleep;

fn sampled() -> ProfileConfig {
    ProfileConfig::new("test").expect("a name")
}

/// Computes for so long, without calling anything that is not inlined.
#[inline(never)]
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        for i in 0..10_000_u64 {
            black_box(i);
        }
    }
}

#[inline(never)]
fn render() -> Times {
    let start = Instant::now();
    compress();
    compute(ms(20));
    vec![("thread_stacks::render", start.elapsed())]
}

#[inline(never)]
fn compress() {
    compute(ms(40));
}

async fn page() -> Times {
    sleep(ms(5)).await;
    let times = render();
    sleep(ms(5)).await;
    times
}

#[test]
fn what_computes_is_shown() {
    for executor in [on_workers, on_one_thread] {
        let (tree, times) = profile_with(sampled(), page, executor);
        eprintln!("{tree}\n{times:?}");
    }
}

async fn blocks() -> Times {
    let start = Instant::now();
    thread::sleep(ms(60));
    let slept = start.elapsed();
    let (mut socket, _peer) = UnixStream::pair().expect("a pair of sockets");
    socket.set_read_timeout(Some(ms(30))).expect("a timeout");
    let start = Instant::now();
    let error = socket.read(&mut [0; 8]).expect_err("nothing to read");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    vec![("sleep", slept), ("read", start.elapsed())]
}

#[test]
fn what_blocks_is_shown_and_not_disturbed() {
    let (tree, times) = profile_with(sampled().frames(skywalking_profile::Frames::All), blocks, block_on);
    eprintln!("{tree}\n{times:?}");
}
