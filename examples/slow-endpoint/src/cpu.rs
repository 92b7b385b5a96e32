//! A page that is computed: 60 ms without an await, a third of it in one function, the rest in another that this calls.

use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;

use crate::computing::compute_for;
use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/cpu";

pub(crate) async fn cpu() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    render(&mut timing);
    timing.note("cpu", start);
    timing.note("total", start);
    timing.response(json!({"page": "rendered"}))
}

#[inline(never)]
fn render(timing: &mut ServerTiming) {
    let start = Instant::now();
    compute_for!(Duration::from_millis(20));
    compress(timing);
    timing.note("render", start);
}

#[inline(never)]
fn compress(timing: &mut ServerTiming) {
    let start = Instant::now();
    compute_for!(Duration::from_millis(40));
    timing.note("compress", start);
}
