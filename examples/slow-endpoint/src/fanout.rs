//! A report of many pages, eight of which are fetched at a time.

use std::time::{Duration, Instant};

use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde_json::json;
use skywalking_profile_axum::InCurrentRequest;
use tokio::time::sleep;

use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/fanout";

const PAGES: usize = 40;
const AT_A_TIME: usize = 8;

/// The time of each `fetch` is told.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
pub(crate) async fn fanout() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    // The stream polls them under a waker of its own: they have to say whose they are.
    let fetches = stream::iter(0..PAGES).map(|_| fetch().in_current_request());
    let fetched: Vec<Duration> = fetches.buffer_unordered(AT_A_TIME).collect().await;
    for took in &fetched {
        timing.add("fetch", *took);
    }
    timing.note("fanout", start);
    timing.note("total", start);
    timing.response(json!({"pages": fetched.len()}))
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn fetch() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(20)).await;
    start.elapsed()
}
