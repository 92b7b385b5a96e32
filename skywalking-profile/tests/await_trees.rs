//! What a request waits for, through its await tree: whoever polls it, whatever stands on the way, whatever the leaf is.

mod support;

use std::future::{self, Future};
use std::mem;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Instant;

use futures_util::future::BoxFuture;
use skywalking_profile::{Frames, ProfileConfig};
use support::{Timer, Times, Tree, block_on, ms, on_a_new_thread, on_one_thread, on_workers, profile, profile_with};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::sleep;

#[test]
fn each_function_is_one_node_with_its_own_time() {
    let (tree, times) = profile(order, on_workers);
    is_of_order(&tree, &times);
    tree.is_finished();
}

#[test]
fn one_thread_shows_the_same_tree() {
    let (tree, times) = profile(order, on_one_thread);
    is_of_order(&tree, &times);
}

async fn order() -> Times {
    let start = Instant::now();
    let times = load_order().await;
    sleep(ms(20)).await;
    [times, vec![("await_trees::order", start.elapsed())]].concat()
}

async fn load_order() -> Times {
    let start = Instant::now();
    sleep(ms(5)).await;
    let mut times = Times::new();
    for _ in 0..3 {
        times.extend(load_customer().await);
    }
    [times, vec![("await_trees::load_order", start.elapsed())]].concat()
}

async fn load_customer() -> Times {
    let start = Instant::now();
    sleep(ms(7)).await;
    vec![("await_trees::load_customer", start.elapsed())]
}

#[track_caller]
fn is_of_order(tree: &Tree, times: &Times) {
    tree.has_shape(&[
        "GET:/",
        "  await_trees::order",
        "    await_trees::load_order",
        "      tokio::time::sleep::Sleep",
        "      await_trees::load_customer",
        "        tokio::time::sleep::Sleep",
        "    tokio::time::sleep::Sleep",
    ]);
    tree.agrees_with(times);
}

#[test]
fn a_request_that_moves_between_threads_keeps_one_tree() {
    let (tree, times) = profile(order_by_timer, on_a_new_thread);
    is_of_order_by_timer(&tree, &times);
}

#[test]
fn a_request_needs_no_runtime() {
    let (tree, times) = profile(order_by_timer, block_on);
    is_of_order_by_timer(&tree, &times);
}

async fn order_by_timer() -> Times {
    let start = Instant::now();
    let times = load_by_timer().await;
    Timer::new(ms(20)).await;
    [times, vec![("await_trees::order_by_timer", start.elapsed())]].concat()
}

async fn load_by_timer() -> Times {
    let start = Instant::now();
    Timer::new(ms(10)).await;
    Timer::new(ms(15)).await;
    vec![("await_trees::load_by_timer", start.elapsed())]
}

#[track_caller]
fn is_of_order_by_timer(tree: &Tree, times: &Times) {
    tree.has_shape(&[
        "GET:/",
        "  await_trees::order_by_timer",
        "    await_trees::load_by_timer",
        // One per line.
        "      await_trees::support::executor::Timer",
        "      await_trees::support::executor::Timer",
        "    await_trees::support::executor::Timer",
    ]);
    tree.agrees_with(times);
}

#[test]
fn a_node_says_where_it_was_awaited() {
    async fn line() -> u32 {
        let (line, ()) = (line!(), sleep(ms(5)).await);
        line
    }
    let (tree, line) = profile(line, on_workers);
    tree.is_awaited_at("tokio::time::sleep::Sleep", &format!("await_trees.rs:{line}"));
}

#[test]
fn a_boxed_future_is_what_it_holds() {
    let (tree, times) = profile(boxed, on_workers);
    tree.has_shape(&[
        "GET:/",
        "  await_trees::boxed",
        "    await_trees::load_customer",
        "      tokio::time::sleep::Sleep",
    ]);
    tree.agrees_with(&times);
}

async fn boxed() -> Times {
    let held: Pin<Box<dyn Future<Output = Times> + Send>> = Box::pin(load_customer());
    held.await
}

#[test]
fn an_async_block_is_a_node_by_the_name_of_its_function() {
    let (tree, times) = profile(in_a_block, on_workers);
    tree.has_shape(&[
        "GET:/",
        "  await_trees::in_a_block",
        "    await_trees::in_a_block",
        "      await_trees::load_customer",
        "        tokio::time::sleep::Sleep",
    ]);
    tree.agrees_with(&times);
}

async fn in_a_block() -> Times {
    async { load_customer().await }.await
}

#[test]
fn each_level_of_a_recursion_is_a_node() {
    let (tree, times) = profile(|| descend(3), on_workers);
    tree.has_shape(&[
        "GET:/",
        "  await_trees::descend",
        "    await_trees::descend",
        "      await_trees::descend",
        "        await_trees::load_customer",
        "          tokio::time::sleep::Sleep",
    ]);
    tree.agrees_with(&times);
}

/// As `async_trait` makes it of an async method.
fn descend(levels: u32) -> BoxFuture<'static, Times> {
    Box::pin(async move { if levels > 1 { descend(levels - 1).await } else { load_customer().await } })
}

#[test]
fn a_leaf_of_a_library_is_the_function_that_was_awaited() {
    let (tree, times) = profile(leaves, on_workers);
    let leaves = times.iter().map(|(name, _)| format!("    {name}"));
    let shape: Vec<_> = ["GET:/".to_owned(), "  await_trees::leaves".to_owned()].into_iter().chain(leaves).collect();
    tree.has_shape(&shape.iter().map(String::as_str).collect::<Vec<_>>());
    tree.agrees_with(&times);
}

/// Each for itself, and each one's time.
async fn leaves() -> Times {
    macro_rules! timed {
        ($name:literal, $future:expr) => {{
            let start = Instant::now();
            let _ = $future.await;
            ($name, start.elapsed())
        }};
    }
    let (sender, receiver) = oneshot::channel();
    soon(move || sender.send(()));
    let oneshot = timed!("tokio::sync::oneshot::Receiver", receiver);

    let (sender, mut receiver) = mpsc::channel(1);
    soon(move || sender.try_send(()));
    let bounded = timed!("tokio::sync::mpsc::bounded::Receiver::recv", receiver.recv());

    let (sender, mut receiver) = mpsc::unbounded_channel();
    soon(move || sender.send(()));
    let unbounded = timed!("tokio::sync::mpsc::unbounded::UnboundedReceiver::recv", receiver.recv());

    let notify = Arc::new(Notify::new());
    let notifier = Arc::clone(&notify);
    soon(move || notifier.notify_one());
    let notified = timed!("tokio::sync::notify::Notified", notify.notified());

    let mutex = Arc::new(Mutex::new(()));
    let guard = Arc::clone(&mutex).lock_owned().await;
    soon(move || drop(guard));
    let lock = timed!("tokio::sync::mutex::Mutex::lock", mutex.lock());

    let join = timed!("tokio::runtime::task::join::JoinHandle", tokio::spawn(sleep(ms(20))));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("a listener");
    let (peer, _) = listener.accept().await.expect("a connection");
    soon(move || peer.try_write(b"x"));
    let readable = timed!("tokio::net::tcp::stream::TcpStream::readable", stream.readable());

    vec![oneshot, bounded, unbounded, notified, lock, join, readable]
}

#[test]
fn a_wait_whose_leaf_stores_no_waker_is_pending() {
    let (tree, times) = profile(wait_without_a_waker, block_on);
    tree.has_shape(&["GET:/", "  [pending]"]);
    tree.agrees_with(&times);
}

async fn wait_without_a_waker() -> Times {
    let start = Instant::now();
    // The executor's thread is woken, but not by the waker that the poll was given.
    let executor = thread::current();
    soon(move || executor.unpark());
    let mut polled = false;
    future::poll_fn(|_| if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    vec![("[pending]", start.elapsed())]
}

#[test]
fn a_request_that_yields_over_and_over_is_whole() {
    for executor in [on_workers, on_one_thread] {
        let (tree, times) = profile(yield_over_and_over, executor);
        tree.agrees_with(&times);
    }
}

async fn yield_over_and_over() -> Times {
    let start = Instant::now();
    let times = load_customer().await;
    for _ in 0..5_000 {
        yield_now().await;
    }
    sleep(ms(5)).await;
    [times, vec![("await_trees::yield_over_and_over", start.elapsed())]].concat()
}

#[test]
fn all_frames_are_shown_on_demand() {
    let config = ProfileConfig::new("test").unwrap().frames(Frames::All);
    let (tree, times) = profile_with(config, load_customer, on_workers);
    tree.agrees_with(&times);
    // What stands between the layer and the handler.
    tree.took("futures_util::future::future::Map", times[0].1);
}

/// Something that happens while the request waits for it.
fn soon<T>(happens: impl FnOnce() -> T + Send + 'static) {
    thread::spawn(move || {
        thread::sleep(ms(20));
        drop(happens());
    });
}
