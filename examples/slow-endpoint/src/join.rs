//! A page that loads two things at once and then puts them together.

use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;
use tokio::time::sleep;

use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/join";

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
pub(crate) async fn join() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    let (customer, order) = tokio::join!(load_customer(), load_order());
    timing.add("load_customer", customer);
    timing.add("load_order", order);
    price_order(&mut timing).await;
    timing.note("join", start);
    timing.note("total", start);
    timing.response(json!({"order": "priced"}))
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn load_customer() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(50)).await;
    start.elapsed()
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn load_order() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(60)).await;
    start.elapsed()
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn price_order(timing: &mut ServerTiming) {
    let start = Instant::now();
    sleep(Duration::from_millis(40)).await;
    timing.note("price_order", start);
}
