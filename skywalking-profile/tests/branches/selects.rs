//! Requests that wait for the first of several things: that is what was waited for.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::{self, Either, select_all, select_ok};
use futures_util::{FutureExt, select_biased};
use skywalking_profile::InCurrentRequest;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio::{join, select};

use super::expect::{Clock, cancelled_span, shows, span};
use super::support::{FOREVER, ms};

const WINNER: [&str; 3] = ["_", "  winner : winner", "    tokio::time::sleep::Sleep : winner"];

async fn winner(clock: &Clock) {
    let _watch = clock.watch("winner", 40);
    sleep(ms(40)).await;
}

async fn loser() {
    sleep(FOREVER).await;
}

#[test]
fn a_loser_is_not_shown() {
    shows(selected, &WINNER, &[]);
    shows(selected_in_order, &WINNER, &[]);
    shows(selected_by_futures, &WINNER, &[]);
    shows(selected_in_order_by_futures, &WINNER, &[]);
    shows(selected_of_two, &WINNER, &[]);
    shows(selected_of_all, &WINNER, &[]);
    shows(selected_of_results, &WINNER, &[]);
    shows(raced, &WINNER, &[]);
    shows(selected_of_parts, &WINNER, &[]);
}

async fn selected(clock: Clock) {
    select! {
        () = loser() => unreachable!("it lost"),
        () = winner(&clock) => {}
    }
}

async fn selected_in_order(clock: Clock) {
    select! {
        biased;
        () = winner(&clock) => {}
        () = loser() => unreachable!("it lost"),
    }
}

async fn selected_by_futures(clock: Clock) {
    let (mut winner, mut loser) = (pin!(winner(&clock).fuse()), pin!(loser().fuse()));
    futures_util::select! {
        () = loser => unreachable!("it lost"),
        () = winner => {}
    }
}

async fn selected_in_order_by_futures(clock: Clock) {
    let (mut winner, mut loser) = (pin!(winner(&clock).fuse()), pin!(loser().fuse()));
    select_biased! {
        () = loser => unreachable!("it lost"),
        () = winner => {}
    }
}

async fn selected_of_two(clock: Clock) {
    future::select(loser().boxed(), winner(&clock).boxed()).await;
}

async fn selected_of_all(clock: Clock) {
    select_all([loser().boxed(), winner(&clock).boxed(), loser().boxed()]).await;
}

async fn selected_of_results(clock: Clock) {
    let results = [winner(&clock).map(Ok::<_, ()>).boxed(), loser().map(Ok).boxed()];
    select_ok(results).await.expect("the winner");
}

async fn raced(clock: Clock) {
    let mut racing = [loser().boxed(), winner(&clock).boxed()];
    poll_fn(|cx| {
        for future in &mut racing {
            if future.poll_unpin(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    })
    .await;
}

/// They are parts of the request in any case.
async fn selected_of_parts(clock: Clock) {
    select! {
        () = loser().in_current_request() => unreachable!("it lost"),
        () = winner(&clock).in_current_request() => {}
    }
}

#[test]
fn a_loser_that_is_awaited_later_is_shown_from_then_on() {
    let main = [
        "_",
        "  early : early",
        "    tokio::time::sleep::Sleep : early",
        "  late : rest",
        "    tokio::time::sleep::Sleep : rest",
    ];
    shows(awaited_later, &main, &[]);
    shows(awaited_after_work, &[&main[..3], &["  tokio::time::sleep::Sleep : work"], &main[3..]].concat(), &[]);
    shows(awaited_of_two, &main, &[]);
}

async fn early(clock: &Clock) {
    let _watch = clock.watch("early", 30);
    sleep(ms(30)).await;
}

async fn late() {
    sleep(ms(80)).await;
}

async fn awaited_later(clock: Clock) {
    let (mut early, mut late) = (pin!(early(&clock)), pin!(late()));
    select! {
        () = &mut early => {}
        () = &mut late => unreachable!("it is late"),
    }
    let _watch = clock.watch("rest", 50);
    late.await;
}

async fn awaited_after_work(clock: Clock) {
    let (mut early, mut late) = (pin!(early(&clock)), pin!(late()));
    select! {
        () = &mut early => {}
        () = &mut late => unreachable!("it is late"),
    }
    let watch = clock.watch("work", 20);
    sleep(ms(20)).await;
    drop(watch);
    let _watch = clock.watch("rest", 30);
    late.await;
}

async fn awaited_of_two(clock: Clock) {
    let Either::Left(((), late)) = future::select(early(&clock).boxed(), late().boxed()).await else {
        unreachable!("it is late")
    };
    let _watch = clock.watch("rest", 50);
    late.await;
}

#[test]
fn a_signal_to_stop_that_does_not_come_is_not_shown() {
    let main = [
        "_",
        "  tokio::sync::mpsc::bounded::Receiver::recv : messages",
        "  handle : handling",
        "    tokio::time::sleep::Sleep : handling",
    ];
    shows(handled_to_the_end, &main, &[]);
    shows(passed_over_to_the_end, &main[..2], &[]);
}

async fn handle(clock: &Clock) {
    let _watch = clock.watch("handling", 15);
    sleep(ms(15)).await;
}

/// Sends so many messages, then tells to stop.
fn messages(many: usize) -> (mpsc::Receiver<()>, Arc<Notify>) {
    let (sender, receiver) = mpsc::channel(1);
    let stop = Arc::new(Notify::new());
    let stopping = Arc::clone(&stop);
    tokio::spawn(async move {
        for _ in 0..many {
            sleep(ms(30)).await;
            // Nobody listens any more if the machine was slow.
            let _ = sender.send(()).await;
        }
        sleep(ms(45)).await;
        stopping.notify_one();
        sender.closed().await;
    });
    (receiver, stop)
}

async fn handled_to_the_end(clock: Clock) {
    let ((mut receiver, _stop), never) = (messages(3), Notify::new());
    let mut stopped = pin!(never.notified());
    for time in [30, 15, 15] {
        let watch = clock.watch("messages", time);
        select! {
            () = &mut stopped => unreachable!("nobody stops it"),
            message = receiver.recv() => message.expect("a sender"),
        }
        drop(watch);
        handle(&clock).await;
    }
}

async fn passed_over_to_the_end(clock: Clock) {
    let ((mut receiver, _stop), never) = (messages(3), Notify::new());
    let mut stopped = pin!(never.notified());
    for _ in 0..3 {
        let _watch = clock.watch("messages", 30);
        select! {
            () = &mut stopped => unreachable!("nobody stops it"),
            message = receiver.recv() => message.expect("a sender"),
        }
    }
}

#[test]
fn a_signal_to_stop_is_shown_from_the_last_message_on() {
    let main =
        ["_", "  tokio::sync::mpsc::bounded::Receiver::recv : messages", "  tokio::sync::notify::Notified : stopped"];
    shows(|clock| passed_over_until_stopped(clock, true), &main, &[]);
    shows(|clock| passed_over_until_stopped(clock, false), &main, &[]);
}

async fn passed_over_until_stopped(clock: Clock, stops_first: bool) {
    let (mut receiver, stop) = messages(1);
    let mut stopped = pin!(stop.notified());
    let mut watch = clock.watch("messages", 30);
    loop {
        if stops_first {
            select! {
                biased;
                () = &mut stopped => break,
                message = receiver.recv() => message.expect("a sender"),
            }
        } else {
            select! {
                biased;
                message = receiver.recv() => message.expect("a sender"),
                () = &mut stopped => break,
            }
        }
        drop(watch);
        watch = clock.watch("stopped", 45);
    }
}

#[test]
fn a_signal_to_stop_that_comes_after_work_is_shown_after_it() {
    let main = [
        "_",
        "  handled_until_stopped",
        "    tokio::sync::mpsc::bounded::Receiver::recv : messages",
        "    tokio::sync::notify::Notified : stopped",
        "  handle : handling",
        "    tokio::time::sleep::Sleep : handling",
    ];
    shows(handled_until_stopped, &main, &[]);
}

/// In another order each time, as it may be with `select!`.
async fn handled_until_stopped(clock: Clock) {
    let (mut receiver, stop) = messages(1);
    let mut stopped = pin!(async { stop.notified().await }.map(|()| true));
    let mut stops_first = true;
    loop {
        let watch = clock.watch(if stops_first { "messages" } else { "stopped" }, 30);
        let mut message = pin!(async { receiver.recv().await }.map(|_| false));
        let mut arms: [Pin<&mut (dyn Future<Output = bool> + Send)>; 2] = [stopped.as_mut(), message.as_mut()];
        if !stops_first {
            arms.reverse();
        }
        if select_all(arms).await.0 {
            break;
        }
        drop(watch);
        handle(&clock).await;
        stops_first = false;
    }
}

#[test]
fn a_join_in_a_select_shows_what_it_did_whether_it_wins_or_loses() {
    let short = ["_", "  short_and_loser", "    short : short", "      tokio::time::sleep::Sleep : short"];
    shows(losing_join, &WINNER, &[span("short_and_loser", "short", &short)]);
    let main = ["_", "  short_and_winner", "    winner : winner", "      tokio::time::sleep::Sleep : winner"];
    let short = ["_", "  short_and_winner", "    short : short", "      tokio::time::sleep::Sleep : short"];
    shows(winning_join, &main, &[span("short", "short", &short)]);
}

async fn short(clock: &Clock) {
    let _watch = clock.watch("short", 20);
    sleep(ms(20)).await;
}

async fn short_and_loser(clock: &Clock) {
    join!(short(clock), loser());
}

async fn losing_join(clock: Clock) {
    select! {
        () = short_and_loser(&clock) => unreachable!("it lost"),
        () = winner(&clock) => {}
    }
}

async fn short_and_winner(clock: &Clock) {
    join!(short(clock), winner(clock));
}

async fn winning_join(clock: Clock) {
    select! {
        () = short_and_winner(&clock) => {}
        () = loser() => unreachable!("it lost"),
    }
}

#[test]
fn a_select_in_a_join_is_one_of_its_arms() {
    let main = ["_", "  winner_or_loser", "    winner : winner", "      tokio::time::sleep::Sleep : winner"];
    let short = ["_", "  short : short", "    tokio::time::sleep::Sleep : short"];
    shows(long_select_in_join, &main, &[span("short", "short", &short)]);
    let short = ["_", "  short_or_loser", "    short : short", "      tokio::time::sleep::Sleep : short"];
    shows(short_select_in_join, &WINNER, &[span("short_or_loser", "short", &short)]);
}

async fn winner_or_loser(clock: &Clock) {
    select! {
        () = winner(clock) => {}
        () = loser() => unreachable!("it lost"),
    }
}

async fn long_select_in_join(clock: Clock) {
    join!(winner_or_loser(&clock), short(&clock));
}

async fn short_or_loser(clock: &Clock) {
    select! {
        () = short(clock) => {}
        () = loser() => unreachable!("it lost"),
    }
}

async fn short_select_in_join(clock: Clock) {
    join!(short_or_loser(&clock), winner(&clock));
}

#[test]
fn a_winner_of_several_steps_is_shown_from_the_start() {
    let main =
        ["_", "  steps : steps", "    tokio::time::sleep::Sleep : step 1", "    tokio::time::sleep::Sleep : step 2"];
    shows(winner_of_steps, &main, &[]);
}

async fn steps(clock: &Clock) {
    let _watch = clock.watch("steps", 50);
    let step = clock.watch("step 1", 20);
    sleep(ms(20)).await;
    drop(step);
    let _watch = clock.watch("step 2", 30);
    sleep(ms(30)).await;
}

async fn winner_of_steps(clock: Clock) {
    select! {
        () = steps(&clock) => {}
        () = loser() => unreachable!("it lost"),
    }
}

#[test]
fn a_loser_that_came_some_way_is_a_cancelled_span() {
    let steps = [
        "_ : winner",
        "  came_some_way : winner",
        "    tokio::time::sleep::Sleep : step",
        "    tokio::time::sleep::Sleep : lost",
    ];
    shows(loser_of_steps, &WINNER, &[cancelled_span("came_some_way", "winner", &steps)]);
}

async fn loser_of_steps(clock: Clock) {
    select! {
        () = winner(&clock) => {}
        () = came_some_way(&clock) => unreachable!("it lost"),
    }
}

async fn came_some_way(clock: &Clock) {
    let watch = clock.watch("step", 20);
    sleep(ms(20)).await;
    drop(watch);
    let _watch = clock.watch("lost", 20);
    sleep(FOREVER).await;
}
