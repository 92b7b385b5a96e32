//! A request whose client may not wait for its end: with the client gone, it is dropped where it stands.

use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/cancel";

/// Half a second. Given up before, it tells its time on stdout.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
pub(crate) async fn cancel() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    let mut patience = Patience { start, is_over: false };
    let accounts = Mutex::new(());
    let (query, lock) = tokio::join!(query_ledger(&accounts), await_lock(&accounts));
    patience.is_over = true;
    timing.add("query_ledger", query);
    timing.add("await_lock", lock);
    timing.note("cancel", start);
    timing.note("total", start);
    timing.response(json!({"client": "patient"}))
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn query_ledger(accounts: &Mutex<()>) -> Duration {
    let start = Instant::now();
    let _held = accounts.lock().await;
    sleep(Duration::from_millis(500)).await;
    start.elapsed()
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn await_lock(accounts: &Mutex<()>) -> Duration {
    let start = Instant::now();
    let _held = accounts.lock().await;
    start.elapsed()
}

/// Where the client's patience ends before the request does, nobody gets a response that could tell the time.
struct Patience {
    start: Instant,
    is_over: bool,
}

impl Drop for Patience {
    fn drop(&mut self) {
        if !self.is_over {
            println!("{NAME} given up after {:.2} ms", self.start.elapsed().as_secs_f64() * 1000.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_stays_is_told_the_times() {
        let response = cancel().await;
        let timing = response.headers()["server-timing"].to_str().unwrap();
        let functions: Vec<_> = timing.split(", ").filter_map(|time| time.split(";dur=").next()).collect();
        assert_eq!(functions, ["total", "cancel", "await_lock", "query_ledger"]);
    }
}
