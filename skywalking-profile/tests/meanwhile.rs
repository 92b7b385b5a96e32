//! What a request does beside its main tree: spans of their own, the longest of them in as many lanes as may be.

mod support;

use std::time::{Duration, Instant};

use skywalking_profile::{ProfileConfig, spawn};
use support::{FOREVER, Times, ms, on_one_thread, profile_with};
use tokio::time::sleep;

#[test]
fn each_task_is_a_span_with_its_own_tree() {
    let (tree, times) = profile_with(lanes(5), three_tasks, on_one_thread);
    tree.has_spans(&["stock", "card", "invoice"]);
    for (name, time) in ["stock", "card", "invoice"].iter().zip(times) {
        let span = tree.span(name);
        span.has_shape(&["GET:/", &format!("  {}", time.0), "    tokio::time::sleep::Sleep"]);
        span.agrees_with(&vec![time]);
    }
    assert_eq!(tree.left_out(), 0, "in\n{tree}");
}

#[test]
fn of_what_goes_on_at_once_the_longest_is_shown() {
    for (most, expected) in [(2, &["ship", "pack"] as &[_]), (1, &["ship"]), (0, &[])] {
        let (tree, times) = profile_with(lanes(most), one_within_the_other, on_one_thread);
        tree.has_spans(expected);
        assert_eq!(tree.left_out(), 3 - expected.len() as u64, "in\n{tree}");
        for (name, (_, took)) in expected.iter().zip(times) {
            tree.span_took(name, took);
        }
    }
}

#[test]
fn tasks_that_follow_one_another_need_one_lane() {
    let (tree, times) = profile_with(lanes(1), one_after_the_other, on_one_thread);
    tree.has_spans(&["stock", "card", "invoice"]);
    assert_eq!(tree.left_out(), 0, "in\n{tree}");
    for (name, (_, took)) in ["stock", "card", "invoice"].iter().zip(times) {
        tree.span_took(name, took);
    }
}

#[test]
fn what_the_request_does_not_wait_for_is_unfinished() {
    let (tree, _) = profile_with(lanes(5), forgotten_task, on_one_thread);
    let span = tree.profile_span("watch");
    assert!(!span.is_finished() && !span.is_cancelled(), "in\n{tree}");
    tree.span("watch").has_shape(&["GET:/", "  meanwhile::watch", "    tokio::time::sleep::Sleep"]);
    assert!(tree.profile_span("card").is_finished(), "in\n{tree}");
    assert_eq!(span.start() + span.duration(), tree.duration(), "in\n{tree}");
}

#[test]
fn a_wait_that_ends_by_itself_is_not_laid_to_a_task_that_ended_before() {
    let (tree, _) = profile_with(lanes(5), task_that_is_awaited_late, on_one_thread);
    tree.has_shape(&["GET:/", "  meanwhile::task_that_is_awaited_late", "    tokio::time::sleep::Sleep"]);
}

#[test]
fn what_is_aborted_is_cancelled() {
    let (tree, took) = profile_with(lanes(5), aborted_task, on_one_thread);
    let span = tree.profile_span("watch");
    assert!(span.is_finished() && span.is_cancelled(), "in\n{tree}");
    tree.span_took("watch", took);
}

async fn three_tasks() -> Times {
    let tasks = (spawn(stock(Instant::now())), spawn(card(Instant::now())), spawn(invoice(Instant::now())));
    vec![tasks.0.await.expect("stock"), tasks.1.await.expect("card"), tasks.2.await.expect("invoice")]
}

/// Whatever the machine does, the first lasts longest.
async fn one_within_the_other() -> Times {
    spawn(ship(Instant::now())).await.expect("ship")
}

async fn ship(start: Instant) -> Times {
    let within = spawn(pack(Instant::now())).await.expect("pack");
    sleep(ms(20)).await;
    [vec![("meanwhile::ship", start.elapsed())], within].concat()
}

async fn pack(start: Instant) -> Times {
    let within = spawn(stock(Instant::now())).await.expect("stock");
    sleep(ms(20)).await;
    vec![("meanwhile::pack", start.elapsed()), within]
}

async fn one_after_the_other() -> Times {
    let stock = spawn(stock(Instant::now())).await.expect("stock");
    let card = spawn(card(Instant::now())).await.expect("card");
    vec![stock, card, spawn(invoice(Instant::now())).await.expect("invoice")]
}

async fn forgotten_task() {
    drop(spawn(watch()));
    let card = spawn(card(Instant::now()));
    card.await.expect("card");
}

async fn task_that_is_awaited_late() {
    let stock = spawn(stock(Instant::now()));
    sleep(ms(40)).await;
    stock.await.expect("stock");
}

async fn aborted_task() -> Duration {
    let start = Instant::now();
    let watch = spawn(watch());
    sleep(ms(30)).await;
    watch.abort();
    let aborted = watch.await;
    assert!(aborted.is_err_and(|error| error.is_cancelled()));
    let took = start.elapsed();
    sleep(ms(20)).await;
    took
}

async fn watch() {
    sleep(FOREVER).await;
}

// These are measured from where they are spawned.

async fn stock(start: Instant) -> (&'static str, Duration) {
    sleep(ms(20)).await;
    ("meanwhile::stock", start.elapsed())
}

async fn card(start: Instant) -> (&'static str, Duration) {
    sleep(ms(40)).await;
    ("meanwhile::card", start.elapsed())
}

async fn invoice(start: Instant) -> (&'static str, Duration) {
    sleep(ms(60)).await;
    ("meanwhile::invoice", start.elapsed())
}

fn lanes(most: usize) -> ProfileConfig {
    ProfileConfig::new("test").expect("a name").running_samples(false).lanes(most)
}
