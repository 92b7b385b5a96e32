//! What a future notices of being followed: nothing, for it is polled as often and woken no less.

mod support;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::Response;
use http_body_util::Empty;
use skywalking_profile::ProfileTask;
use support::{get, ms, sampled};
use tokio::runtime::Builder;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{interval, sleep, timeout};
use tokio::{join, select, spawn};
use tower::{Layer, ServiceExt, service_fn};

#[test]
fn a_followed_request_is_polled_as_often_and_woken_no_less() {
    is_polled_as_often("nested sleeps", nested_sleeps);
    is_polled_as_often("join!", joined_sleeps);
    is_polled_as_often("join! of yields", joined_yields);
    is_polled_as_often("select! in a loop", selected_messages);
    is_polled_as_often("timeout", timeouts);
    is_polled_as_often("oneshot", oneshot_answer);
    is_polled_as_often("mutex", mutex_hand_over);
    is_polled_as_often("FuturesUnordered", unordered_sleeps);
}

async fn nested_sleeps() {
    async fn sleep_twice() {
        sleep(ms(10)).await;
        sleep(ms(10)).await;
    }
    sleep_twice().await;
    sleep(ms(10)).await;
    sleep_twice().await;
}

async fn joined_sleeps() {
    join!(sleep(ms(10)), nested_sleeps(), sleep(ms(25)));
}

async fn joined_yields() {
    join!(yield_now(), yield_now(), yield_now());
}

async fn selected_messages() {
    let (sender, mut receiver) = mpsc::channel(1);
    spawn(async move {
        for message in 0..10 {
            sleep(ms(10)).await;
            sender.send(message).await.expect("a receiver");
        }
    });
    let mut ticks = interval(ms(7));
    loop {
        select! {
            message = receiver.recv() => match message {
                Some(_) => sleep(ms(3)).await,
                None => break,
            },
            _ = ticks.tick() => {}
        }
    }
}

async fn timeouts() {
    timeout(ms(10), sleep(ms(20))).await.expect_err("too slow");
    timeout(ms(20), sleep(ms(10))).await.expect("fast enough");
}

async fn oneshot_answer() {
    let (sender, receiver) = oneshot::channel();
    spawn(async move {
        sleep(ms(10)).await;
        sender.send(()).expect("a receiver");
    });
    receiver.await.expect("an answer");
}

async fn mutex_hand_over() {
    async fn lock_over_and_over(mutex: Arc<Mutex<()>>) {
        for _ in 0..5 {
            let guard = mutex.lock().await;
            sleep(ms(5)).await;
            drop(guard);
            yield_now().await;
        }
    }
    let mutex = Arc::new(Mutex::new(()));
    let other = spawn(lock_over_and_over(Arc::clone(&mutex)));
    lock_over_and_over(mutex).await;
    other.await.expect("no panic");
}

async fn unordered_sleeps() {
    (0..5).map(|i| sleep(ms(10 * i))).collect::<FuturesUnordered<_>>().collect::<Vec<_>>().await;
}

#[track_caller]
fn is_polled_as_often<F: Future<Output = ()> + Send + 'static>(what: &str, handler: fn() -> F) {
    let service = |counts: Arc<Counts>| {
        service_fn(move |_| {
            let answer = |()| Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()));
            counting_polls(handler(), Arc::clone(&counts)).map(answer)
        })
    };
    let (layer, trees) = sampled();
    let without = counted(|counts| service(counts).oneshot(get("/")).map(drop).boxed());
    let through = || counted(|counts| layer.layer(service(counts)).oneshot(get("/")).map(drop).boxed());
    assert_eq!(through(), without, "polls and wakes of {what}, not followed");

    layer.profile(ProfileTask::new("GET:/")).expect("an active layer");
    let followed = through();
    trees.next().is_finished();
    assert_eq!(followed.0, without.0, "polls of {what}");
    assert!(followed.1 >= without.1, "{} wakes of {what} instead of {}", followed.1, without.1);
}

#[derive(Debug, Default)]
struct Counts {
    polls: AtomicUsize,
    wakes: AtomicUsize,
}

/// Polls and wakes of a request.
fn counted(request: impl FnOnce(Arc<Counts>) -> BoxFuture<'static, ()>) -> (usize, usize) {
    let counts = Arc::<Counts>::default();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(counting_wakes(request(Arc::clone(&counts)), Arc::clone(&counts)));
    (counts.polls.load(Ordering::Relaxed), counts.wakes.load(Ordering::Relaxed))
}

fn counting_polls<F: Future>(future: F, counts: Arc<Counts>) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    poll_fn(move |cx| {
        counts.polls.fetch_add(1, Ordering::Relaxed);
        future.as_mut().poll(cx)
    })
}

fn counting_wakes<F: Future>(future: F, counts: Arc<Counts>) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    let mut counting: Option<Waker> = None;
    poll_fn(move |cx| {
        // The same waker in each poll, as an executor's is.
        let counting = counting.get_or_insert_with(|| {
            Waker::from(Arc::new(CountingWaker { counts: Arc::clone(&counts), waker: cx.waker().clone() }))
        });
        future.as_mut().poll(&mut Context::from_waker(counting))
    })
}

struct CountingWaker {
    counts: Arc<Counts>,
    waker: Waker,
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.counts.wakes.fetch_add(1, Ordering::Relaxed);
        self.waker.wake_by_ref();
    }
}
