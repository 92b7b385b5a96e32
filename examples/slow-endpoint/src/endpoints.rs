//! The slow endpoints: those of the article that introduced SkyWalking's trace profiling for Python, in async Rust, and
//! others, each in a module of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;
use tokio::time::sleep;

use crate::server_timing::ServerTiming;
use crate::{blocking, cancel, chunks, cpu, fanout, hang, join, orders, select, spawn, starved, timeout};

/// The endpoints as SkyWalking names them.
pub(crate) const NAMES: [&str; 14] = [
    "POST:/",
    "POST:/diagram",
    orders::NAME,
    join::NAME,
    select::NAME,
    timeout::NAME,
    spawn::NAME,
    fanout::NAME,
    cancel::NAME,
    cpu::NAME,
    chunks::NAME,
    blocking::NAME,
    starved::NAME,
    hang::NAME,
];

/// The endpoints; orders come from `upstream`.
pub(crate) fn router(upstream: SocketAddr) -> Router {
    Router::new()
        .route("/", post(song))
        .route("/diagram", post(diagram))
        .merge(orders::router(upstream))
        .route("/join", get(join::join))
        .route("/select", get(select::select))
        .route("/timeout", get(timeout::timeout))
        .route("/spawn", get(spawn::spawn))
        .route("/fanout", get(fanout::fanout))
        .route("/cancel", get(cancel::cancel))
        .route("/cpu", get(cpu::cpu))
        .route("/chunks", get(chunks::chunks))
        .route("/blocking", get(blocking::blocking))
        .route("/starved", get(starved::starved))
        .route("/hang", get(hang::hang))
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn song() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    method3(&mut timing).await;
    let slept = Instant::now();
    sleep(Duration::from_millis(500)).await;
    timing.note("sleep", slept);
    timing.note("song", start);
    timing.note("total", start);
    timing.response(json!({"song": "Despacito", "artist": "Luis Fonsi"}))
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn method3(timing: &mut ServerTiming) {
    let start = Instant::now();
    sleep(Duration::from_millis(20)).await;
    method2(timing).await;
    timing.note("method3", start);
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn method2(timing: &mut ServerTiming) {
    let start = Instant::now();
    sleep(Duration::from_millis(20)).await;
    method1(timing).await;
    timing.note("method2", start);
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn method1(timing: &mut ServerTiming) {
    let start = Instant::now();
    sleep(Duration::from_millis(20)).await;
    timing.note("method1", start);
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn diagram() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    method_a(&mut timing).await;
    timing.note("diagram", start);
    timing.note("total", start);
    timing.response(json!({"methods": ["a", "b", "c", "d"]}))
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn method_a(timing: &mut ServerTiming) {
    let start = Instant::now();
    method_b(timing).await;
    timing.note("method_a", start);
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn method_b(timing: &mut ServerTiming) {
    let start = Instant::now();
    method_c(timing).await;
    method_d(timing).await;
    timing.note("method_b", start);
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn method_c(timing: &mut ServerTiming) {
    let start = Instant::now();
    sleep(Duration::from_millis(40)).await;
    timing.note("method_c", start);
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn method_d(timing: &mut ServerTiming) {
    let start = Instant::now();
    sleep(Duration::from_millis(60)).await;
    timing.note("method_d", start);
}
