//! An upload that comes in chunks: polls of a few milliseconds between waits of a few.

use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;
use tokio::time::sleep;

use crate::computing::compute_for;
use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/chunks";

/// How long the digest of each chunk takes.
const CHUNKS_MS: [u64; 8] = [2, 3, 4, 5, 2, 3, 4, 5];
const UNTIL_THE_NEXT: Duration = Duration::from_millis(5);

/// The times of `digest` and `sleep` are those of all chunks together.
pub(crate) async fn chunks() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    let (mut computed, mut slept) = (Duration::ZERO, Duration::ZERO);
    for ms in CHUNKS_MS {
        computed += digest(Duration::from_millis(ms));
        let wait = Instant::now();
        sleep(UNTIL_THE_NEXT).await;
        slept += wait.elapsed();
    }
    timing.add("sleep", slept);
    timing.add("digest", computed);
    timing.note("chunks", start);
    timing.note("total", start);
    timing.response(json!({"chunks": CHUNKS_MS.len()}))
}

/// Tells how long it took.
#[inline(never)]
fn digest(takes: Duration) -> Duration {
    let start = Instant::now();
    compute_for!(takes);
    start.elapsed()
}
