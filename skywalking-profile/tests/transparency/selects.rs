//! Requests that wait for the first of several things.

use std::sync::Arc;
use std::task::Poll;

use futures_util::future::{self, Either, poll_fn, select_all, select_ok};
use futures_util::{FutureExt, select_biased};
use tokio::sync::{Notify, mpsc, watch};
use tokio::{join, select};

use super::compare::{is_unnoticed, is_unnoticed_by_chance};
use super::run::Run;

#[test]
fn selects() {
    is_unnoticed("select!", 3, selected);
    is_unnoticed("select! of branches with conditions", 3, selected_in_turn);
    is_unnoticed("select_biased!", 3, selected_by_futures);
    is_unnoticed("select", 2, selected_of_two);
    is_unnoticed("select_all", 4, selected_of_all);
    is_unnoticed("select_ok", 4, selected_of_results);
    is_unnoticed("a race by hand", 3, raced);
}

async fn selected(run: Run) -> usize {
    select! {
        biased;
        gate = run.gate(0) => gate,
        gate = run.gate(1) => gate,
        gate = async { run.gate(2).await } => gate,
    }
}

async fn selected_in_turn(run: Run) -> Vec<usize> {
    let (mut gates, mut ended) = ([0, 1, 2].map(|gate| run.gate(gate)), Vec::new());
    let [zero, one, two] = &mut gates;
    loop {
        select! {
            biased;
            gate = &mut *zero, if !ended.contains(&0) => ended.push(gate),
            gate = &mut *one, if !ended.contains(&1) => ended.push(gate),
            gate = &mut *two, if !ended.contains(&2) => ended.push(gate),
            else => break ended,
        }
    }
}

async fn selected_by_futures(run: Run) -> Vec<usize> {
    let [mut zero, mut one, mut two] = [0, 1, 2].map(|gate| run.gate(gate).fuse());
    let mut ended = Vec::new();
    loop {
        select_biased! {
            gate = zero => ended.push(gate),
            gate = one => ended.push(gate),
            gate = two => ended.push(gate),
            complete => break ended,
        }
    }
}

async fn selected_of_two(run: Run) -> (usize, usize) {
    match future::select(run.gate(0), run.gate(1)).await {
        Either::Left((gate, rest)) | Either::Right((gate, rest)) => (gate, rest.await),
    }
}

async fn selected_of_all(run: Run) -> Vec<usize> {
    let (mut ahead, mut ended): (Vec<_>, _) = ((0..4).map(|gate| run.gate(gate)).collect(), Vec::new());
    while !ahead.is_empty() {
        let (gate, _, rest) = select_all(ahead).await;
        ended.push(gate);
        ahead = rest;
    }
    ended
}

async fn selected_of_results(run: Run) -> Result<usize, usize> {
    let result = |gate| if gate % 2 == 0 { Err(gate) } else { Ok(gate) };
    select_ok((0..4).map(|gate| run.gate(gate).map(result))).await.map(|(gate, _)| gate)
}

async fn raced(run: Run) -> usize {
    let mut gates = [0, 1, 2].map(|gate| run.gate(gate));
    poll_fn(|cx| gates.iter_mut().map(|gate| gate.poll_unpin(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending)).await
}

#[test]
fn selects_by_chance() {
    is_unnoticed_by_chance("tokio's select!", 3, selected_by_chance);
    is_unnoticed_by_chance("futures' select!", 3, selected_by_chance_of_futures);
}

async fn selected_by_chance(run: Run) -> (usize, usize) {
    let mut one = run.gate(1);
    let first = select! {
        gate = run.gate(0) => gate,
        gate = &mut one => return (gate, run.gate(2).await),
        gate = run.gate(2) => gate,
    };
    (first, one.await)
}

async fn selected_by_chance_of_futures(run: Run) -> Vec<usize> {
    let [mut zero, mut one, mut two] = [0, 1, 2].map(|gate| run.gate(gate).fuse());
    let mut ended = Vec::new();
    loop {
        futures_util::select! {
            gate = zero => ended.push(gate),
            gate = one => ended.push(gate),
            gate = two => ended.push(gate),
            complete => break ended,
        }
    }
}

#[test]
fn losers() {
    is_unnoticed("a loser that is awaited later", 3, loser_awaited);
    is_unnoticed("a loser that is dropped late", 3, loser_dropped_late);
    is_unnoticed("a select! loop with a Notify", 11, |run| messages_until(run, Cancelled::Notified));
    is_unnoticed("a select! loop with a watch", 11, |run| messages_until(run, Cancelled::Changed));
    is_unnoticed("a join in a select", 4, join_in_select);
    is_unnoticed("a select in a select", 4, select_in_select);
}

async fn loser_awaited(run: Run) -> (usize, usize, usize) {
    let (mut one, mut two) = (run.gate(0), run.gate(1));
    select! {
        biased;
        gate = &mut one => (gate, run.gate(2).await, two.await),
        gate = &mut two => (gate, run.gate(2).await, one.await),
    }
}

async fn loser_dropped_late(run: Run) -> (usize, usize) {
    let (mut one, mut two) = (run.gate(0), run.gate(1));
    let gate = select! {
        biased;
        gate = &mut one => gate,
        gate = &mut two => gate,
    };
    (gate, run.gate(2).await)
}

/// How a loop is told to end.
#[derive(Clone, Copy, Debug)]
enum Cancelled {
    Notified,
    Changed,
}

/// A message for each gate but the last, which cancels.
async fn messages_until(run: Run, cancelled: Cancelled) -> Vec<usize> {
    const MESSAGES: usize = 10;
    let (sender, mut receiver) = mpsc::channel(MESSAGES);
    for gate in 0..MESSAGES {
        let (gate, sender) = (run.gate(gate), sender.clone());
        run.spawn(async move { sender.send(gate.await).await });
    }
    let (notify, (changed, mut changes)) = (Arc::new(Notify::new()), watch::channel(false));
    let (last, notifies) = (run.gate(MESSAGES), Arc::clone(&notify));
    run.spawn(async move {
        last.await;
        notifies.notify_one();
        changed.send(true)
    });
    let mut cancelled = match cancelled {
        Cancelled::Notified => run.watch("cancelled", async move { notify.notified().await }.boxed()),
        Cancelled::Changed => {
            let changed = async move { drop(changes.wait_for(|is_cancelled| *is_cancelled).await) };
            run.watch("cancelled", changed.boxed())
        }
    };
    let mut messages = Vec::new();
    loop {
        select! {
            biased;
            () = &mut cancelled => break messages,
            message = run.watch("message", receiver.recv()) => messages.push(message.expect("a sender")),
        }
    }
}

/// The join loses after a part of it, or wins.
async fn join_in_select(run: Run) -> usize {
    let gate = select! {
        biased;
        gates = async { join!(run.gate(0), run.gate(1)) } => gates.0 + gates.1,
        gate = run.gate(2) => gate,
    };
    gate + run.gate(3).await
}

async fn select_in_select(run: Run) -> usize {
    let inner = async {
        select! {
            biased;
            gate = run.gate(0) => gate,
            gate = run.gate(1) => gate,
        }
    };
    select! {
        biased;
        gate = run.gate(2) => gate,
        gate = inner => gate + run.gate(3).await,
    }
}
