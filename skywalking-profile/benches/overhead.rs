//! What being followed costs: each workload without the layer, with an idle one, and followed, in turns in one run.
//!
//! ```sh
//! cargo bench -p skywalking-profile
//! ```
#![expect(clippy::print_stdout, reason = "shows its results")]

use std::convert::Infallible;
use std::env;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::Empty;
use skywalking_profile::{InCurrentRequest, ProfileConfig, ProfileLayer, ProfileTask, spawn};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use tower::{Layer, Service, ServiceExt, service_fn};

/// In each round of each workload.
const TIMES: u32 = 2_000;
/// An odd number has a median.
const ROUNDS: usize = 31;

type Work = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

const WORKLOADS: [(&str, Work); 4] = [
    ("a poll of yield_now", || Box::pin(yields())),
    ("a poll of a join! of two", || Box::pin(joins())),
    ("a spawned task, awaited", || Box::pin(spawns())),
    ("a spawned task of the request, awaited", || Box::pin(spawns_in_request())),
];

async fn yields() {
    for _ in 0..TIMES {
        yield_now().await;
    }
}

async fn joins() {
    for _ in 0..TIMES {
        tokio::join!(yield_now(), yield_now());
    }
}

async fn spawns() {
    for _ in 0..TIMES {
        tokio::spawn(yield_now()).await.expect("no panic");
    }
}

async fn spawns_in_request() {
    for i in 0..TIMES {
        // Both ways.
        let task = if i % 2 == 0 { spawn(yield_now()) } else { tokio::spawn(yield_now().in_current_request()) };
        task.await.expect("no panic");
    }
}

fn main() {
    // Among the tests it is only to compile.
    if !env::args().any(|argument| argument == "--bench") {
        return;
    }
    let layer = |is_sampled| {
        let config = ProfileConfig::new("bench").expect("a name").running_samples(is_sampled).on_profile(|_| {});
        ProfileLayer::new(config)
    };
    let (idle, unsampled, sampled) = (layer(true), layer(false), layer(true));
    for layer in [&unsampled, &sampled] {
        layer.profile(ProfileTask::new("GET:/").samples(u64::MAX)).expect("an active layer");
    }
    println!(
        "{:40} {:>10} {:>8} {:>10} {:>14}",
        "nanoseconds (and times as long)", "bare", "idle", "followed", "and sampled"
    );
    for (name, work) in WORKLOADS {
        let mut rounds: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            rounds[0].push(bare(work));
            for (layer, times) in [&idle, &unsampled, &sampled].into_iter().zip(&mut rounds[1..]) {
                times.push(followed(layer, work));
            }
        }
        let [bare, others @ ..] = rounds.each_mut().map(|times| median(times));
        let others = others.map(|ns| format!("{ns:.0} ({:.2})", ns / bare));
        println!("{name:40} {bare:>10.0} {:>14} {:>14} {:>14}", others[0], others[1], others[2]);
    }
}

fn bare(work: Work) -> f64 {
    measured(service_fn(move |_: Request<()>| respond(work)))
}

fn followed(layer: &ProfileLayer, work: Work) -> f64 {
    measured(layer.layer(service_fn(move |_: Request<()>| respond(work))))
}

async fn respond(work: Work) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let start = Instant::now();
    work().await;
    let mut response = Response::new(Empty::new());
    response.extensions_mut().insert(start.elapsed());
    Ok(response)
}

/// Nanoseconds for each time.
fn measured<S, B>(service: S) -> f64
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let request = Request::get("/").body(()).expect("a path");
    let Ok(response) = runtime.block_on(service.oneshot(request));
    let took: Duration = *response.extensions().get().expect("a duration");
    took.as_secs_f64() * 1e9 / f64::from(TIMES)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
