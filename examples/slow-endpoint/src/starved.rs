//! A request that is ready and has to wait for a worker: all of them compute.

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard, oneshot};

use crate::computing::compute_for;
use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/starved";

const OCCUPIED: Duration = Duration::from_millis(50);

/// Held while they are to be occupied: two requests, each with some of the workers, would wait for the others for ever.
static WORKERS: Mutex<()> = Mutex::const_new(());

/// The time of `scheduled` is that from the moment when the request could go on to that when it did.
pub(crate) async fn starved() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    let turn = occupy(WORKERS.lock().await);
    await_turn(turn, &mut timing).await;
    timing.note("starved", start);
    timing.note("total", start);
    timing.response(json!({"workers": Handle::current().metrics().num_workers()}))
}

async fn await_turn(turn: oneshot::Receiver<Instant>, timing: &mut ServerTiming) {
    let start = Instant::now();
    if let Ok(came) = turn.await {
        timing.note("scheduled", came);
    }
    timing.note("await_turn", start);
}

/// Keeps every worker from other tasks; the turn comes when the last of them has joined, 50 ms before the end.
fn occupy(workers: MutexGuard<'static, ()>) -> oneshot::Receiver<Instant> {
    let (turn, awaited) = oneshot::channel();
    let mut turn = Some(turn);
    let count = Handle::current().metrics().num_workers();
    let all = Arc::new(Barrier::new(count));
    // The tasks go on when the request's client has gone away, so they hold the workers, and not the request.
    let workers = Arc::new(workers);
    for _ in 0..count {
        let (turn, all, workers) = (turn.take(), Arc::clone(&all), Arc::clone(&workers));
        tokio::spawn(async move {
            // Blocks its worker, so that each of the tasks has another.
            all.wait();
            if let Some(turn) = turn {
                let _ = turn.send(Instant::now());
            }
            compute_for!(OCCUPIED);
            drop(workers);
        });
    }
    awaited
}

#[cfg(test)]
mod tests {
    use futures_util::future::{join_all, poll_immediate};
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    use super::*;

    /// The milliseconds that a response tells of its `scheduled`.
    fn scheduled(response: &Response) -> f64 {
        let timing = response.headers()["server-timing"].to_str().unwrap();
        let scheduled = timing.split(", ").find_map(|time| time.strip_prefix("scheduled;dur="));
        scheduled.unwrap_or_else(|| panic!("no scheduled in {timing}")).parse().unwrap()
    }

    #[test]
    fn requests_wait_for_a_worker_however_many_there_are() {
        for workers in [1, 2, 4] {
            let runtime = Builder::new_multi_thread().worker_threads(workers).enable_time().build().unwrap();
            let requests = async {
                // Its client has gone away at once.
                let mut given_up = Box::pin(starved());
                assert!(poll_immediate(&mut given_up).await.is_none());
                drop(given_up);
                join_all((0..3).map(|_| tokio::spawn(starved()))).await
            };
            let responses = runtime.block_on(async { timeout(Duration::from_secs(60), requests).await });
            for response in responses.expect("no request waits for ever") {
                let scheduled = scheduled(&response.unwrap());
                assert!(scheduled > 45.0, "{scheduled} ms with {workers} workers");
            }
        }
    }
}
