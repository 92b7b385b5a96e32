//! A request that was woken waits for a worker to poll it: how long, and below what it had awaited.

mod support;

use std::convert::Infallible;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use skywalking_profile::{ProfileLayer, ProfileTask};
use support::{SCHEDULED, Times, Trees, block_on, embedded, get, ms, on_one_thread, profile};
use tokio::join;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};

const RECEIVER: &str = "tokio::sync::oneshot::Receiver";

#[test]
fn a_request_whose_thread_is_held_by_another_waits_for_a_worker() {
    let (tree, (times, ready)) = profile(answered_by_one_that_goes_on, on_one_thread);
    tree.has_shape(&["GET:/", "  scheduled::answered_by_one_that_goes_on", "    tokio::sync::oneshot::Receiver"]);
    tree.agrees_with(&times);
    tree.was_scheduled(RECEIVER, ready.at_least, ready.slack);
}

async fn answered_by_one_that_goes_on() -> (Times, Ready) {
    let start = Instant::now();
    let (answer, question) = oneshot::channel();
    let answering = tokio::spawn(async {
        sleep(ms(20)).await;
        let woken = Moment::of(|| answer.send(()).expect("a receiver"));
        thread::sleep(ms(30));
        woken
    });
    question.await.expect("an answer");
    let end = Instant::now();
    let woken = answering.await.expect("no panic");
    (vec![(RECEIVER, end - start)], woken.until(end))
}

#[test]
fn a_request_that_yields_to_one_that_holds_the_thread_waits_for_a_worker() {
    let (tree, took) = profile(yield_to_one_that_holds_the_thread, on_one_thread);
    tree.has_shape(&["GET:/", "  scheduled::yield_to_one_that_holds_the_thread", "    scheduled::Yield"]);
    tree.was_scheduled("scheduled::Yield", took, Duration::ZERO);
    tree.took("scheduled::Yield", took);
}

async fn yield_to_one_that_holds_the_thread() -> Duration {
    tokio::spawn(async { thread::sleep(ms(30)) });
    let start = Instant::now();
    Yield::default().await;
    start.elapsed()
}

/// Wants to be polled again at once.
#[derive(Default)]
struct Yield {
    polled: bool,
}

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        cx.waker().wake_by_ref();
        if mem::replace(&mut self.polled, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    ignore = "its stack alone tells"
)]
fn a_request_that_yields_by_tokio_is_ready_before_it_is_woken() {
    let (tree, took) = profile(yield_by_tokio, on_one_thread);
    tree.was_scheduled("tokio::task::yield_now::yield_now", took, Duration::ZERO);
    let (tree, took) = profile(spend_the_budget, on_one_thread);
    tree.was_scheduled("tokio::sync::mpsc::unbounded::UnboundedReceiver::recv", took, Duration::ZERO);
}

async fn yield_by_tokio() -> Duration {
    tokio::spawn(async { thread::sleep(ms(30)) });
    let start = Instant::now();
    yield_now().await;
    start.elapsed()
}

#[test]
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    ignore = "its stack alone tells"
)]
fn arms_that_yield_at_once_wait_for_a_worker_once() {
    let (tree, took) = profile(join_of_yields, on_one_thread);
    tree.was_scheduled("tokio::task::yield_now::yield_now", took, Duration::ZERO);
    tree.has_spans(&[]);
}

async fn join_of_yields() -> Duration {
    tokio::spawn(async { thread::sleep(ms(30)) });
    let start = Instant::now();
    join!(yields(), yields(), yields());
    start.elapsed()
}

async fn yields() {
    yield_now().await;
}

/// Never waits for a message, but tokio polls no task for longer than that.
async fn spend_the_budget() -> Duration {
    const BUDGET: usize = 128;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    (0..=BUDGET).for_each(|i| sender.send(i).expect("a receiver"));
    tokio::spawn(async { thread::sleep(ms(30)) });
    let start = Instant::now();
    for _ in 0..=BUDGET {
        receiver.recv().await;
    }
    start.elapsed()
}

#[test]
fn a_request_is_ready_from_its_wake_on_whether_the_agent_has_looked_at_it_or_not() {
    for dump_period in [ms(1), ms(100)] {
        let (answer, question) = oneshot::channel();
        let mut request = Request::of(dump_period, answered(question));
        request.is_suspended();
        let start = Instant::now();
        thread::sleep(ms(30));
        let woken = Moment::of(|| answer.send(()).expect("a receiver"));
        thread::sleep(ms(30));
        let end = Instant::now();
        request.is_answered();

        let (tree, ready) = (request.trees.next(), woken.until(end));
        tree.was_scheduled(RECEIVER, ready.at_least, ready.slack);
        tree.took(RECEIVER, end - start);
    }
}

#[test]
fn of_several_leaves_the_one_that_woke_is_the_one_that_was_awaited() {
    let ((answer, question), silent) = (oneshot::channel::<()>(), Gate::default());
    let mut request = Request::new(both(silent, question));
    request.is_suspended();
    thread::sleep(ms(10));
    let woken = Moment::of(|| answer.send(()).expect("a receiver"));
    thread::sleep(ms(20));
    let end = Instant::now();
    request.is_suspended();
    thread::sleep(ms(10));
    let Request { request, trees, .. } = request;
    drop(request);

    let (tree, ready) = (trees.next(), woken.until(end));
    tree.was_scheduled(RECEIVER, ready.at_least, ready.slack);
    tree.has_shape(&[
        "GET:/",
        "  scheduled::both",
        "    scheduled::answered",
        "      tokio::sync::oneshot::Receiver",
        // The other one has a waker and takes no new one.
        "  [pending]",
    ]);
}

async fn both(silent: Gate, question: oneshot::Receiver<()>) {
    tokio::join!(silent, answered(question));
}

async fn answered(question: oneshot::Receiver<()>) {
    question.await.expect("an answer");
}

#[test]
fn a_wake_by_the_waker_of_an_earlier_poll_makes_ready() {
    let gate = Gate::default();
    let mut request = Request::new(gate.clone());
    request.is_suspended();
    thread::sleep(ms(10));
    // It has its waker, and takes no other.
    request.is_suspended();
    let start = Instant::now();
    thread::sleep(ms(10));
    let woken = Moment::of(|| gate.open());
    thread::sleep(ms(20));
    let end = Instant::now();
    request.is_answered();

    let (tree, ready) = (request.trees.next(), woken.until(end));
    tree.has_shape(&["GET:/", "  scheduled::Gate", "  [pending]"]);
    tree.was_scheduled("[pending]", ready.at_least, ready.slack);
    tree.took("[pending]", end - start);
}

#[test]
fn a_wake_during_the_poll_makes_ready_at_its_end() {
    let mut request = Request::new(WokenMeanwhile::default());
    request.is_suspended();
    let start = Instant::now();
    thread::sleep(ms(20));
    let end = Instant::now();
    request.is_answered();

    let tree = request.trees.next();
    tree.was_scheduled("scheduled::WokenMeanwhile", end - start, Duration::ZERO);
}

/// By another thread, which has done so before the poll ends.
#[derive(Default)]
struct WokenMeanwhile {
    polled: bool,
}

impl Future for WokenMeanwhile {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if mem::replace(&mut self.polled, true) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        thread::spawn(|| waker.wake()).join().expect("no panic");
        Poll::Pending
    }
}

#[test]
fn what_is_polled_without_a_wake_was_suspended() {
    let wakers = Arc::<Mutex<Vec<Waker>>>::default();
    let mut request = Request::new(ThirdPoll(Arc::clone(&wakers)));
    request.is_suspended();
    let start = Instant::now();
    let woken = Moment::of(|| wakers.lock().expect("no panic")[0].wake_by_ref());
    thread::sleep(ms(20));
    let ready = woken.until(Instant::now());
    request.is_suspended();
    thread::sleep(ms(20));
    let end = Instant::now();
    request.is_answered();

    let tree = request.trees.next();
    tree.took("scheduled::ThirdPoll", end - start);
    tree.was_scheduled("scheduled::ThirdPoll", ready.at_least, ready.slack);
}

/// Ready when it is polled for the third time.
struct ThirdPoll(Arc<Mutex<Vec<Waker>>>);

impl Future for ThirdPoll {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut wakers = self.0.lock().expect("no panic");
        wakers.push(cx.waker().clone());
        if wakers.len() < 3 { Poll::Pending } else { Poll::Ready(()) }
    }
}

#[test]
fn a_request_that_is_ready_when_its_task_ends_waits_for_a_worker() {
    let (answer, question) = oneshot::channel();
    let mut request = Request::new(answered(question));
    request.is_suspended();
    thread::sleep(ms(10));
    let woken = Moment::of(|| answer.send(()).expect("a receiver"));
    thread::sleep(ms(30));
    let end = Moment::of(|| block_on(request.layer.shutdown()));

    let (tree, ready) = (request.trees.next(), woken.until(end.from));
    tree.is_unfinished();
    tree.was_scheduled(RECEIVER, ready.at_least, ready.slack + (end.to - end.from));
    request.is_answered();
}

#[test]
fn a_request_that_hangs_when_its_task_ends_waits_for_no_worker() {
    let mut request = Request::new(Gate::default());
    request.is_suspended();
    thread::sleep(ms(10));
    block_on(request.layer.shutdown());
    let tree = request.trees.next();
    tree.is_unfinished();
    tree.has_no(SCHEDULED);
}

#[test]
fn a_request_that_is_dropped_while_it_is_ready_has_waited_for_a_worker() {
    let (answer, question) = oneshot::channel();
    let mut request = Request::new(answered(question));
    request.is_suspended();
    let woken = Moment::of(|| answer.send(()).expect("a receiver"));
    thread::sleep(ms(20));
    let end = Instant::now();
    let Request { request, trees, .. } = request;
    drop(request);

    let ready = woken.until(end);
    trees.next().was_scheduled(RECEIVER, ready.at_least, ready.slack);
}

#[test]
fn a_request_that_waits_for_its_client_waits_for_no_worker() {
    let (layer, trees) = embedded();
    layer.profile(ProfileTask::new("GET:/")).expect("an active layer");
    let gate = Gate::default();
    let answered = gate.clone();
    let service = layer.layer(service_fn(move |_| {
        let mut gate = answered.clone();
        let mut parts = 0..1;
        // Hands its waker out, and is ready nevertheless.
        let parts = stream::poll_fn(move |cx| {
            let _ = Pin::new(&mut gate).poll(cx);
            Poll::Ready(parts.next().map(|_| Ok::<_, Infallible>(Frame::data("part".as_bytes()))))
        });
        async { Ok::<_, Infallible>(Response::new(StreamBody::new(parts))) }
    }));
    let mut body = block_on(service.oneshot(get("/"))).expect("infallible").into_body();
    assert!(block_on(body.frame()).is_some());
    gate.open();
    thread::sleep(ms(20));
    assert!(block_on(body.frame()).is_none());

    let tree = trees.next();
    tree.has_shape(&["GET:/", "  [waiting for the client]"]);
    tree.has_no(SCHEDULED);
}

/// A followed request that the test polls.
struct Request {
    request: BoxFuture<'static, Response<()>>,
    layer: ProfileLayer,
    trees: Trees,
}

impl Request {
    /// Answered once `future` is ready.
    fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self::of(ms(10), future)
    }

    fn of(dump_period: Duration, future: impl Future<Output = ()> + Send + 'static) -> Self {
        let (layer, trees) = embedded();
        layer.profile(ProfileTask::new("GET:/").dump_period(dump_period)).expect("an active layer");
        let mut future = Some(future);
        let service = layer.layer(service_fn(move |_| {
            let future = future.take().expect("one request");
            future.map(|()| Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new())))
        }));
        let request = service.oneshot(get("/")).map(|Ok(response)| response.map(drop)).boxed();
        Self { request, layer, trees }
    }

    #[track_caller]
    fn is_suspended(&mut self) {
        assert!(self.poll().is_pending());
    }

    #[track_caller]
    fn is_answered(&mut self) {
        assert!(self.poll().is_ready());
    }

    fn poll(&mut self) -> Poll<Response<()>> {
        self.request.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }
}

/// Ready once it is open; wakes the waker of its first poll.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

impl Gate {
    fn open(&self) {
        let mut gate = self.0.lock().expect("no panic");
        gate.0 = true;
        gate.1.take().expect("a waker").wake();
    }
}

impl Future for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut gate = self.0.lock().expect("no panic");
        if gate.0 {
            return Poll::Ready(());
        }
        if gate.1.is_none() {
            gate.1 = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// When something happened: not before, and not after.
#[derive(Clone, Copy, Debug)]
struct Moment {
    from: Instant,
    to: Instant,
}

impl Moment {
    fn of(action: impl FnOnce()) -> Self {
        let from = Instant::now();
        action();
        Self { from, to: Instant::now() }
    }

    /// How long it lay back at `end`.
    fn until(self, end: Instant) -> Ready {
        Ready { at_least: end - self.to, slack: self.to - self.from }
    }
}

/// How long a request was ready, and how much longer that may be.
#[derive(Clone, Copy, Debug)]
struct Ready {
    at_least: Duration,
    slack: Duration,
}
