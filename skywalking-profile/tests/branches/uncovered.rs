//! Requests that leave things to what is not followed: the wait is shown, and counted.

use std::future::Future;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::expect::{Clock, profile_at, unsampled};
use super::support::{FOREVER, Log, ms, on_one_thread};

async fn work(clock: Clock, what: &'static str, time: u64) {
    let _watch = clock.watch(what, time);
    sleep(ms(time)).await;
}

/// There is one such request, and the line at its task's end names what it waited for.
#[track_caller]
fn counts<F>(path: &str, handler: impl Fn(Clock) -> F + Clone + Send + 'static, main: &[&str], wait: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    let log = Log::of_all();
    for profiled in profile_at(path, unsampled(), handler, &[on_one_thread]) {
        profiled.shows(main, &[]);
    }
    let line = log.line_of(&format!("GET:{path}"), "profile task ends", FOREVER);
    assert!(line.text("uncovered").contains(wait), "{line}");
}

#[test]
fn a_wait_for_a_task_that_is_not_covered_is_shown_and_counted() {
    let wait = "tokio::runtime::task::join::JoinHandle";
    counts("/spawned", spawned, &["_", &format!("  {wait} : work")], wait);
}

async fn spawned(clock: Clock) {
    tokio::spawn(work(clock, "work", 30)).await.expect("no panic");
}

#[test]
fn a_wait_for_many_futures_that_are_not_covered_is_shown_and_counted() {
    let wait = "futures_util::future::join_all::JoinAll";
    counts("/joined", all_joined, &["_", &format!("  {wait} : longest")], wait);
}

async fn all_joined(clock: Clock) {
    let work = |i| match i {
        17 => work(clock.clone(), "longest", 50),
        _ => work(clock.clone(), "short", 20),
    };
    join_all((0..40).map(work)).await;
}

#[test]
fn waits_for_what_is_covered_are_not_counted() {
    let log = Log::of_all();
    for profiled in profile_at("/covered", unsampled(), covered, &[on_one_thread]) {
        profiled.shows_main(&[
            "_",
            "  tokio::runtime::task::join::JoinHandle : work",
            "    work : work",
            "      tokio::time::sleep::Sleep : work",
            "  work : own",
            "    tokio::time::sleep::Sleep : own",
        ]);
    }
    let line = log.line_of("GET:/covered", "profile task ends", FOREVER);
    assert_eq!(line.text("uncovered"), "", "{line}");
}

async fn covered(clock: Clock) {
    skywalking_profile::spawn(work(clock.clone(), "work", 30)).await.expect("no panic");
    work(clock, "own", 20).await;
}
