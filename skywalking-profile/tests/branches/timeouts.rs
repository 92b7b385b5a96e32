//! Requests that wait no longer than they want to.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::join;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::expect::{Clock, cancelled_span, profile, shows, span};
use super::support::{FOREVER, ms, on_one_thread};

async fn work(clock: &Clock, time: u64) {
    let _watch = clock.watch("work", time);
    sleep(ms(time)).await;
}

/// Longer than anybody waits.
async fn overwork(clock: &Clock, time: u64) {
    let _watch = clock.watch("overwork", time);
    sleep(FOREVER).await;
}

#[test]
fn the_timer_of_a_timeout_that_does_not_fire_is_not_shown() {
    shows(in_time, &["_", "  work : work", "    tokio::time::sleep::Sleep : work"], &[]);
    shows(leaf_in_time, &["_", "  tokio::time::timeout::Timeout : leaf"], &[]);
    let main = ["_", "  tokio::time::timeout::Timeout : leaf", "  tokio::time::timeout::Timeout : leaf 2"];
    shows(leaves_in_time, &main, &[]);
}

async fn in_time(clock: Clock) {
    timeout(FOREVER, work(&clock, 30)).await.expect("in time");
}

async fn leaf_in_time(clock: Clock) {
    let _watch = clock.watch("leaf", 30);
    timeout(FOREVER, sleep(ms(30))).await.expect("in time");
}

async fn leaves_in_time(clock: Clock) {
    let watch = clock.watch("leaf", 20);
    timeout(FOREVER, sleep(ms(20))).await.expect("in time");
    drop(watch);
    let _watch = clock.watch("leaf 2", 30);
    timeout(FOREVER, sleep(ms(30))).await.expect("in time");
}

#[test]
fn what_a_timeout_cuts_off_is_a_cancelled_span() {
    let main = ["_", "  tokio::time::timeout::Timeout : overwork"];
    let cut_off = ["_ : overwork", "  overwork : overwork", "    tokio::time::sleep::Sleep : overwork"];
    shows(too_late, &main, &[cancelled_span("overwork", "overwork", &cut_off)]);
    shows(boxed_too_late, &main, &[cancelled_span("overwork", "overwork", &cut_off)]);
    let main = [&main[..], &["  work : work", "    tokio::time::sleep::Sleep : work"]].concat();
    shows(too_late_then_work, &main, &[cancelled_span("overwork", "overwork", &cut_off)]);
}

async fn too_late(clock: Clock) {
    timeout(ms(30), overwork(&clock, 30)).await.expect_err("too late");
}

async fn boxed_too_late(clock: Clock) {
    let overwork: BoxFuture<'_, ()> = overwork(&clock, 30).boxed();
    timeout(ms(30), overwork).await.expect_err("too late");
}

async fn too_late_then_work(clock: Clock) {
    timeout(ms(30), overwork(&clock, 30)).await.expect_err("too late");
    work(&clock, 30).await;
}

#[test]
fn a_leaf_that_a_timeout_cuts_off_is_shown_as_the_timeout() {
    let main = ["_", "  tokio::time::timeout::Timeout : leaf"];
    for profiled in profile(leaf_too_late, &[on_one_thread]) {
        profiled.shows_main(&main);
    }
}

async fn leaf_too_late(clock: Clock) {
    let _watch = clock.watch("leaf", 30);
    timeout(ms(30), Notify::new().notified()).await.expect_err("too late");
}

#[test]
fn steps_that_a_timeout_cuts_off_are_one_span() {
    let steps = [
        "_ : steps",
        "  steps : steps",
        "    tokio::time::sleep::Sleep : step 1",
        "    tokio::time::sleep::Sleep : step 2",
    ];
    let main = ["_", "  tokio::time::timeout::Timeout : steps"];
    shows(steps_too_late, &main, &[cancelled_span("steps", "steps", &steps)]);
}

async fn steps(clock: &Clock) {
    let _watch = clock.watch("steps", 50);
    let step = clock.watch("step 1", 20);
    sleep(ms(20)).await;
    drop(step);
    let _watch = clock.watch("step 2", 30);
    sleep(FOREVER).await;
}

async fn steps_too_late(clock: Clock) {
    timeout(ms(50), steps(&clock)).await.expect_err("too late");
}

#[test]
fn a_join_that_a_timeout_cuts_off_is_a_span_for_each_arm() {
    let main = ["_", "  tokio::time::timeout::Timeout : overwork"];
    let cut_off = ["_ : overwork", "  overwork : overwork", "    tokio::time::sleep::Sleep : overwork"];
    let work = ["_ : work", "  work : work", "    tokio::time::sleep::Sleep : work"];
    shows(join_too_late, &main, &[cancelled_span("overwork", "overwork", &cut_off), span("work", "work", &work)]);
}

async fn join_too_late(clock: Clock) {
    // A future of tokio's own, so that no function stands between.
    timeout(ms(50), futures_util::future::join(work(&clock, 20), overwork(&clock, 50))).await.expect_err("too late");
}

#[test]
fn a_timeout_that_fires_in_an_arm_of_a_join_is_a_branch() {
    let main = ["_", "  work : work", "    tokio::time::sleep::Sleep : work"];
    let cut_off =
        ["_ : overwork", "  impatient", "    overwork : overwork", "      tokio::time::sleep::Sleep : overwork"];
    let timer = ["_ : overwork", "  impatient : overwork", "    tokio::time::timeout::Timeout : overwork"];
    let spans = [cancelled_span("impatient", "overwork", &cut_off), span("impatient", "overwork", &timer)];
    shows(impatient_in_an_arm, &main, &spans);
}

async fn impatient(clock: &Clock) {
    timeout(ms(30), overwork(clock, 30)).await.expect_err("too late");
}

async fn impatient_in_an_arm(clock: Clock) {
    join!(impatient(&clock), work(&clock, 60));
}

#[test]
fn a_timeout_that_is_an_arm_of_a_join_is_shown_as_one() {
    let main = ["_", "  work : work", "    tokio::time::sleep::Sleep : work"];
    let timeout = ["_ : leaf", "  tokio::time::timeout::Timeout : leaf"];
    shows(leaf_too_late_in_an_arm, &main, &[span("tokio::time::timeout::Timeout", "leaf", &timeout)]);
}

async fn leaf_too_late_in_an_arm(clock: Clock) {
    let notify = Notify::new();
    let watch = clock.watch("leaf", 30);
    let late = timeout(ms(30), notify.notified()).map(|late| {
        drop(watch);
        late.expect_err("too late")
    });
    join!(late, work(&clock, 60));
}
