//! Leaves that are awaited at once, whatever polls them together: what the request waited for in the end is in its main
//! tree, the rest in spans of their own.

mod support;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::{self, Either, join_all, select_all, select_ok, try_join_all};
use futures_util::stream::{self, StreamExt};
use futures_util::{FutureExt, select_biased};
use support::{FOREVER, Stopwatches, Tree, ms, on_one_thread, on_workers, profile_undisturbed, stopwatches};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

#[test]
fn the_last_arm_of_a_join_is_what_was_waited_for() {
    shows_beside(futures_join, "concurrent_leaves::second");
    shows_beside(futures_try_join, "concurrent_leaves::second");
    shows_beside(tokio_try_join, "concurrent_leaves::second");
    shows_beside(boxed_join, "concurrent_leaves::second");
    shows_beside(generic_join, "concurrent_leaves::second");
}

async fn futures_join(watches: Stopwatches) {
    futures_util::join!(first(&watches), second());
}

async fn futures_try_join(watches: Stopwatches) {
    let arms = (first(&watches).map(Ok::<_, ()>), second().map(Ok::<_, ()>));
    futures_util::try_join!(arms.0, arms.1).expect("no error");
}

async fn tokio_try_join(watches: Stopwatches) {
    let one = async { first(&watches).map(Ok::<_, ()>).await };
    let two = async { second().map(Ok::<_, ()>).await };
    tokio::try_join!(one, two).expect("no error");
}

async fn boxed_join(watches: Stopwatches) {
    let (one, two) = (first(&watches).boxed(), second().boxed());
    tokio::join!(one, two);
}

async fn generic_join(watches: Stopwatches) {
    tokio::join!(awaited(first(&watches)), awaited(second()));
}

async fn awaited<F: Future>(future: F) -> F::Output {
    future.await
}

#[test]
fn each_round_of_a_select_belongs_to_its_winner() {
    shows_in_turn(futures_select, "concurrent_leaves::second");
    shows_in_turn(futures_select_biased, "concurrent_leaves::second");
    shows_in_turn(tokio_select, "concurrent_leaves::second");
    shows_in_turn(selected, "concurrent_leaves::second");
    shows_in_turn(selected_of_all, "concurrent_leaves::second");
    shows_in_turn(selected_of_results, "concurrent_leaves::second");
}

async fn futures_select(watches: Stopwatches) {
    let (mut one, mut two) = (pin!(first(&watches).fuse()), pin!(second().fuse()));
    for _ in 0..2 {
        futures_util::select! { () = one => {}, () = two => {} }
    }
}

async fn futures_select_biased(watches: Stopwatches) {
    let (mut one, mut two) = (pin!(first(&watches).fuse()), pin!(second().fuse()));
    for _ in 0..2 {
        select_biased! { () = one => {}, () = two => {} }
    }
}

async fn tokio_select(watches: Stopwatches) {
    let (mut one, mut two) = (pin!(first(&watches)), pin!(second()));
    let (mut one_is_done, mut two_is_done) = (false, false);
    loop {
        tokio::select! {
            () = &mut one, if !one_is_done => one_is_done = true,
            () = &mut two, if !two_is_done => two_is_done = true,
            else => break,
        }
    }
}

async fn selected(watches: Stopwatches) {
    match future::select(first(&watches).boxed(), second().boxed()).await {
        Either::Left((_, rest)) | Either::Right((_, rest)) => rest.await,
    }
}

async fn selected_of_all(watches: Stopwatches) {
    let (.., rest) = select_all([first(&watches).boxed(), second().boxed()]).await;
    select_all(rest).await;
}

async fn selected_of_results(watches: Stopwatches) {
    let fails = first(&watches).map(Err::<(), ()>).boxed();
    select_ok([fails, second().map(Ok).boxed()]).await.expect("the second");
}

#[test]
fn the_last_element_of_what_polls_many_is_what_was_waited_for() {
    shows_beside(all_joined, "concurrent_leaves::second");
    shows_beside(polled_in_a_loop, "concurrent_leaves::second");
    shows_beside(polled_by_an_iterator, "concurrent_leaves::second");
    shows_beside(zipped_by_hand, "concurrent_leaves::second");
}

async fn all_joined(watches: Stopwatches) {
    join_all([first(&watches).boxed(), second().boxed()]).await;
}

async fn polled_in_a_loop(watches: Stopwatches) {
    let mut ahead = vec![first(&watches).boxed(), second().boxed()];
    poll_fn(|cx| {
        let mut i = 0;
        while i < ahead.len() {
            if ahead[i].as_mut().poll(cx).is_ready() {
                drop(ahead.remove(i));
            } else {
                i += 1;
            }
        }
        if ahead.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn polled_by_an_iterator(watches: Stopwatches) {
    let mut ahead = vec![first(&watches).boxed(), second().boxed()];
    poll_fn(|cx| {
        ahead.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if ahead.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn zipped_by_hand(watches: Stopwatches) {
    Zip::new(first(&watches), second()).await;
}

#[test]
fn two_streams_that_are_polled_together_are_as_arms() {
    shows_in_turn(selected_streams, "concurrent_leaves::second");
    shows_beside(zipped_streams, "concurrent_leaves::second");
}

async fn selected_streams(watches: Stopwatches) {
    let mut both = pin!(stream::select(stream::once(first(&watches)), stream::once(second())));
    while both.next().await.is_some() {}
}

async fn zipped_streams(watches: Stopwatches) {
    let mut both = pin!(stream::once(first(&watches)).zip(stream::once(second())));
    while both.next().await.is_some() {}
}

#[test]
fn one_function_at_two_places_is_two_arms() {
    shows_beside(joined_waits, "tokio::time::timeout::Timeout");
    shows_beside(joined_blocks, "tokio::time::timeout::Timeout");
    shows_beside(joined_joins, "tokio::time::timeout::Timeout");
    shows_beside(zipped_waits, "tokio::time::timeout::Timeout");
    shows_beside(all_joined_waits, "tokio::time::timeout::Timeout");
    shows_beside(all_tried_waits, "tokio::time::timeout::Timeout");
    shows_beside(joined_inlined, "tokio::sync::notify::Notified");
}

async fn joined_waits(watches: Stopwatches) {
    tokio::join!(briefly_or_for_long(&watches, true), briefly_or_for_long(&watches, false));
}

async fn joined_blocks(watches: Stopwatches) {
    let one = async { briefly_or_for_long(&watches, true).await };
    let two = async { briefly_or_for_long(&watches, false).await };
    tokio::join!(one, two);
}

async fn joined_joins(watches: Stopwatches) {
    let one = async { tokio::join!(briefly_or_for_long(&watches, true), future::ready(())) };
    let two = async { tokio::join!(briefly_or_for_long(&watches, false), future::ready(())) };
    tokio::join!(one, two);
}

async fn zipped_waits(watches: Stopwatches) {
    Zip::new(briefly_or_for_long(&watches, true), briefly_or_for_long(&watches, false)).await;
}

async fn all_joined_waits(watches: Stopwatches) {
    join_all([true, false].map(|briefly| briefly_or_for_long(&watches, briefly))).await;
}

async fn all_tried_waits(watches: Stopwatches) {
    let waits = [true, false].map(|briefly| briefly_or_for_long(&watches, briefly).map(Ok::<_, ()>));
    try_join_all(waits).await.expect("no error");
}

/// Small enough to become one function.
async fn joined_inlined(watches: Stopwatches) {
    let (sender, receiver) = oneshot::channel();
    let notify = Arc::new(Notify::new());
    let (later, watch) = (Arc::clone(&notify), watches.start("tokio::sync::oneshot::Receiver"));
    thread::spawn(move || {
        thread::sleep(FIRST);
        drop(watch);
        sender.send(()).expect("a receiver");
        thread::sleep(SECOND - FIRST);
        later.notify_one();
    });
    tokio::join!(answered_or_notified(Some(receiver), &notify), answered_or_notified(None, &notify));
}

async fn answered_or_notified(answer: Option<oneshot::Receiver<()>>, notify: &Notify) {
    match answer {
        Some(answer) => answer.await.expect("an answer"),
        None => notify.notified().await,
    }
}

#[test]
fn elements_of_one_function_at_different_places_are_told_apart() {
    shows_beside(fetched, "concurrent_leaves::cache");
    shows_beside(boxed_fetched, "concurrent_leaves::cache");
}

/// One is in the database while the other still waits for the cache, and the last to go on.
async fn fetched(watches: Stopwatches) {
    join_all([true, false].map(|misses| fetch(&watches, misses))).await;
}

async fn boxed_fetched(watches: Stopwatches) {
    join_all([true, false].map(|misses| fetch(&watches, misses).boxed())).await;
}

async fn fetch(watches: &Stopwatches, misses: bool) {
    cache(misses).await;
    if misses {
        database(watches).await;
    }
}

async fn cache(misses: bool) {
    sleep(if misses { ms(10) } else { SECOND }).await;
}

async fn database(watches: &Stopwatches) {
    let _watch = watches.start("concurrent_leaves::database");
    sleep(ms(30)).await;
}

/// What the program measures, which wakes first, is a node of this duration, and `rest` is one of the rest.
#[track_caller]
fn shows_in_turn<F>(handler: impl Fn(Stopwatches) -> F + Copy + Send + 'static, rest: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    for (tree, whole, (name, took)) in profiled(handler) {
        tree.lasted(whole);
        tree.took(name, took);
        tree.took(rest, whole - took);
    }
}

/// `last` is a node of the whole, and what the program measures, which wakes first, is one of a span.
#[track_caller]
fn shows_beside<F>(handler: impl Fn(Stopwatches) -> F + Copy + Send + 'static, last: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    for (tree, whole, (name, took)) in profiled(handler) {
        tree.lasted(whole);
        tree.took(last, whole);
        tree.has_no(name);
        tree.span_with(name).took(name, took);
    }
}

/// The trees, how long each request took, and what the program measured of it; again if the machine was so slow that
/// something else may have woken first.
#[track_caller]
fn profiled<F>(
    handler: impl Fn(Stopwatches) -> F + Copy + Send + 'static,
) -> Vec<(Tree, Duration, (&'static str, Duration))>
where
    F: Future<Output = ()> + Send + 'static,
{
    const ATTEMPTS: usize = 10;
    /// The last to wake may be later by this, and not sooner after the first.
    const SLACK: Duration = Duration::from_millis(15);
    const LEAST: Duration = Duration::from_millis(25);
    let (watches, measured) = stopwatches();
    let timed = move || {
        let start = Instant::now();
        handler(watches.clone()).map(move |()| start.elapsed())
    };
    let attempt = |_| {
        let profiled = profile_undisturbed(timed.clone(), [on_workers, on_one_thread]);
        let measured: Vec<_> = measured.try_iter().collect();
        // Those of requests that were disturbed come before.
        assert!(measured.len() >= profiled.len(), "one of each request, but see {measured:?}");
        let measured = measured.into_iter().rev();
        profiled.into_iter().rev().zip(measured).map(|((tree, whole), measured)| (tree, whole, measured)).collect()
    };
    let is_swift = |(tree, whole, (_, took)): &(Tree, Duration, (_, Duration))| {
        *whole < SECOND + SLACK && *took + LEAST < *whole && tree.spans().all(|(_, tree)| !tree.waited_for_a_worker())
    };
    let mut attempts = (0..ATTEMPTS).map(attempt);
    attempts.find(|profiled: &Vec<_>| profiled.iter().all(is_swift)).expect("a machine with time for a request")
}

const FIRST: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_millis(60);

async fn first(watches: &Stopwatches) {
    let _watch = watches.start("concurrent_leaves::first");
    sleep(FIRST).await;
}

async fn second() {
    sleep(SECOND).await;
}

/// One function with two awaits.
async fn briefly_or_for_long(watches: &Stopwatches, briefly: bool) {
    if briefly {
        let _watch = watches.start("tokio::time::sleep::Sleep");
        sleep(FIRST).await;
    } else {
        timeout(FOREVER, sleep(SECOND)).await.expect("in time");
    }
}

/// As somebody may write it: both are polled each time, from two places.
struct Zip<A, B>(Option<Pin<Box<A>>>, Option<Pin<Box<B>>>);

impl<A: Future, B: Future> Zip<A, B> {
    fn new(one: A, two: B) -> Self {
        Self(Some(Box::pin(one)), Some(Box::pin(two)))
    }
}

impl<A: Future, B: Future> Future for Zip<A, B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.as_mut().is_some_and(|one| one.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
        if self.1.as_mut().is_some_and(|two| two.as_mut().poll(cx).is_ready()) {
            self.1 = None;
        }
        if self.0.is_none() && self.1.is_none() { Poll::Ready(()) } else { Poll::Pending }
    }
}
