//! Requests that leave things to tasks and threads of their own: spans, and what they did shows below the waits for them.

use std::thread;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, StreamExt};
use skywalking_profile::{InCurrentRequest, spawn, spawn_blocking};
use tokio::join;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::expect::{Clock, profile, profile_at, shows, span};
use super::support::{finely_sampled, ms, on_one_thread, on_workers};

const CHILD: [&str; 2] = ["child : child", "  tokio::time::sleep::Sleep : child"];

async fn child(clock: Clock) {
    let _watch = clock.watch("child", 40);
    sleep(ms(40)).await;
}

#[test]
fn what_a_task_does_is_below_the_wait_for_its_end() {
    let main = [
        "_",
        "  tokio::runtime::task::join::JoinHandle : child",
        "    child : child",
        "      tokio::time::sleep::Sleep : child",
    ];
    shows(spawned, &main, &[span("child", "child", &CHILD)]);
    shows(spawned_as_a_part, &main, &[span("child", "child", &CHILD)]);
}

async fn spawned(clock: Clock) {
    spawn(child(clock)).await.expect("no panic");
}

async fn spawned_as_a_part(clock: Clock) {
    tokio::spawn(child(clock).in_current_request()).await.expect("no panic");
}

#[test]
fn of_a_task_only_what_it_did_while_it_was_awaited_is_below() {
    let main = [
        "_",
        "  own : own",
        "    tokio::time::sleep::Sleep : own",
        "  tokio::runtime::task::join::JoinHandle : awaited",
        "    child : awaited",
        "      tokio::time::sleep::Sleep : awaited",
    ];
    shows(awaited_later, &main, &[span("child", "child", &CHILD)]);
}

async fn own(clock: &Clock) {
    let _watch = clock.watch("own", 20);
    sleep(ms(20)).await;
}

async fn awaited_later(clock: Clock) {
    let task = spawn(child(clock.clone()));
    own(&clock).await;
    let _watch = clock.watch("awaited", 20);
    task.await.expect("no panic");
}

#[test]
fn a_task_that_ends_before_it_is_awaited_is_a_span_only() {
    let main = ["_", "  long : long", "    tokio::time::sleep::Sleep : long"];
    shows(awaited_too_late, &main, &[span("child", "child", &CHILD)]);
}

async fn long(clock: &Clock) {
    let _watch = clock.watch("long", 60);
    sleep(ms(60)).await;
}

async fn awaited_too_late(clock: Clock) {
    let task = spawn(child(clock.clone()));
    long(&clock).await;
    task.await.expect("no panic");
}

#[test]
fn steps_of_a_task_are_below_the_wait_for_its_end() {
    let main = [
        "_",
        "  tokio::runtime::task::join::JoinHandle : order",
        "    order : order",
        "      load : load",
        "        tokio::time::sleep::Sleep : load",
        "      price : price",
        "        tokio::time::sleep::Sleep : price",
    ];
    let order = [
        "order : order",
        "  load : load",
        "    tokio::time::sleep::Sleep : load",
        "  price : price",
        "    tokio::time::sleep::Sleep : price",
    ];
    shows(spawned_steps, &main, &[span("order", "order", &order)]);
}

async fn spawned_steps(clock: Clock) {
    spawn(order(clock)).await.expect("no panic");
}

async fn order(clock: Clock) {
    let _watch = clock.watch("order", 50);
    load(&clock).await;
    price(&clock).await;
}

async fn load(clock: &Clock) {
    let _watch = clock.watch("load", 20);
    sleep(ms(20)).await;
}

async fn price(clock: &Clock) {
    let _watch = clock.watch("price", 30);
    sleep(ms(30)).await;
}

#[test]
fn tasks_of_tasks_are_below_each_other() {
    let tree = |depth: usize| -> Vec<String> {
        let mut lines = Vec::new();
        for (level, name) in ["one", "two", "three"].into_iter().enumerate().skip(depth) {
            let indented = |more: usize| " ".repeat(2 * (2 * (level - depth) + more));
            lines.push(format!("{}{name} : {name}", indented(0)));
            let (leaf, what) = match level {
                2 => ("tokio::time::sleep::Sleep", "three"),
                _ => ("tokio::runtime::task::join::JoinHandle", ["two", "three"][level]),
            };
            lines.push(format!("{}{leaf} : {what}", indented(1)));
        }
        lines
    };
    let trees = [0, 1, 2].map(tree);
    let [one, two, three] = trees.each_ref().map(|lines| Vec::from_iter(lines.iter().map(String::as_str)));
    let below = one.iter().map(|line| format!("    {line}"));
    let main: Vec<String> =
        ["_", "  tokio::runtime::task::join::JoinHandle : one"].map(str::to_owned).into_iter().chain(below).collect();
    let main: Vec<&str> = main.iter().map(String::as_str).collect();
    shows(nested, &main, &[span("one", "one", &one), span("two", "two", &two), span("three", "three", &three)]);
}

async fn nested(clock: Clock) {
    spawn(one(clock)).await.expect("no panic");
}

async fn one(clock: Clock) {
    let _watch = clock.watch("one", 40);
    spawn(two(clock.clone())).await.expect("no panic");
}

async fn two(clock: Clock) {
    let _watch = clock.watch("two", 40);
    spawn(three(clock.clone())).await.expect("no panic");
}

async fn three(clock: Clock) {
    let _watch = clock.watch("three", 40);
    sleep(ms(40)).await;
}

#[test]
fn a_task_in_a_join_is_below_its_arm() {
    let main = ["_", "  long : long", "    tokio::time::sleep::Sleep : long"];
    let end = [
        "_ : child",
        "  end : child",
        "    tokio::runtime::task::join::JoinHandle : child",
        "      child : child",
        "        tokio::time::sleep::Sleep : child",
    ];
    shows(joined_end, &main, &[span("child", "child", &CHILD), span("end", "child", &end)]);
}

async fn end(task: JoinHandle<()>) {
    task.await.expect("no panic");
}

async fn joined_end(clock: Clock) {
    let task = spawn(child(clock.clone()));
    join!(end(task), long(&clock));
}

#[test]
fn the_end_of_a_task_that_is_an_arm_of_a_join_is_shown_as_one() {
    let main = ["_", "  long : long", "    tokio::time::sleep::Sleep : long"];
    let end = [
        "_ : child",
        "  tokio::runtime::task::join::JoinHandle : child",
        "    child : child",
        "      tokio::time::sleep::Sleep : child",
    ];
    let end = span("tokio::runtime::task::join::JoinHandle", "child", &end);
    shows(joined, &main, &[span("child", "child", &CHILD), end]);
}

async fn joined(clock: Clock) {
    let task = spawn(child(clock.clone()));
    let (task, ()) = join!(task, long(&clock));
    task.expect("no panic");
}

#[test]
fn branches_of_a_task_are_spans() {
    let own = ["_ : own", "  own : own", "    tokio::time::sleep::Sleep : own"];
    let joins = ["joins : joins", "  long : long", "    tokio::time::sleep::Sleep : long"];
    let main = ["_", "  tokio::runtime::task::join::JoinHandle : joins"].map(str::to_owned).into_iter();
    let main: Vec<String> = main.chain(joins.iter().map(|line| format!("    {line}"))).collect();
    let main: Vec<&str> = main.iter().map(String::as_str).collect();
    shows(spawned_join, &main, &[span("joins", "joins", &joins), span("own", "own", &own)]);
}

async fn spawned_join(clock: Clock) {
    spawn(joins(clock)).await.expect("no panic");
}

async fn joins(clock: Clock) {
    let _watch = clock.watch("joins", 60);
    join!(own(&clock), long(&clock));
}

async fn fetch(clock: Clock, what: &'static str, time: u64) {
    let _watch = clock.watch(what, time);
    sleep(ms(time)).await;
}

const FETCHED: [(&str, u64); 3] = [("short", 20), ("long", 60), ("middle", 40)];

/// All of the request is spent at `wait`, for one part after the other.
#[track_caller]
fn shows_fetched<F>(handler: impl Fn(Clock) -> F + Clone + Send + 'static, wait: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    let wait = format!("  {wait} : long");
    let main = ["_", &wait, "    fetch", "      tokio::time::sleep::Sleep"];
    let spans = [
        span("fetch", "short", &["fetch : short", "  tokio::time::sleep::Sleep : short"]),
        span("fetch", "middle", &["fetch : middle", "  tokio::time::sleep::Sleep : middle"]),
        span("fetch", "long", &["fetch : long", "  tokio::time::sleep::Sleep : long"]),
    ];
    for profiled in profile(handler, &[on_workers, on_one_thread]) {
        profiled.shows(&main, &spans);
        profiled.shows_about(&profiled.tree, &main, "long");
    }
}

#[test]
fn parts_in_a_collection_are_below_the_wait_for_it() {
    shows_fetched(unordered, "futures_util::stream::stream::next::Next");
    shows_fetched(buffered_unordered, "futures_util::stream::stream::collect::Collect");
    shows_fetched(buffered, "futures_util::stream::stream::collect::Collect");
    shows_fetched(join_set, "tokio::task::join_set::JoinSet::join_next");
}

async fn unordered(clock: Clock) {
    let fetch = |(what, time)| fetch(clock.clone(), what, time).in_current_request();
    let mut fetched: FuturesUnordered<_> = FETCHED.map(fetch).into_iter().collect();
    while fetched.next().await.is_some() {}
}

async fn buffered_unordered(clock: Clock) {
    let fetch = |(what, time)| fetch(clock.clone(), what, time).in_current_request();
    stream::iter(FETCHED.map(fetch)).buffer_unordered(3).collect::<Vec<_>>().await;
}

async fn buffered(clock: Clock) {
    let fetch = |(what, time)| fetch(clock.clone(), what, time).in_current_request();
    stream::iter(FETCHED.map(fetch)).buffered(3).collect::<Vec<_>>().await;
}

async fn join_set(clock: Clock) {
    let mut fetched = JoinSet::new();
    for (what, time) in FETCHED {
        fetched.spawn(fetch(clock.clone(), what, time).in_current_request());
    }
    while let Some(ended) = fetched.join_next().await {
        ended.expect("no panic");
    }
}

#[test]
fn of_many_parts_the_longest_are_shown() {
    let profiled = profile(all_joined, &[on_workers, on_one_thread]);
    for profiled in profiled {
        let main = [
            "_",
            "  futures_util::future::join_all::JoinAll : longest",
            "    fetch",
            "      tokio::time::sleep::Sleep",
        ];
        profiled.shows_main(&main);
        profiled.shows_about(&profiled.tree, &main, "longest");
        let spans: Vec<_> = profiled.tree.spans().map(|(span, _)| (span.name(), span.duration())).collect();
        assert_eq!((spans.len(), profiled.tree.left_out()), (5, 35), "in\n{profiled}");
        for (name, took) in spans {
            assert_eq!(name, "branches::tasks::fetch", "in\n{profiled}");
            assert!(took >= ms(60), "a shorter one than there is in\n{profiled}");
        }
    }
}

/// Of 40, five take longer than the others.
async fn all_joined(clock: Clock) {
    let fetch = |i| match i {
        0 => fetch(clock.clone(), "longest", 80),
        1..5 => fetch(clock.clone(), "long", 60),
        _ => fetch(clock.clone(), "short", 20),
    };
    join_all((0..40).map(|i| fetch(i).in_current_request())).await;
}

#[test]
fn what_blocks_a_thread_is_below_the_wait_for_its_end() {
    let main = [
        "_",
        "  tokio::runtime::task::join::JoinHandle",
        "    blocking",
        "      block",
        "        std::thread::functions::sleep",
    ];
    for profiled in profile_at("/", finely_sampled(), blocking, &[on_workers, on_one_thread]) {
        profiled.shows_about(&profiled.tree, &main, "block");
        let spans: Vec<_> = profiled.tree.spans().collect();
        let [(span, tree)] = &spans[..] else { panic!("not one span in\n{profiled}") };
        assert_eq!(span.name(), "branches::tasks::blocking", "in\n{profiled}");
        profiled.shows_about(tree, &main[2..], "block");
    }
}

async fn blocking(clock: Clock) {
    spawn_blocking(|| block(clock)).await.expect("no panic");
}

fn block(clock: Clock) {
    let _watch = clock.watch("block", 40);
    thread::sleep(ms(40));
}

#[test]
fn a_boxed_task_is_named_by_what_it_awaits() {
    let main = [
        "_",
        "  tokio::runtime::task::join::JoinHandle : child",
        "    child : child",
        "      tokio::time::sleep::Sleep : child",
    ];
    shows(spawned_box, &main, &[span("child", "child", &CHILD)]);
}

async fn spawned_box(clock: Clock) {
    let boxed: BoxFuture<'static, ()> = child(clock).boxed();
    spawn(boxed).await.expect("no panic");
}
