//! Functions that the application marks itself: what shows of them in a stripped binary, and in one that is not.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod support;

use std::time::Instant;

use skywalking_profile::SpanLayer;
use support::{Times, Tree, in_a_copy_without, ms, on_one_thread, on_workers, profile};
use tokio::time::{sleep, timeout};
use tracing::Instrument;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

#[async_backtrace::framed]
async fn order() -> Times {
    let start = Instant::now();
    let times = load_order().await;
    sleep(ms(20)).await;
    [times, vec![("annotations::order", start.elapsed())]].concat()
}

#[async_backtrace::framed]
async fn load_order() -> Times {
    let start = Instant::now();
    sleep(ms(5)).await;
    let times = load_customer().await;
    [times, vec![("annotations::load_order", start.elapsed())]].concat()
}

#[async_backtrace::framed]
async fn load_customer() -> Times {
    let start = Instant::now();
    sleep(ms(7)).await;
    vec![("annotations::load_customer", start.elapsed())]
}

#[test]
fn framed_functions_show_in_a_stripped_binary() {
    in_a_copy_without("--strip-all", "framed_functions_show_in_a_stripped_binary", || {
        // The very first request, whose waits begin before the self-test has ended.
        let (tree, times) = profile(order, on_workers);
        is_path(&tree, ["order", "load_order", "load_customer"]);
        tree.agrees_with(&times);
    });
}

#[test]
fn framed_functions_show_beside_symbols_alone() {
    in_a_copy_without("--strip-debug", "framed_functions_show_beside_symbols_alone", || {
        let (tree, times) = profile(order, on_workers);
        tree.agrees_with(&times);
    });
}

async fn handle() -> (u32, Times) {
    let (line, times) = (line!(), order().await);
    (line, times)
}

#[test]
fn with_debug_information_a_framed_function_is_one_node_awaited_where_it_was() {
    let (tree, (line, times)) = profile(handle, on_workers);
    tree.is_awaited_at("annotations::order", &format!("annotations.rs:{line}"));
    tree.has_shape(&[
        "GET:/",
        "  annotations::handle",
        "    annotations::order",
        "      annotations::load_order",
        "        tokio::time::sleep::Sleep",
        "        annotations::load_customer",
        "          tokio::time::sleep::Sleep",
        "      tokio::time::sleep::Sleep",
    ]);
    tree.agrees_with(&times);
}

#[test]
fn framed_arms_of_a_join_show_by_the_one_that_was_waited_for() {
    #[async_backtrace::framed]
    async fn short() -> Instant {
        sleep(ms(10)).await;
        Instant::now()
    }
    #[async_backtrace::framed]
    async fn long() -> Instant {
        sleep(ms(30)).await;
        Instant::now()
    }
    #[async_backtrace::framed]
    async fn both() -> Times {
        let start = Instant::now();
        let (short, long) = futures_util::join!(short(), long());
        vec![("short", short - start), ("long", long - start)]
    }
    in_a_copy_without("--strip-all", "framed_arms_of_a_join_show_by_the_one_that_was_waited_for", || {
        let (tree, times) = profile(both, on_workers);
        let arm = |arm: &str| format!("annotations::framed_arms_of_a_join_show_by_the_one_that_was_waited_for::{arm}");
        let [(short, short_took), (long, long_took)] = times[..] else { panic!("{times:?}") };
        tree.took(&arm(long), long_took);
        tree.has_no(&arm(short));
        tree.span_with(&arm(short)).took(&arm(short), short_took);
    });
}

#[test]
fn a_framed_function_shows_without_the_timer_of_its_timeout() {
    #[async_backtrace::framed]
    async fn within() -> Times {
        timeout(ms(5_000), order()).await.expect("in time")
    }
    in_a_copy_without("--strip-all", "a_framed_function_shows_without_the_timer_of_its_timeout", || {
        let (tree, times) = profile(within, on_workers);
        tree.agrees_with(&times);
    });
}

#[tracing::instrument]
async fn quote() -> Times {
    let start = Instant::now();
    let times = fetch().instrument(tracing::info_span!("HTTP request")).await;
    [times, vec![("annotations::quote", start.elapsed())]].concat()
}

async fn fetch() -> Times {
    let start = Instant::now();
    sleep(ms(10)).await;
    vec![("annotations::HTTP request", start.elapsed())]
}

fn install_span_layer() {
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(SpanLayer::new());
    tracing::subscriber::set_global_default(subscriber).expect("the only one of this process");
}

#[test]
fn spans_show_in_a_stripped_binary() {
    in_a_copy_without("--strip-all", "spans_show_in_a_stripped_binary", || {
        install_span_layer();
        let (tree, times) = profile(quote, on_workers);
        is_path(&tree, ["quote", "HTTP request"]);
        tree.agrees_with(&times);
    });
}

#[test]
fn framed_functions_come_before_spans() {
    async fn either() -> Times {
        let ordered = order().instrument(tracing::info_span!("not shown")).await;
        [ordered, quote().await].concat()
    }
    in_a_copy_without("--strip-all", "framed_functions_come_before_spans", || {
        install_span_layer();
        let (tree, times) = profile(either, on_workers);
        tree.has_no("annotations::not shown");
        tree.agrees_with(&times);
    });
}

#[test]
fn with_debug_information_an_instrumented_function_is_one_node() {
    let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO);
    let (tree, times) = tracing::subscriber::with_default(subscriber, || profile(quote, on_one_thread));
    tree.took("annotations::quote", times[1].1);
}

/// One below the other.
#[track_caller]
fn is_path<const N: usize>(tree: &Tree, functions: [&str; N]) {
    let line = |(i, function): (usize, &&str)| format!("{:1$}annotations::{function}", "", 2 * (i + 1));
    let lines: Vec<_> = ["GET:/".to_owned()].into_iter().chain(functions.iter().enumerate().map(line)).collect();
    tree.has_shape(&lines.iter().map(String::as_str).collect::<Vec<_>>());
}
