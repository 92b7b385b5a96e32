//! Everything at once: a runtime of four workers, all requests profiled, a sample each millisecond, and handlers that do
//! what is hard on a profiler. `STRESS_SECONDS` is how long, `STRESS_SEED` repeats a run.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "calls of the C library that block, and vector instructions")]
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "all of it is a test, which tells what it saw")]

mod blocks;
mod computes;
mod random;
#[path = "../support/mod.rs"]
mod support;

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::env;
use std::hint::black_box;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Response;
use http_body_util::Empty;
use hyper::body::Bytes;
use skywalking_profile::{ProfileConfig, ProfileLayer, ProfileNode, ProfileTask, ProfileTree};
use support::{FOREVER, Log, get, ms, on_a_new_thread};
use tokio::runtime::Builder;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

use random::Random;

const WORKERS: usize = 4;

/// Requests at a time, beside those on threads of their own.
const CLIENTS: usize = 8;

/// Requests at a time that are polled by turns on threads that end with the poll.
const WANDERERS: usize = 2;

/// What calls the functions of the other files.
const CALLS: &[(&str, &[&str])] = &[
    ("GET:/", &["answer"]),
    ("answer", &["answer", "falls", "part", "computes::anything", "blocks::anyhow"]),
    // Its body and the one that its timeout is for.
    ("part", &["part", "computes::anything", "blocks::anyhow"]),
    ("falls", &["computes::anything", "computes::falls"]),
];

async fn answer(seed: u64) {
    let mut random = Random::new(seed);
    for _ in 0..1 + random.below(8) {
        match random.below(20) {
            0 => falls(&mut random),
            1 => tokio::task::yield_now().await,
            2 => tokio::time::sleep(Duration::from_micros(random.below(3_000))).await,
            3..8 => part(seed, &mut random).await,
            8..14 => blocks::anyhow(&mut random),
            _ => computes::anything(&mut random),
        }
    }
}

/// Comes and goes while it waits.
async fn part(seed: u64, random: &mut Random) {
    let time = Duration::from_micros(seed % 2_000);
    let _ = tokio::time::timeout(time, async {
        computes::anything(random);
        tokio::time::sleep(time).await;
        blocks::anyhow(random);
    })
    .await;
}

#[inline(never)]
fn falls(random: &mut Random) {
    computes::anything(random);
    computes::falls(random.below(10));
    black_box(());
}

#[test]
fn sampling_harms_nothing_and_tells_the_truth() {
    let time = Duration::from_secs(env::var("STRESS_SECONDS").map_or(4, |seconds| seconds.parse().unwrap()));
    let seed = env::var("STRESS_SEED").map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    eprintln!("STRESS_SEED={seed}");
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let is_expected = info.payload().downcast_ref::<&str>().is_some_and(|message| *message == "as it should");
        if !is_expected {
            default(info);
        }
    }));

    let seen = Arc::<Mutex<Seen>>::default();
    let log = Log::of_all();
    let config = ProfileConfig::new("stress").unwrap().sampling_tick(ms(1)).unwrap();
    let layer = ProfileLayer::new(config.on_profile({
        let seen = Arc::clone(&seen);
        move |tree| seen.lock().unwrap().add(tree)
    }));
    layer.profile(ProfileTask::new("GET:/").samples(u64::MAX)).unwrap();

    let (until, requests) = (Instant::now() + time, Arc::new(AtomicU64::new(0)));
    let counted = Arc::clone(&requests);
    let profiled = layer.clone();
    let request = move |random: &mut Random| -> BoxFuture<'static, ()> {
        counted.fetch_add(1, Ordering::Relaxed);
        let seed = random.next();
        let handler =
            service_fn(move |_| answer(seed).map(|()| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
        match random.below(2) {
            0 => profiled.layer(CatchPanicLayer::new().layer(handler)).oneshot(get("/")).map(drop).boxed(),
            _ => CatchPanicLayer::new().layer(profiled.layer(handler)).oneshot(get("/")).map(drop).boxed(),
        }
    };

    let wanderers: Vec<_> = (0..WANDERERS)
        .map(|i| {
            let (request, mut random) = (request.clone(), Random::new(seed + 100 + i as u64));
            thread::spawn(move || {
                while Instant::now() < until {
                    // A runtime's timers are of use on any thread.
                    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
                    let entered = runtime.handle().clone();
                    for _ in 0..50 {
                        let mut request = request(&mut random);
                        let entered = entered.clone();
                        on_a_new_thread(
                            std::future::poll_fn(move |cx| {
                                let _entered = entered.enter();
                                request.poll_unpin(cx)
                            })
                            .boxed(),
                        );
                    }
                }
            })
        })
        .collect();
    let runtime = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().unwrap();
    runtime.block_on(async {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|i| {
                let (request, mut random) = (request.clone(), Random::new(seed + i as u64));
                tokio::spawn(async move {
                    while Instant::now() < until {
                        request(&mut random).await;
                    }
                })
            })
            .collect();
        let all = futures_util::future::try_join_all(clients);
        tokio::time::timeout(time + FOREVER, all).await.expect("a program that goes on").unwrap();
    });
    wanderers.into_iter().for_each(|wanderer| wanderer.join().unwrap());
    runtime.block_on(layer.shutdown());

    let closing = log.line("profile task ends", FOREVER);
    // What the agent has not shown by then it still adds.
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let interrupted = blocks::INTERRUPTED.load(Ordering::Relaxed);
    eprintln!("{closing}\n{interrupted} calls were interrupted\n{seen}");
    let (samples, cut) = (closing.number("samples"), closing.number("cut_samples"));
    assert!(samples as u64 > 50 * time.as_secs(), "only {samples} samples");
    assert!(cut * 100 <= samples, "{cut} of {samples} are cut");
    assert!(interrupted <= closing.number("interrupted_calls") as u64, "{interrupted} in\n{closing}");
    seen.only_calls_of(&[CALLS, computes::CALLS, blocks::CALLS]);
}

/// What the trees of all requests showed.
#[derive(Debug, Default)]
struct Seen {
    trees: u64,
    /// How often a function called another.
    calls: BTreeMap<(String, String), u32>,
    /// One tree with each.
    examples: BTreeMap<(String, String), String>,
}

impl Seen {
    fn add(&mut self, tree: &ProfileTree) {
        self.trees += 1;
        self.add_below(tree, tree.root());
    }

    fn add_below(&mut self, tree: &ProfileTree, node: &ProfileNode) {
        for child in node.children() {
            let call = (function(node).to_owned(), function(child).to_owned());
            self.examples.entry(call.clone()).or_insert_with(|| tree.to_string());
            *self.calls.entry(call).or_default() += child.dump_count();
            self.add_below(tree, child);
        }
    }

    fn only_calls_of(&self, tables: &[&[(&str, &[&str])]]) {
        let table = tables.iter().copied().flatten();
        let expected: HashSet<_> =
            table.flat_map(|(caller, callees)| callees.iter().map(move |callee| (*caller, *callee))).collect();
        let own: HashSet<_> = expected.iter().flat_map(|(caller, callee)| [*caller, *callee]).collect();
        let invented = self.calls.keys().filter(|(caller, callee)| {
            own.contains(&**caller) && own.contains(&**callee) && !expected.contains(&(&**caller, &**callee))
        });
        let invented: Vec<_> = invented.map(|call| format!("{call:?} in\n{}", self.examples[call])).collect();
        assert!(invented.is_empty(), "{}", invented.join("\n"));
    }
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} trees", self.trees)?;
        self.calls.iter().try_for_each(|((caller, callee), count)| writeln!(f, "{count:7} {caller} -> {callee}"))
    }
}

/// Of a node, without this program's own name.
fn function(node: &ProfileNode) -> &str {
    let signature = node.signature();
    let name = signature.split_once(" @ ").map_or(signature, |(function, _)| function);
    name.strip_prefix("stress::").unwrap_or(name)
}
