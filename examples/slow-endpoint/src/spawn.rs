//! A purchase that is made by other tasks, and by a thread that may block; the request waits for each in turn.

use std::thread;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use skywalking_profile_axum::spawn_blocking;
use tokio::time::sleep;

use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/spawn";

/// Beside the functions' times those of the waits for them.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
pub(crate) async fn spawn() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    let stock = skywalking_profile_axum::spawn(reserve_stock());
    let card = skywalking_profile_axum::spawn(charge_card());
    let invoice = spawn_blocking(print_invoice);

    let waits = Instant::now();
    let stock = stock.await;
    timing.note("stock.await", waits);
    let waits = Instant::now();
    let card = card.await;
    timing.note("card.await", waits);
    let waits = Instant::now();
    let invoice = invoice.await;
    timing.note("invoice.await", waits);

    let (Ok(stock), Ok(card), Ok(invoice)) = (stock, card, invoice) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    timing.add("print_invoice", invoice);
    timing.add("charge_card", card);
    timing.add("reserve_stock", stock);
    timing.note("spawn", start);
    timing.note("total", start);
    timing.response(json!({"purchase": "made"}))
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn reserve_stock() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(30)).await;
    start.elapsed()
}

/// Tells how long it took.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn charge_card() -> Duration {
    let start = Instant::now();
    sleep(Duration::from_millis(70)).await;
    start.elapsed()
}

/// Tells how long it took.
fn print_invoice() -> Duration {
    let start = Instant::now();
    thread::sleep(Duration::from_millis(40));
    start.elapsed()
}
