//! Requests that wait for all of several things: the last of them is what was waited for.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, try_join_all};
use skywalking_profile::InCurrentRequest;
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio::{join, try_join};

use super::expect::{Clock, shows, span};
use super::support::ms;

const SECOND: [&str; 3] = ["_", "  joins::second : second", "    tokio::time::sleep::Sleep : second"];
const FIRST: [&str; 3] = ["_ : first", "  joins::first : first", "    tokio::time::sleep::Sleep : first"];
const THIRD: [&str; 3] = ["_ : third", "  joins::third : third", "    tokio::time::sleep::Sleep : third"];

async fn first(clock: &Clock) {
    let _watch = clock.watch("first", 20);
    sleep(ms(20)).await;
}

async fn second(clock: &Clock) {
    let _watch = clock.watch("second", 60);
    sleep(ms(60)).await;
}

async fn third(clock: &Clock) {
    let _watch = clock.watch("third", 40);
    sleep(ms(40)).await;
}

#[test]
fn the_arm_of_a_join_that_ends_last_was_waited_for() {
    let first = [span("first", "first", &FIRST)];
    shows(joined, &SECOND, &first);
    shows(joined_the_other_way_round, &SECOND, &first);
    shows(tried, &SECOND, &first);
    shows(joined_by_futures, &SECOND, &first);
    shows(tried_by_futures, &SECOND, &first);
    shows(joined_boxes, &SECOND, &first);
    shows(joined_as_parts, &SECOND, &first);
}

async fn joined(clock: Clock) {
    join!(first(&clock), second(&clock));
}

async fn joined_the_other_way_round(clock: Clock) {
    join!(second(&clock), first(&clock));
}

async fn tried(clock: Clock) {
    try_join!(first(&clock).map(Ok::<_, ()>), second(&clock).map(Ok)).expect("no error");
}

async fn joined_by_futures(clock: Clock) {
    futures_util::join!(first(&clock), second(&clock));
}

async fn tried_by_futures(clock: Clock) {
    futures_util::try_join!(first(&clock).map(Ok::<_, ()>), second(&clock).map(Ok)).expect("no error");
}

async fn joined_boxes(clock: Clock) {
    join_all([first(&clock).boxed(), second(&clock).boxed()]).await;
}

/// They are parts of the request in any case.
async fn joined_as_parts(clock: Clock) {
    join!(first(&clock).in_current_request(), second(&clock).in_current_request());
}

#[test]
fn of_three_arms_two_are_spans() {
    let others = [span("first", "first", &FIRST), span("third", "third", &THIRD)];
    shows(three_joined, &SECOND, &others);
    shows(three_tried, &SECOND, &others);
    shows(three_joined_by_futures, &SECOND, &others);
    shows(three_boxes_joined, &SECOND, &others);
}

async fn three_joined(clock: Clock) {
    join!(first(&clock), second(&clock), third(&clock));
}

async fn three_tried(clock: Clock) {
    let arms = (first(&clock).map(Ok::<_, ()>), second(&clock).map(Ok), third(&clock).map(Ok));
    try_join!(arms.0, arms.1, arms.2).expect("no error");
}

async fn three_joined_by_futures(clock: Clock) {
    futures_util::join!(first(&clock), second(&clock), third(&clock));
}

async fn three_boxes_joined(clock: Clock) {
    join_all([first(&clock).boxed(), second(&clock).boxed(), third(&clock).boxed()]).await;
}

#[test]
fn a_join_in_a_join_is_as_one() {
    let main = ["_", "  nested", "    joins::second : second", "      tokio::time::sleep::Sleep : second"];
    let third = ["_", "  nested", "    joins::third : third", "      tokio::time::sleep::Sleep : third"];
    shows(nested, &main, &[span("first", "first", &FIRST), span("third", "third", &third)]);
}

async fn nested(clock: Clock) {
    join!(first(&clock), async { join!(second(&clock), third(&clock)) });
}

#[test]
fn elements_of_one_function_are_told_apart() {
    let main = ["_", "  fetch : long", "    tokio::time::sleep::Sleep : long"];
    let spans = [
        span("fetch", "short", &["_ : short", "  fetch : short", "    tokio::time::sleep::Sleep : short"]),
        span("fetch", "middle", &["_ : middle", "  fetch : middle", "    tokio::time::sleep::Sleep : middle"]),
    ];
    shows(all_joined, &main, &spans);
    shows(all_tried, &main, &spans);
    shows(all_joined_boxes, &main, &spans);
}

async fn fetch(clock: &Clock, what: &'static str, time: u64) {
    let _watch = clock.watch(what, time);
    sleep(ms(time)).await;
}

const OUT_OF_ORDER: [(&str, u64); 3] = [("short", 20), ("long", 60), ("middle", 40)];

async fn all_joined(clock: Clock) {
    join_all(OUT_OF_ORDER.map(|(what, time)| fetch(&clock, what, time))).await;
}

async fn all_tried(clock: Clock) {
    let results = OUT_OF_ORDER.map(|(what, time)| fetch(&clock, what, time).map(Ok::<_, ()>));
    try_join_all(results).await.expect("no error");
}

async fn all_joined_boxes(clock: Clock) {
    join_all(OUT_OF_ORDER.map(|(what, time)| fetch(&clock, what, time).boxed())).await;
}

#[test]
fn an_arm_of_several_steps_is_one_branch() {
    let once = [span("once", "once", &["_ : once", "  once : once", "    tokio::time::sleep::Sleep : once"])];
    let steps = [
        "_ : steps",
        "  steps : steps",
        "    tokio::time::sleep::Sleep : step 1",
        "    tokio::time::sleep::Sleep : step 2",
    ];
    shows(|clock| steps_and_once(clock, 30), &steps, &once);
    let once = ["_", "  once : once", "    tokio::time::sleep::Sleep : once"];
    shows(|clock| steps_and_once(clock, 80), &once, &[span("steps", "steps", &steps)]);
}

async fn steps_and_once(clock: Clock, time: u64) {
    join!(steps(&clock), once(&clock, time));
}

async fn steps(clock: &Clock) {
    let _watch = clock.watch("steps", 50);
    let step = clock.watch("step 1", 20);
    sleep(ms(20)).await;
    drop(step);
    let _watch = clock.watch("step 2", 30);
    sleep(ms(30)).await;
}

async fn once(clock: &Clock, time: u64) {
    let _watch = clock.watch("once", time);
    sleep(ms(time)).await;
}

#[test]
fn two_arms_of_several_steps_are_two_branches() {
    let main = ["_", "  slowly : slowly", "    tokio::time::sleep::Sleep : slowly"];
    let steps = [
        "_ : steps",
        "  steps : steps",
        "    tokio::time::sleep::Sleep : step 1",
        "    tokio::time::sleep::Sleep : step 2",
    ];
    shows(steps_twice, &main, &[span("steps", "steps", &steps)]);
}

/// The arms take turns in waking the request.
async fn steps_twice(clock: Clock) {
    join!(steps(&clock), slowly(&clock));
}

async fn slowly(clock: &Clock) {
    let _watch = clock.watch("slowly", 75);
    for time in [10, 25, 40] {
        sleep(ms(time)).await;
    }
}

#[test]
fn after_a_join_another_one_is_its_own() {
    let main = [
        "_",
        "  second : second",
        "    tokio::time::sleep::Sleep : second",
        "  once : once",
        "    tokio::time::sleep::Sleep : once",
    ];
    let steps = [
        "_ : steps",
        "  steps : steps",
        "    tokio::time::sleep::Sleep : step 1",
        "    tokio::time::sleep::Sleep : step 2",
    ];
    shows(joined_twice, &main, &[span("first", "first", &FIRST), span("steps", "steps", &steps)]);
}

async fn joined_twice(clock: Clock) {
    join!(first(&clock), second(&clock));
    join!(once(&clock, 70), steps(&clock));
}

#[test]
fn a_branch_that_begins_when_another_ends_comes_after_it() {
    let main = [
        "_",
        "  ask : ask",
        "    tokio::time::sleep::Sleep : ask",
        "  answer : answer",
        "    tokio::time::sleep::Sleep : answer",
    ];
    shows(asked_and_answered, &main, &[]);
}

async fn asked_and_answered(clock: Clock) {
    let (sender, receiver) = oneshot::channel();
    // They are polled in this order each time: the answer begins in the poll in which it is asked for.
    futures_util::join!(ask(&clock, sender), answer(&clock, receiver));
}

async fn ask(clock: &Clock, question: oneshot::Sender<()>) {
    let watch = clock.watch("ask", 20);
    sleep(ms(20)).await;
    drop(watch);
    question.send(()).expect("a receiver");
}

async fn answer(clock: &Clock, question: oneshot::Receiver<()>) {
    let watch = clock.watch("asked", 20);
    question.await.expect("a question");
    drop(watch);
    let _watch = clock.watch("answer", 30);
    sleep(ms(30)).await;
}

#[test]
fn each_leaf_of_a_recursion_is_a_branch() {
    let tree = |what| {
        let lines = ["_", "  level", "    level"].map(str::to_owned).into_iter();
        lines.chain([format!("      level : {what}"), format!("        tokio::time::sleep::Sleep : {what}")]).collect()
    };
    let trees: [Vec<String>; 4] = ["0", "1", "2", "3"].map(tree);
    let [zero, one, two, main] = trees.each_ref().map(|tree| Vec::from_iter(tree.iter().map(String::as_str)));
    shows(recursive, &main, &[span("level", "0", &zero), span("level", "1", &one), span("level", "2", &two)]);
}

async fn recursive(clock: Clock) {
    level(&clock, 2, 0).await;
}

fn level(clock: &Clock, depth: u32, first: usize) -> BoxFuture<'_, ()> {
    async move {
        if depth == 0 {
            let time = 20 * (first as u64 + 1);
            let _watch = clock.watch(["0", "1", "2", "3"][first], time);
            sleep(ms(time)).await;
        } else {
            join!(level(clock, depth - 1, first), level(clock, depth - 1, first + depth as usize));
        }
    }
    .boxed()
}
