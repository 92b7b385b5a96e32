//! Two answers that are waited for with a timeout: one comes in time, the other would not come for long.

use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;
use tokio::time::{self, sleep};

use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/timeout";

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
pub(crate) async fn timeout() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    be_patient(&mut timing).await;
    let is_answered = lose_patience(&mut timing).await;
    timing.note("timeout", start);
    timing.note("total", start);
    timing.response(json!({"late": if is_answered { "answered" } else { "given up" }}))
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn be_patient(timing: &mut ServerTiming) {
    let start = Instant::now();
    if let Ok(took) = time::timeout(Duration::from_secs(1), answer_soon()).await {
        timing.add("answer_soon", took);
    }
    timing.note("be_patient", start);
}

/// Tells whether there was an answer.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn lose_patience(timing: &mut ServerTiming) -> bool {
    let start = Instant::now();
    let answer = time::timeout(Duration::from_millis(30), answer_late()).await;
    timing.note("lose_patience", start);
    answer.is_ok()
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn answer_soon() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(40)).await;
    start.elapsed()
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn answer_late() {
    sleep(Duration::from_secs(10)).await;
}
