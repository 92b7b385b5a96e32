//! Two replicas are asked at once; the nearer one answers first, and the other is asked no more.

use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;
use tokio::time::sleep;

use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/select";

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
pub(crate) async fn select() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    let (winner, took) = tokio::select! {
        took = ask_near() => ("ask_near", took),
        took = ask_far() => ("ask_far", took),
    };
    timing.add(winner, took);
    timing.note("select", start);
    timing.note("total", start);
    timing.response(json!({"winner": winner}))
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn ask_near() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(30)).await;
    start.elapsed()
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn ask_far() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(80)).await;
    start.elapsed()
}
