//! Leaves that keep their waker though nobody awaits them any more: what is shown is what the request awaits.

mod support;

use std::any::type_name_of_val;
use std::future::{Future, poll_fn};
use std::io;
use std::net;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use futures_util::future::{BoxFuture, Either, join_all, ready};
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use support::{FOREVER, Times, block_on, ms, on_one_thread, on_workers, profile_each, profile_undisturbed};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};
use tokio::time::{interval_at, sleep, timeout};
use tokio::{join, select};

#[test]
fn after_a_read_that_lost_work_is_what_is_awaited() {
    shows(work_after_a_read, &["tokio::time::sleep::Sleep", "stale_leaves::work", "  tokio::time::sleep::Sleep"]);
}

async fn work_after_a_read() -> Times {
    let start = Instant::now();
    let (mut stream, _peer) = connected();
    select! {
        biased;
        read = stream.read_u8() => panic!("read {read:?}"),
        () = sleep(ms(10)) => {}
    }
    [work().await, vec![("stale_leaves::work_after_a_read", start.elapsed())]].concat()
}

#[test]
fn data_for_a_read_that_lost_does_not_show_the_read() {
    shows(
        work_while_data_comes,
        &["tokio::time::sleep::Sleep", "stale_leaves::interrupted_work", "  tokio::sync::oneshot::Receiver"],
    );
}

async fn work_while_data_comes() -> Times {
    let start = Instant::now();
    let (mut stream, mut peer) = connected();
    select! {
        biased;
        read = stream.read_u8() => panic!("read {read:?}"),
        () = sleep(ms(10)) => {}
    }
    let selected = vec![("tokio::time::sleep::Sleep", start.elapsed())];
    let worked = interrupted_work(move || net_write(&mut peer)).await;
    assert_eq!(stream.read_u8().await.expect("data"), b'x');
    [selected, worked].concat()
}

#[test]
fn data_for_a_read_that_lost_in_another_function_does_not_show_the_read() {
    shows(
        work_while_data_comes_elsewhere,
        &[
            "stale_leaves::read_or_give_up",
            "  tokio::time::sleep::Sleep",
            "stale_leaves::interrupted_work",
            "  tokio::sync::oneshot::Receiver",
        ],
    );
}

async fn work_while_data_comes_elsewhere() -> Times {
    let (mut stream, mut peer) = connected();
    [read_or_give_up(&mut stream).await, interrupted_work(move || net_write(&mut peer)).await].concat()
}

async fn read_or_give_up(stream: &mut TcpStream) -> Times {
    let start = Instant::now();
    select! {
        biased;
        read = stream.read_u8() => panic!("read {read:?}"),
        () = sleep(ms(10)) => {}
    }
    vec![("stale_leaves::read_or_give_up", start.elapsed())]
}

#[test]
fn a_read_that_wins_is_what_was_awaited() {
    shows(read_in_time, &["tokio::io::util::read::Read"]);
}

async fn read_in_time() -> Times {
    let start = Instant::now();
    let (mut stream, mut peer) = connected();
    let mut buffer = [0; 8];
    let sending = thread::spawn(move || {
        thread::sleep(ms(20));
        net_write(&mut peer);
        peer
    });
    select! {
        biased;
        read = stream.read(&mut buffer) => assert_eq!(read.expect("data"), 1),
        () = sleep(FOREVER) => panic!("no data"),
    }
    let took = start.elapsed();
    sending.join().expect("no panic");
    vec![("tokio::io::util::read::Read", took)]
}

#[test]
fn after_a_read_of_a_pipe_that_lost_work_is_what_is_awaited() {
    shows(work_after_a_pipe, &["tokio::time::sleep::Sleep", "stale_leaves::work", "  tokio::time::sleep::Sleep"]);
}

async fn work_after_a_pipe() -> Times {
    let start = Instant::now();
    let (mut pipe, _peer) = duplex(8);
    select! {
        biased;
        read = pipe.read_u8() => panic!("read {read:?}"),
        () = sleep(ms(10)) => {}
    }
    [work().await, vec![("stale_leaves::work_after_a_pipe", start.elapsed())]].concat()
}

#[test]
fn data_for_a_read_of_a_pipe_that_lost_does_not_show_the_read() {
    shows(
        work_while_a_pipe_fills,
        &["tokio::time::sleep::Sleep", "stale_leaves::interrupted_work", "  tokio::sync::oneshot::Receiver"],
    );
}

async fn work_while_a_pipe_fills() -> Times {
    let start = Instant::now();
    let (mut pipe, mut peer) = duplex(8);
    select! {
        biased;
        read = pipe.read_u8() => panic!("read {read:?}"),
        () = sleep(ms(10)) => {}
    }
    let selected = vec![("tokio::time::sleep::Sleep", start.elapsed())];
    let worked = interrupted_work(move || block_on(peer.write_all(b"x")).expect("a reader")).await;
    [selected, worked].concat()
}

#[test]
fn a_message_for_a_receiver_that_lost_does_not_show_the_receiver() {
    shows(
        work_while_a_message_comes,
        &["tokio::time::sleep::Sleep", "stale_leaves::interrupted_work", "  tokio::sync::oneshot::Receiver"],
    );
}

async fn work_while_a_message_comes() -> Times {
    let start = Instant::now();
    let (sender, mut messages) = mpsc::channel(1);
    select! {
        biased;
        message = messages.recv() => panic!("received {message:?}"),
        () = sleep(ms(10)) => {}
    }
    let selected = vec![("tokio::time::sleep::Sleep", start.elapsed())];
    [selected, interrupted_work(move || sender.try_send(()).expect("room")).await].concat()
}

#[test]
fn an_answer_that_is_kept_for_later_is_not_shown() {
    shows(
        work_while_an_answer_comes,
        &["tokio::time::sleep::Sleep", "stale_leaves::interrupted_work", "  tokio::sync::oneshot::Receiver"],
    );
}

async fn work_while_an_answer_comes() -> Times {
    let start = Instant::now();
    let (sender, mut receiver) = oneshot::channel();
    select! {
        biased;
        answer = &mut receiver => panic!("received {answer:?}"),
        () = sleep(ms(10)) => {}
    }
    let selected = vec![("tokio::time::sleep::Sleep", start.elapsed())];
    let worked = interrupted_work(move || sender.send(()).expect("a receiver")).await;
    receiver.await.expect("an answer");
    [selected, worked].concat()
}

#[test]
fn a_task_that_is_joined_later_is_not_shown() {
    shows(
        work_while_a_task_ends,
        &["tokio::time::sleep::Sleep", "stale_leaves::interrupted_work", "  tokio::sync::oneshot::Receiver"],
    );
}

async fn work_while_a_task_ends() -> Times {
    let start = Instant::now();
    let (end, ended) = oneshot::channel();
    let mut task = tokio::spawn(ended);
    select! {
        biased;
        ended = &mut task => panic!("ended {ended:?}"),
        () = sleep(ms(10)) => {}
    }
    let selected = vec![("tokio::time::sleep::Sleep", start.elapsed())];
    let worked = interrupted_work(move || end.send(()).expect("a task")).await;
    task.await.expect("no panic").expect("told to end");
    [selected, worked].concat()
}

#[test]
fn a_signal_to_stop_is_not_shown_during_the_work_that_a_message_began() {
    shows(
        work_until_stopped,
        &[
            "tokio::sync::mpsc::bounded::Receiver::recv",
            "stale_leaves::interrupted_work",
            "  tokio::sync::oneshot::Receiver",
        ],
    );
}

async fn work_until_stopped() -> Times {
    let start = Instant::now();
    let mut times = Times::new();
    let (sender, mut messages) = mpsc::channel(1);
    soon(move || {
        sender.try_send(()).expect("room");
        sender
    });
    let stop = Arc::new(Notify::new());
    let mut stopped = pin!(stop.notified());
    loop {
        select! {
            biased;
            () = &mut stopped => return times,
            message = messages.recv() => {
                message.expect("a message");
                times.push(("tokio::sync::mpsc::bounded::Receiver::recv", start.elapsed()));
                let stop = Arc::clone(&stop);
                times.extend(interrupted_work(move || stop.notify_waiters()).await);
            }
        }
    }
}

#[test]
fn work_per_message_is_not_the_ticks_that_come_meanwhile() {
    for (tree, times) in profile_each(work_per_message, [on_workers, on_one_thread]) {
        tree.agrees_with(&times);
        let work: Vec<_> =
            times.iter().filter(|(name, _)| *name == "stale_leaves::work").map(|(_, took)| *took).collect();
        assert_eq!(work.len(), 3);
        tree.took_together(
            &["tokio::sync::mpsc::bounded::Receiver::recv", "tokio::time::interval::Interval::tick"],
            times.last().expect("the whole").1 - work.iter().sum(),
        );
    }
}

async fn work_per_message() -> Times {
    let start = Instant::now();
    let mut times = Times::new();
    let (sender, mut messages) = mpsc::channel(1);
    thread::spawn(move || {
        for _ in 0..3 {
            thread::sleep(ms(40));
            sender.blocking_send(()).expect("a receiver");
        }
        thread::sleep(ms(40));
    });
    let mut ticks = interval_at(tokio::time::Instant::now() + ms(25), ms(25));
    loop {
        select! {
            // First, so that it has registered when a message is there; and the work is longer than the period.
            biased;
            _ = ticks.tick() => {}
            message = messages.recv() => match message {
                Some(()) => times.extend(work().await),
                None => break,
            }
        }
    }
    [times, vec![("stale_leaves::work_per_message", start.elapsed())]].concat()
}

#[test]
fn work_per_tick_is_not_the_messages_that_come_meanwhile() {
    shows(
        work_per_tick,
        &[
            "tokio::time::interval::Interval::tick",
            "stale_leaves::interrupted_work",
            "  tokio::sync::oneshot::Receiver",
        ],
    );
}

async fn work_per_tick() -> Times {
    let start = Instant::now();
    let (sender, mut messages) = mpsc::channel(1);
    let mut ticks = interval_at(tokio::time::Instant::now() + ms(20), ms(20));
    select! {
        biased;
        message = messages.recv() => panic!("received {message:?}"),
        _ = ticks.tick() => {
            let ticked = vec![("tokio::time::interval::Interval::tick", start.elapsed())];
            [ticked, interrupted_work(move || sender.try_send(()).expect("room")).await].concat()
        }
    }
}

#[test]
fn the_next_tick_of_an_interval_is_not_shown_during_the_work_after_one() {
    shows(
        work_after_a_tick,
        &["tokio::time::interval::Interval::tick", "stale_leaves::work", "  tokio::time::sleep::Sleep"],
    );
}

async fn work_after_a_tick() -> Times {
    let start = Instant::now();
    // The work is longer than the period.
    let mut ticks = interval_at(tokio::time::Instant::now() + ms(20), ms(20));
    ticks.tick().await;
    let ticked = vec![("tokio::time::interval::Interval::tick", start.elapsed())];
    [ticked, work().await].concat()
}

#[test]
fn a_timer_that_has_fired_is_not_shown_during_work() {
    shows(
        work_after_a_pinned_timer,
        &["tokio::time::sleep::Sleep", "stale_leaves::work", "  tokio::time::sleep::Sleep"],
    );
}

async fn work_after_a_pinned_timer() -> Times {
    let start = Instant::now();
    let mut timer = pin!(sleep(ms(10)));
    timer.as_mut().await;
    [work().await, vec![("stale_leaves::work_after_a_pinned_timer", start.elapsed())]].concat()
}

#[test]
fn a_timer_that_was_set_again_is_not_shown_during_work() {
    shows(
        work_after_a_timer_set_again,
        &["tokio::time::sleep::Sleep", "stale_leaves::interrupted_work", "  tokio::sync::oneshot::Receiver"],
    );
}

async fn work_after_a_timer_set_again() -> Times {
    let start = Instant::now();
    let mut timer = pin!(sleep(ms(10)));
    timer.as_mut().await;
    let slept = vec![("tokio::time::sleep::Sleep", start.elapsed())];
    timer.as_mut().reset(tokio::time::Instant::now() + ms(100));
    // The timer interrupts it.
    [slept, interrupted_work(|| {}).await].concat()
}

#[test]
fn the_timer_of_a_timeout_that_was_not_needed_is_not_shown() {
    shows(
        work_after_a_timeout,
        &[
            "stale_leaves::sleep_for",
            "  tokio::time::sleep::Sleep",
            "stale_leaves::work",
            "  tokio::time::sleep::Sleep",
        ],
    );
}

async fn work_after_a_timeout() -> Times {
    let start = Instant::now();
    // The work is longer than that.
    let slept = timeout(ms(20), sleep_for(10)).await.expect("in time");
    [slept, work().await, vec![("stale_leaves::work_after_a_timeout", start.elapsed())]].concat()
}

#[test]
fn the_timer_of_a_timeout_that_is_kept_is_not_shown() {
    shows(
        work_after_a_pinned_timeout,
        &[
            "stale_leaves::sleep_for",
            "  tokio::time::sleep::Sleep",
            "stale_leaves::interrupted_work",
            "  tokio::sync::oneshot::Receiver",
        ],
    );
}

async fn work_after_a_pinned_timeout() -> Times {
    let mut slept = pin!(timeout(ms(100), sleep_for(10)));
    // The timeout interrupts it.
    [slept.as_mut().await.expect("in time"), interrupted_work(|| {}).await].concat()
}

#[test]
fn a_lock_that_was_given_up_is_not_shown_during_work() {
    shows(work_after_a_lock, &["tokio::time::sleep::Sleep", "stale_leaves::work", "  tokio::time::sleep::Sleep"]);
}

async fn work_after_a_lock() -> Times {
    let start = Instant::now();
    let mutex = Arc::new(Mutex::new(()));
    let guard = Arc::clone(&mutex).try_lock_owned().expect("nobody else");
    select! {
        biased;
        _ = mutex.lock() => panic!("locked twice"),
        () = sleep(ms(10)) => {}
    }
    soon(move || drop(guard));
    [work().await, vec![("stale_leaves::work_after_a_lock", start.elapsed())]].concat()
}

#[test]
fn a_notification_that_was_given_up_is_not_shown_during_work() {
    shows(
        work_after_a_notification,
        &["tokio::time::sleep::Sleep", "stale_leaves::work", "  tokio::time::sleep::Sleep"],
    );
}

async fn work_after_a_notification() -> Times {
    let start = Instant::now();
    let notify = Arc::new(Notify::new());
    select! {
        biased;
        () = notify.notified() => panic!("notified"),
        () = sleep(ms(10)) => {}
    }
    soon(move || notify.notify_waiters());
    [work().await, vec![("stale_leaves::work_after_a_notification", start.elapsed())]].concat()
}

#[test]
fn of_futures_in_no_order_the_set_is_what_is_awaited() {
    shows(unordered, &["futures_util::stream::stream::next::Next"]);
}

async fn unordered() -> Times {
    let start = Instant::now();
    let mut set: FuturesUnordered<_> = [10, 30, 20].map(sleep_for).into_iter().collect();
    while set.next().await.is_some() {}
    vec![("futures_util::stream::stream::next::Next", start.elapsed())]
}

#[test]
fn a_future_that_goes_on_in_a_set_is_not_shown_during_work() {
    shows(
        work_after_the_first,
        &[
            "futures_util::stream::stream::next::Next",
            "stale_leaves::interrupted_work",
            "  tokio::sync::oneshot::Receiver",
        ],
    );
}

async fn work_after_the_first() -> Times {
    let start = Instant::now();
    let (sender, receiver) = oneshot::channel();
    let mut set: FuturesUnordered<_> = [sleep(ms(10)).boxed(), receiver.map(drop).boxed()].into_iter().collect();
    set.next().await.expect("the timer");
    let waited = vec![("futures_util::stream::stream::next::Next", start.elapsed())];
    [waited, interrupted_work(move || sender.send(()).expect("a receiver")).await].concat()
}

#[test]
fn of_a_join_the_arm_that_ends_last_is_shown() {
    for joined in [|| joined().boxed(), || joined_the_other_way_round().boxed()] {
        for (tree, times) in profile_each(joined, [on_workers, on_one_thread]) {
            let [(_, whole), (_, first), _] = times[..] else { panic!("{times:?}") };
            tree.lasted(whole);
            tree.took("stale_leaves::sleep_for", whole);
            tree.span_took("sleep_briefly", first);
        }
    }
}

async fn joined() -> Times {
    let start = Instant::now();
    let (first, second) = join!(sleep_briefly(), sleep_for(60));
    [vec![("stale_leaves::joined", start.elapsed())], first, second].concat()
}

async fn joined_the_other_way_round() -> Times {
    let start = Instant::now();
    let (second, first) = join!(sleep_for(60), sleep_briefly());
    [vec![("stale_leaves::joined_the_other_way_round", start.elapsed())], first, second].concat()
}

#[test]
fn a_join_after_a_read_that_lost_is_shown_as_ever() {
    for (tree, times) in profile_each(join_after_a_read, [on_workers, on_one_thread]) {
        tree.has_shape(&[
            "GET:/",
            "  stale_leaves::join_after_a_read",
            "    stale_leaves::read_or_give_up",
            "      tokio::time::sleep::Sleep",
            "    stale_leaves::joined",
            "      stale_leaves::sleep_for",
            "        tokio::time::sleep::Sleep",
        ]);
        let (briefly, others) = times.split_at(1);
        tree.agrees_with(&others.to_vec());
        tree.has_spans(&["sleep_briefly"]);
        tree.span("sleep_briefly").agrees_with(&briefly.to_vec());
    }
}

/// The brief sleep first.
async fn join_after_a_read() -> Times {
    let (mut stream, _peer) = connected();
    let given_up = read_or_give_up(&mut stream).await;
    let joined = joined().await;
    [&joined[1..], &given_up, &joined[..1]].concat()
}

#[test]
fn of_identical_arms_of_a_join_the_last_is_shown() {
    shows(all_joined, &["stale_leaves::sleep_for", "  tokio::time::sleep::Sleep"]);
}

async fn all_joined() -> Times {
    let start = Instant::now();
    join_all([10, 30, 20].map(sleep_for)).await;
    vec![("stale_leaves::sleep_for", start.elapsed())]
}

#[test]
fn within_an_arm_of_a_join_a_read_that_lost_is_not_shown() {
    for (tree, times) in profile_each(work_in_an_arm, [on_workers, on_one_thread]) {
        tree.has_shape(&[
            "GET:/",
            "  stale_leaves::work_in_an_arm",
            "    stale_leaves::sleep_for",
            "      tokio::time::sleep::Sleep",
        ]);
        tree.took("stale_leaves::sleep_for", times[0].1);
        tree.has_spans(&["read_then_work"]);
        let arm = tree.span("read_then_work");
        arm.has_shape(&[
            "GET:/",
            "  stale_leaves::work_in_an_arm",
            "    stale_leaves::read_then_work",
            "      stale_leaves::read_or_give_up",
            "        tokio::time::sleep::Sleep",
            "      stale_leaves::work",
            "        tokio::time::sleep::Sleep",
        ]);
        arm.agrees_with(&times[1..].to_vec());
    }
}

async fn work_in_an_arm() -> Times {
    let start = Instant::now();
    let (mut stream, _peer) = connected();
    let (times, _) = join!(read_then_work(&mut stream), sleep_for(100));
    [vec![("stale_leaves::work_in_an_arm", start.elapsed())], times].concat()
}

async fn read_then_work(stream: &mut TcpStream) -> Times {
    let start = Instant::now();
    let times = [read_or_give_up(stream).await, work().await].concat();
    [vec![("stale_leaves::read_then_work", start.elapsed())], times].concat()
}

#[test]
fn within_an_arm_of_a_join_data_for_a_read_that_lost_does_not_show_the_read() {
    for handler in [|| interrupted_work_in_an_arm().boxed(), || boxed_work_in_an_arm().boxed()] {
        for (tree, times) in profile_each(handler, [on_workers, on_one_thread]) {
            tree.took("stale_leaves::sleep_for", times[0].1);
            let arm = tree.span_with("stale_leaves::interrupted_work");
            arm.agrees_with(&times[1..].to_vec());
            for tree in [tree, arm] {
                tree.has_no("tokio::io::util::read_int::ReadU8");
            }
        }
    }
}

async fn interrupted_work_in_an_arm() -> Times {
    let start = Instant::now();
    let (times, _) = join!(read_then_interrupted_work(), sleep_for(100));
    [vec![("stale_leaves::interrupted_work_in_an_arm", start.elapsed())], times].concat()
}

async fn boxed_work_in_an_arm() -> Times {
    let start = Instant::now();
    let (times, _) = join!(boxed_in_a_loop(), sleep_for(100));
    vec![("stale_leaves::boxed_work_in_an_arm", start.elapsed()), times[0]]
}

async fn read_then_interrupted_work() -> Times {
    let (mut stream, mut peer) = connected();
    let times = read_or_give_up(&mut stream).await;
    interrupted_work(move || net_write(&mut peer)).await;
    times
}

#[test]
fn a_read_that_lost_in_a_future_before_is_not_shown() {
    shows(boxed_in_a_loop, &READ_THEN_WORK);
    shows(mapped_in_a_loop, &READ_THEN_WORK);
    shows(either_in_a_loop, &READ_THEN_WORK);
    shows(caught_in_a_loop, &READ_THEN_WORK);
    shows(from_one_macro, &READ_THEN_WORK);
    shows(chained, &READ_THEN_WORK);
}

const READ_THEN_WORK: [&str; 4] = [
    "stale_leaves::read_or_give_up",
    "  tokio::time::sleep::Sleep",
    "stale_leaves::interrupted_work",
    "  tokio::sync::oneshot::Receiver",
];

async fn boxed_in_a_loop() -> Times {
    let (mut stream, peer) = connected();
    let mut times = Times::new();
    for step in boxed_steps(&mut stream, peer) {
        times.extend(step.await);
    }
    times
}

async fn mapped_in_a_loop() -> Times {
    let (mut stream, peer) = connected();
    let mut times = Times::new();
    for step in boxed_steps(&mut stream, peer) {
        step.map(|measured| times.extend(measured)).await;
    }
    times
}

async fn either_in_a_loop() -> Times {
    let (mut stream, mut peer) = connected();
    let steps =
        [Either::Left(read_or_give_up(&mut stream)), Either::Right(interrupted_work(move || net_write(&mut peer)))];
    let mut times = Times::new();
    for step in steps {
        times.extend(step.await);
    }
    times
}

async fn caught_in_a_loop() -> Times {
    let (mut stream, peer) = connected();
    let mut times = Times::new();
    for step in boxed_steps(&mut stream, peer) {
        times.extend(AssertUnwindSafe(step).catch_unwind().await.expect("no panic"));
    }
    times
}

/// Two awaits at one place of the source.
async fn from_one_macro() -> Times {
    macro_rules! all {
        ($($step:expr),*) => { [$($step.await),*].concat() };
    }
    let (mut stream, peer) = connected();
    let [read, work] = boxed_steps(&mut stream, peer);
    all![read, work]
}

async fn chained() -> Times {
    let (mut stream, mut peer) = connected();
    let work = |read| interrupted_work(move || net_write(&mut peer)).map(|worked| [read, worked].concat());
    read_or_give_up(&mut stream).then(work).await
}

fn boxed_steps(stream: &mut TcpStream, mut peer: net::TcpStream) -> [BoxFuture<'_, Times>; 2] {
    [read_or_give_up(stream).boxed(), interrupted_work(move || net_write(&mut peer)).boxed()]
}

#[test]
fn a_read_that_lost_in_an_item_of_a_stream_before_is_not_shown() {
    shows(then_of_a_stream, &READ_THEN_WORK);
    shows(then_of_a_stream_of_tokio, &READ_THEN_WORK);
    shows(each_of_a_stream, &READ_THEN_WORK);
    shows(each_result_of_a_stream, &READ_THEN_WORK);
    shows(unfolded, &in_each("stale_leaves::unfold"));
}

async fn then_of_a_stream() -> Times {
    let (mut stream, peer) = connected();
    let mut steps = pin!(stream::iter(boxed_steps(&mut stream, peer)).then(|step| step));
    let mut times = Times::new();
    while let Some(measured) = steps.next().await {
        times.extend(measured);
    }
    times
}

async fn then_of_a_stream_of_tokio() -> Times {
    let (mut stream, peer) = connected();
    let steps = tokio_stream::iter(boxed_steps(&mut stream, peer));
    let mut steps = pin!(tokio_stream::StreamExt::then(steps, |step| step));
    let mut times = Times::new();
    while let Some(measured) = tokio_stream::StreamExt::next(&mut steps).await {
        times.extend(measured);
    }
    times
}

async fn each_of_a_stream() -> Times {
    let (mut stream, peer) = connected();
    let mut times = Times::new();
    stream::iter(boxed_steps(&mut stream, peer))
        .filter_map(|step| step.map(Some))
        .for_each(|measured| {
            times.extend(measured);
            ready(())
        })
        .await;
    times
}

async fn each_result_of_a_stream() -> Times {
    let (mut stream, peer) = connected();
    let steps = stream::iter(boxed_steps(&mut stream, peer).map(Ok::<_, ()>));
    steps.and_then(|step| step.map(Ok)).try_collect::<Vec<_>>().await.expect("no error").concat()
}

async fn unfolded() -> Times {
    let (stream, peer) = connected();
    stream::unfold((stream, Some(peer), false), unfold).concat().await
}

type Unfolding = (TcpStream, Option<net::TcpStream>, bool);

/// The read first.
async fn unfold((mut stream, mut peer, has_read): Unfolding) -> Option<(Times, Unfolding)> {
    let times = if has_read {
        let mut peer = peer.take()?;
        interrupted_work(move || net_write(&mut peer)).await
    } else {
        read_or_give_up(&mut stream).await
    };
    Some((times, (stream, peer, true)))
}

#[test]
fn a_read_that_lost_below_the_same_function_is_not_shown() {
    shows(a_generic_function_twice, &in_each("stale_leaves::awaited"));
    shows(
        async_closures,
        &[
            "stale_leaves::called",
            "  stale_leaves::async_closures",
            "    stale_leaves::read_or_give_up",
            "      tokio::time::sleep::Sleep",
            "    stale_leaves::interrupted_work",
            "      tokio::sync::oneshot::Receiver",
        ],
    );
    shows(
        methods_of_a_trait,
        &[
            "stale_leaves::Reading::run",
            "  stale_leaves::read_or_give_up",
            "    tokio::time::sleep::Sleep",
            "stale_leaves::Working::run",
            "  stale_leaves::interrupted_work",
            "    tokio::sync::oneshot::Receiver",
        ],
    );
    shows(
        recursion,
        &[
            "stale_leaves::descend",
            "  stale_leaves::descend",
            "    stale_leaves::read_or_give_up",
            "      tokio::time::sleep::Sleep",
            "  stale_leaves::interrupted_work",
            "    tokio::sync::oneshot::Receiver",
        ],
    );
}

/// The read and the work below one node.
fn in_each(function: &str) -> [&str; 5] {
    [
        function,
        "  stale_leaves::read_or_give_up",
        "    tokio::time::sleep::Sleep",
        "  stale_leaves::interrupted_work",
        "    tokio::sync::oneshot::Receiver",
    ]
}

async fn a_generic_function_twice() -> Times {
    let (mut stream, mut peer) = connected();
    let (read, work) = (read_or_give_up(&mut stream), interrupted_work(move || net_write(&mut peer)));
    [awaited(read).await, awaited(work).await].concat()
}

async fn awaited<F: Future>(future: F) -> F::Output {
    future.await
}

async fn async_closures() -> Times {
    let (mut stream, mut peer) = connected();
    let read = async || read_or_give_up(&mut stream).await;
    let work = async move || interrupted_work(move || net_write(&mut peer)).await;
    [called(read).await, called(work).await].concat()
}

async fn called(closure: impl AsyncFnOnce() -> Times) -> Times {
    closure().await
}

async fn methods_of_a_trait() -> Times {
    let (stream, peer) = connected();
    let mut steps: [Box<dyn Step>; 2] = [Box::new(Reading(stream)), Box::new(Working(Some(peer)))];
    let mut times = Times::new();
    for step in &mut steps {
        times.extend(step.run().await);
    }
    times
}

/// Its futures are boxed, as `async_trait` does it.
trait Step: Send {
    fn run(&mut self) -> BoxFuture<'_, Times>;
}

struct Reading(TcpStream);

impl Step for Reading {
    fn run(&mut self) -> BoxFuture<'_, Times> {
        Box::pin(async move { read_or_give_up(&mut self.0).await })
    }
}

struct Working(Option<net::TcpStream>);

impl Step for Working {
    fn run(&mut self) -> BoxFuture<'_, Times> {
        Box::pin(async move {
            let mut peer = self.0.take().expect("one run");
            interrupted_work(move || net_write(&mut peer)).await
        })
    }
}

async fn recursion() -> Times {
    let (mut stream, peer) = connected();
    descend(1, &mut stream, peer).await
}

fn descend(levels: u8, stream: &mut TcpStream, mut peer: net::TcpStream) -> BoxFuture<'_, Times> {
    Box::pin(async move {
        if levels == 0 {
            return read_or_give_up(stream).await;
        }
        let other = peer.try_clone().expect("a socket");
        [descend(levels - 1, stream, other).await, interrupted_work(move || net_write(&mut peer)).await].concat()
    })
}

/// Whoever polls the request: its tree has this below the handler, and each function's time is what it measured.
#[track_caller]
fn shows<F: Future<Output = Times> + Send + 'static>(handler: impl Fn() -> F + Copy + Send + 'static, below: &[&str]) {
    let handler_itself = format!("  {}", type_name_of_val(&handler));
    let below: Vec<_> = below.iter().map(|line| format!("    {line}")).collect();
    let shape: Vec<_> = ["GET:/", &handler_itself].into_iter().chain(below.iter().map(String::as_str)).collect();
    for (tree, times) in profile_undisturbed(handler, [on_workers, on_one_thread]) {
        tree.has_shape(&shape);
        tree.agrees_with(&times);
    }
}

async fn work() -> Times {
    let start = Instant::now();
    sleep(ms(30)).await;
    vec![("stale_leaves::work", start.elapsed())]
}

/// Work that is polled once before its end, since what `happens` in the middle wakes the request: that, or what comes by
/// itself.
async fn interrupted_work(happens: impl FnOnce() + Send + 'static) -> Times {
    let start = Instant::now();
    let (polled, polls) = channel();
    let (end, mut ended) = oneshot::channel();
    thread::spawn(move || {
        polls.recv().expect("a first poll");
        thread::sleep(ms(15));
        happens();
        polls.recv_timeout(FOREVER).expect("what is not awaited wakes the request nevertheless");
        thread::sleep(ms(15));
        end.send(()).expect("the work goes on");
    });
    poll_fn(|cx| {
        // At its end nobody listens any more.
        let _ = polled.send(());
        Pin::new(&mut ended).poll(cx)
    })
    .await
    .expect("an end");
    vec![("stale_leaves::interrupted_work", start.elapsed())]
}

async fn sleep_for(duration: u64) -> Times {
    let start = Instant::now();
    sleep(ms(duration)).await;
    vec![("stale_leaves::sleep_for", start.elapsed())]
}

async fn sleep_briefly() -> Times {
    let start = Instant::now();
    sleep(ms(10)).await;
    vec![("stale_leaves::sleep_briefly", start.elapsed())]
}

/// A connection, made without waiting.
fn connected() -> (TcpStream, net::TcpStream) {
    let listener = net::TcpListener::bind((net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let stream = net::TcpStream::connect(listener.local_addr().expect("bound")).expect("a listener");
    stream.set_nonblocking(true).expect("a socket");
    let (peer, _) = listener.accept().expect("a connection");
    (TcpStream::from_std(stream).expect("a runtime"), peer)
}

fn net_write(peer: &mut net::TcpStream) {
    io::Write::write_all(peer, b"x").expect("a connection");
}

/// Something that happens while the request works.
fn soon<T>(happens: impl FnOnce() -> T + Send + 'static) {
    thread::spawn(move || {
        thread::sleep(ms(20));
        drop(happens());
    });
}
