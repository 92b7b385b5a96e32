//! What a request does beside its main tree: spans of their own, the longest of them in as many lanes as may be.

mod support;

use std::time::{Duration, Instant};

use skywalking_profile::{ProfileConfig, spawn};
use support::{Times, ms, on_one_thread, profile_with};
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
    for (most, expected) in [(2, &["card", "invoice"] as &[_]), (1, &["invoice"]), (0, &[])] {
        let (tree, times) = profile_with(lanes(most), three_tasks, on_one_thread);
        tree.has_spans(expected);
        assert_eq!(tree.left_out(), 3 - expected.len() as u64, "in\n{tree}");
        for (name, (_, took)) in
            ["stock", "card", "invoice"].iter().zip(times).filter(|(name, _)| expected.contains(name))
        {
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
    let span = tree.profile_span("invoice");
    assert!(!span.is_finished() && !span.is_cancelled(), "in\n{tree}");
    assert!(tree.profile_span("card").is_finished(), "in\n{tree}");
    assert_eq!(span.start() + span.duration(), tree.duration(), "in\n{tree}");
}

#[test]
fn what_is_aborted_is_cancelled() {
    let (tree, took) = profile_with(lanes(5), aborted_task, on_one_thread);
    let span = tree.profile_span("invoice");
    assert!(span.is_finished() && span.is_cancelled(), "in\n{tree}");
    tree.span_took("invoice", took);
}

async fn three_tasks() -> Times {
    let tasks = (spawn(stock()), spawn(card()), spawn(invoice()));
    vec![tasks.0.await.expect("stock"), tasks.1.await.expect("card"), tasks.2.await.expect("invoice")]
}

async fn one_after_the_other() -> Times {
    let stock = spawn(stock()).await.expect("stock");
    let card = spawn(card()).await.expect("card");
    vec![stock, card, spawn(invoice()).await.expect("invoice")]
}

async fn forgotten_task() {
    drop(spawn(invoice()));
    let card = spawn(card());
    card.await.expect("card");
}

async fn aborted_task() -> Duration {
    let start = Instant::now();
    let invoice = spawn(invoice());
    sleep(ms(30)).await;
    invoice.abort();
    let aborted = invoice.await;
    assert!(aborted.is_err_and(|error| error.is_cancelled()));
    let took = start.elapsed();
    sleep(ms(20)).await;
    took
}

async fn stock() -> (&'static str, Duration) {
    let start = Instant::now();
    sleep(ms(20)).await;
    ("meanwhile::stock", start.elapsed())
}

async fn card() -> (&'static str, Duration) {
    let start = Instant::now();
    sleep(ms(40)).await;
    ("meanwhile::card", start.elapsed())
}

async fn invoice() -> (&'static str, Duration) {
    let start = Instant::now();
    sleep(ms(60)).await;
    ("meanwhile::invoice", start.elapsed())
}

fn lanes(most: usize) -> ProfileConfig {
    ProfileConfig::new("test").expect("a name").running_samples(false).lanes(most)
}
