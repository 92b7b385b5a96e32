//! What a request does while it is being polled: where it computes, and where it blocks its thread.

mod support;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::hint::black_box;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Empty;
use skywalking_profile::{ProfileConfig, ProfileTask};
use support::{Times, Tree, block_on, get, ms, on_one_thread, on_workers, profile, profile_with, sampled};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};

/// What samples tell of a function may be off by a tick of 2 ms at each end; on a busy machine ticks come late.
const TOLERANCE: Duration = Duration::from_millis(10);

fn profile_sampled<T, F>(
    handler: fn() -> F,
    executor: fn(BoxFuture<'static, Response<()>>) -> Response<()>,
) -> (Tree, T)
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
{
    profile_with(ProfileConfig::new("test").expect("a name"), handler, executor)
}

/// The tree shows what the handler measured. On a busy machine ticks come late, so it may be tried again.
#[track_caller]
fn shows<F>(handler: fn() -> F, executor: fn(BoxFuture<'static, Response<()>>) -> Response<()>)
where
    F: Future<Output = Times> + Send + 'static,
{
    const ATTEMPTS: usize = 5;
    for attempt in 1..=ATTEMPTS {
        let (tree, times) = profile_sampled(handler, executor);
        tree.is_finished();
        let is_right = |(function, measured): &(&str, Duration)| tree.is_about(function, *measured, TOLERANCE);
        if times.iter().all(is_right) {
            return;
        }
        assert!(attempt < ATTEMPTS, "{times:?} measured, but see\n{tree}");
    }
}

/// Computes for so long, in itself alone.
#[inline(never)]
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        let mut i = 0_u64;
        while i < 20_000 {
            i += black_box(1);
        }
    }
}

#[inline(never)]
fn render() -> Times {
    let start = Instant::now();
    let mut times = compress();
    compute(ms(50));
    times.push(("thread_stacks::render", start.elapsed()));
    times
}

#[inline(never)]
fn compress() -> Times {
    let start = Instant::now();
    compute(ms(100));
    vec![("thread_stacks::compress", start.elapsed())]
}

async fn page() -> Times {
    sleep(ms(5)).await;
    let times = render();
    sleep(ms(5)).await;
    times
}

#[test]
fn what_computes_is_shown_in_its_functions() {
    for executor in [on_workers, on_one_thread] {
        shows(page, executor);
    }
}

#[test]
fn what_computes_is_not_shown_if_it_is_not_wanted() {
    let (tree, times) = profile(page, on_one_thread);
    for (function, _) in &times {
        tree.has_no(function);
    }
    tree.took_about("[running]", times.last().expect("render's").1, TOLERANCE);
}

async fn blocks() -> Times {
    [doze(), read_late()].concat()
}

#[inline(never)]
fn doze() -> Times {
    let start = Instant::now();
    thread::sleep(ms(60));
    vec![("std::thread::functions::sleep", start.elapsed())]
}

#[inline(never)]
fn read_late() -> Times {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut socket = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    socket.set_read_timeout(Some(ms(60))).expect("a timeout");
    let start = Instant::now();
    let error = socket.read(&mut [0; 8]).expect_err("nothing to read");
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "a signal would interrupt it");
    vec![("thread_stacks::read_late", start.elapsed())]
}

#[test]
fn what_blocks_is_shown_and_goes_on_undisturbed() {
    shows(blocks, block_on);
}

async fn short_polls() -> Times {
    let start = Instant::now();
    let mut computed = Duration::ZERO;
    for length in [2, 3, 4, 5, 2, 3, 4, 5] {
        sleep(ms(3)).await;
        let start = Instant::now();
        compute(ms(length));
        computed += start.elapsed();
    }
    sleep(ms(3)).await;
    vec![("thread_stacks::compute", computed), ("thread_stacks::short_polls", start.elapsed())]
}

#[test]
fn short_polls_between_waits_have_their_full_time() {
    // A tick that comes late meets another poll, or none.
    let (tree, times) = (0..10)
        .map(|_| profile_sampled(short_polls, on_one_thread))
        .find(|(tree, _)| !tree.is_disturbed())
        .expect("a machine with time for a tick");
    let [(compute, computed), (handler, lasted)] = *times else { panic!("{times:?}") };
    tree.took_about(handler, lasted, TOLERANCE);
    tree.took_together(&[compute], computed);
}

#[test]
fn a_service_that_computes_in_its_call_is_shown() {
    let (layer, trees) = sampled();
    layer.profile(ProfileTask::new("GET:/").samples(1)).expect("an active layer");
    let service = layer.layer(service_fn(|_: Request<()>| {
        let mut response = Response::new(Empty::<&[u8]>::new());
        response.extensions_mut().insert(render());
        ready(Ok::<_, Infallible>(response))
    }));
    let Ok(response) = block_on(service.oneshot(get("/")));
    let times = response.extensions().get::<Times>().cloned().expect("times");
    drop(response);
    let tree = trees.next();
    for (function, measured) in times {
        tree.took_about(function, measured, TOLERANCE);
    }
}

static LOCK: Mutex<()> = Mutex::new(());

#[inline(never)]
fn takes_lock() {
    drop(LOCK.lock());
}

#[test]
fn a_poll_that_hangs_is_shown_at_the_end_of_the_task() {
    let held = LOCK.lock();
    let (layer, trees) = sampled();
    layer.profile(ProfileTask::new("GET:/").samples(1)).expect("an active layer");
    let (polls, polled) = mpsc::channel();
    let service = layer.layer(service_fn(move |_: Request<()>| {
        let polls = polls.clone();
        async move {
            polls.send(Instant::now()).expect("the test waits");
            takes_lock();
            Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
        }
    }));
    thread::scope(|scope| {
        let request = scope.spawn(|| block_on(service.oneshot(get("/")).map(drop)));
        let since = polled.recv().expect("a poll");
        // Long enough for a sample on any machine.
        thread::sleep(ms(300));
        let hung = since.elapsed();
        block_on(layer.shutdown());
        let tree = trees.next();
        tree.is_unfinished();
        tree.took_about("thread_stacks::takes_lock", hung, ms(100));
        drop(held);
        request.join().expect("no panic");
    });
}
