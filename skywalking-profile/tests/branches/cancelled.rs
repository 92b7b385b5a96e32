//! Requests that are dropped: what they were waiting for is what the user looks for.

use futures_util::future::BoxFuture;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio::{join, select};

use super::expect::{Clock, Executor, Profiled, profile, span};
use super::support::{FOREVER, ms};

/// How long a client has patience.
const PATIENCE: u64 = 50;

/// As a server does it: without another poll.
fn aborted(request: BoxFuture<'static, ()>) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let request = tokio::spawn(request);
        sleep(ms(PATIENCE)).await;
        request.abort();
        request.await.expect_err("cancelled");
    });
}

/// It is polled once more before.
fn given_up(request: BoxFuture<'static, ()>) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { timeout(ms(PATIENCE), request).await.expect_err("too late") });
}

const DROPPED: [Executor; 2] = [aborted, given_up];

async fn pending(clock: &Clock, what: &'static str) {
    let _watch = clock.watch(what, PATIENCE);
    sleep(FOREVER).await;
}

async fn ledger(clock: &Clock) {
    pending(clock, "ledger").await;
}

async fn stock(clock: &Clock) {
    pending(clock, "stock").await;
}

async fn done(clock: &Clock) {
    let _watch = clock.watch("done", 20);
    sleep(ms(20)).await;
}

#[test]
fn what_a_dropped_request_was_waiting_for_is_in_its_tree() {
    for profiled in profile(waiting, &DROPPED) {
        let main =
            ["_ : ledger", "  ledger : ledger", "    pending : ledger", "      tokio::time::sleep::Sleep : ledger"];
        profiled.shows(&main, &[]);
    }
    for profiled in profile(waiting_after_work, &DROPPED) {
        let main = [
            "_",
            "  done : done",
            "    tokio::time::sleep::Sleep : done",
            "  tokio::sync::notify::Notified : notified",
        ];
        profiled.shows(&main, &[]);
    }
}

async fn waiting(clock: Clock) {
    ledger(&clock).await;
}

async fn waiting_after_work(clock: Clock) {
    done(&clock).await;
    let _watch = clock.watch("notified", PATIENCE - 20);
    Notify::new().notified().await;
}

#[test]
fn all_that_a_dropped_request_was_waiting_for_is_shown_once() {
    for profiled in profile(joined, &DROPPED).into_iter().chain(profile(selected, &DROPPED)) {
        shows_pending(&profiled, &["ledger", "stock"]);
    }
}

async fn joined(clock: Clock) {
    join!(ledger(&clock), stock(&clock));
}

async fn selected(clock: Clock) {
    select! {
        () = ledger(&clock) => {}
        () = stock(&clock) => {}
    }
}

#[test]
fn what_a_timeout_would_have_cut_off_is_shown_once() {
    for profiled in profile(in_no_hurry, &DROPPED) {
        shows_pending(&profiled, &["ledger"]);
    }
}

async fn in_no_hurry(clock: Clock) {
    timeout(FOREVER, ledger(&clock)).await.expect("in time");
}

#[test]
fn what_was_done_when_a_request_was_dropped_is_no_part_of_what_was_pending() {
    for profiled in profile(joined_with_done, &DROPPED) {
        let main =
            ["_ : ledger", "  ledger : ledger", "    pending : ledger", "      tokio::time::sleep::Sleep : ledger"];
        let done = ["_ : done", "  cancelled::done : done", "    tokio::time::sleep::Sleep : done"];
        profiled.shows(&main, &[span("done", "done", &done)]);
    }
}

async fn joined_with_done(clock: Clock) {
    join!(done(&clock), ledger(&clock));
}

/// Each as long as it took, in the main tree or else in a cancelled span of its own.
#[track_caller]
fn shows_pending(profiled: &Profiled, functions: &[&str]) {
    for function in functions {
        let own = format!("branches::cancelled::{function}");
        let in_main = profiled.tree.lines().filter(|(_, name, _)| *name == own).map(|(.., took)| took);
        let spans = profiled.tree.spans().filter(|(span, _)| span.is_cancelled());
        let in_spans = spans.filter(|(_, tree)| tree.lines().any(|(_, name, _)| name == own));
        let times: Vec<_> = in_main.chain(in_spans.map(|(span, _)| span.duration())).collect();
        let [took] = times[..] else { panic!("{function} shown {} times in\n{profiled}", times.len()) };
        profiled.took(function, took);
    }
}
