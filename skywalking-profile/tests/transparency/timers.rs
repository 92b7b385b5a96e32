//! Requests that wait for a while, or no longer than that.

use std::future::pending;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tokio::{join, select};

use super::compare::is_unnoticed;
use super::run::Run;
use super::support::ms;

#[test]
fn timers() {
    is_unnoticed("sleeps", 0, sleeps);
    is_unnoticed("join! of sleeps", 1, joined_sleeps);
    is_unnoticed("interval", 4, ticks);
    is_unnoticed("timeout", 2, timeouts);
    is_unnoticed("timeout that fires", 1, fires);
    is_unnoticed("timeout of a join", 3, join_in_timeout);
    is_unnoticed("timeout of timeouts", 3, timeout_in_timeout);
    is_unnoticed("messages between ticks", 0, messages_between_ticks);
}

async fn sleeps(run: Run) {
    let twice = async || {
        run.watch("sleep", sleep(ms(10))).await;
        run.watch("sleep", sleep(ms(10))).await;
    };
    twice().await;
    run.watch("sleep", sleep(ms(10))).await;
    twice().await;
}

async fn joined_sleeps(run: Run) {
    join!(run.watch("sleep", sleep(ms(10))), sleeps(run.clone()), run.watch("sleep", sleep(ms(25))), run.gate(0));
}

async fn ticks(run: Run) -> (usize, usize) {
    let (mut ticks, mut gates) = (interval(ms(3)), (0..4).map(|gate| run.gate(gate)).collect::<Vec<_>>());
    let (mut ticked, mut sum) = (0, 0);
    while let Some(gate) = gates.last_mut() {
        select! {
            biased;
            gate = gate => {
                sum += gate;
                gates.pop();
            }
            _ = run.watch("tick", ticks.tick()) => ticked += 1,
        }
    }
    (ticked, sum)
}

async fn timeouts(run: Run) -> (Option<usize>, Option<usize>) {
    let in_time = timeout(ms(1_000), run.gate(0)).await;
    (in_time.ok(), timeout(ms(5), run.gate(1)).await.ok())
}

async fn fires(run: Run) -> (bool, usize) {
    let never = run.watch("never", pending::<()>());
    (timeout(ms(10), never).await.is_err(), run.gate(0).await)
}

async fn join_in_timeout(run: Run) -> Option<usize> {
    let joined = async { join!(run.gate(0), run.gate(1), run.part(run.gate(2))) };
    timeout(ms(10), joined).map(|joined| joined.ok().map(|(zero, one, two)| zero + one + two)).await
}

async fn timeout_in_timeout(run: Run) -> (Option<usize>, Option<usize>) {
    let inner = async {
        let gate = run.gate(0).await;
        timeout(ms(5), run.gate(1)).await.map_or(gate, |other| gate + other)
    };
    join!(timeout(ms(12), inner).map(Result::ok), timeout(ms(12), run.gate(2)).map(Result::ok))
}

async fn messages_between_ticks(run: Run) -> Vec<usize> {
    let (sender, mut receiver) = mpsc::channel(1);
    run.spawn(async move {
        for message in 0..10 {
            sleep(ms(10)).await;
            // Nobody listens any more if the request is dropped.
            let _ = sender.send(message).await;
        }
    });
    let (mut ticks, mut messages) = (interval(ms(7)), Vec::new());
    loop {
        select! {
            biased;
            message = run.watch("message", receiver.recv()) => match message {
                Some(message) => messages.push(message),
                None => break messages,
            },
            _ = run.watch("tick", ticks.tick()) => sleep(ms(3)).await,
        }
    }
}
