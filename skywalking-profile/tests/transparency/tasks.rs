//! Requests that leave things to tasks of their own, and to threads that may block.

use std::sync::Arc;
use std::sync::mpsc::channel;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::{join, select};

use super::compare::{is_unnoticed, is_unnoticed_if_settled};
use super::run::Run;

#[test]
fn tasks() {
    is_unnoticed("spawn", 2, |run| spawned(run, Run::spawn::<BoxFuture<'static, usize>>));
    is_unnoticed("spawn of a part", 2, |run| spawned(run, Run::spawn_counted::<BoxFuture<'static, usize>>));
    is_unnoticed("spawned tasks, joined", 3, spawned_and_joined);
    is_unnoticed("a task that is not awaited", 2, detached);
    is_unnoticed("a task that is aborted", 3, aborted);
    is_unnoticed("tasks that spawn tasks", 6, |run| nested(run, 2));
    is_unnoticed("tasks that yield", 3, yielding);
    is_unnoticed("JoinSet", 6, join_set);
    is_unnoticed("LocalSet", 4, local_set);
    is_unnoticed("a part in another task", 4, parts_elsewhere);
}

type Spawn = fn(&Run, BoxFuture<'static, usize>) -> tokio::task::JoinHandle<usize>;

async fn spawned(run: Run, spawn: Spawn) -> usize {
    let (zero, one) = (run.gate(0), run.gate(1));
    let task = spawn(&run, async move { zero.await + one.await }.boxed());
    run.watch("task's end", task).await.expect("no panic")
}

async fn spawned_and_joined(run: Run) -> Vec<usize> {
    let tasks = (0..3).map(|gate| run.watch("task's end", run.spawn_counted(run.gate(gate))));
    join_all(tasks).await.into_iter().map(|task| task.expect("no panic")).collect()
}

async fn detached(run: Run) -> usize {
    drop(run.spawn(run.gate(0)));
    run.gate(1).await
}

async fn aborted(run: Run) -> (usize, bool) {
    let mut task = run.spawn(run.gate(0));
    select! {
        biased;
        ended = &mut task => (ended.expect("no panic"), false),
        gate = run.gate(1) => {
            task.abort();
            (gate, run.watch("task's end", task).await.is_err())
        }
    }
}

/// Gates from `2 * depth` on; each task waits for one before it spawns the next, and for one after.
fn nested(run: Run, depth: usize) -> BoxFuture<'static, usize> {
    async move {
        let gate = run.gate(2 * depth).await;
        if depth > 0 {
            let task = run.spawn(nested(run.clone(), depth - 1));
            run.watch_one_of("task's end", depth, task).await.expect("no panic");
        }
        gate + run.gate(2 * depth + 1).await
    }
    .boxed()
}

async fn yielding(run: Run) {
    let yields = |gate: usize| {
        let run = run.clone();
        async move {
            run.gate(gate).await;
            join!(run.watch("yield", yield_now()), run.watch("yield", yield_now()));
        }
    };
    let (one, two) = (run.spawn_counted(yields(0)), run.spawn(yields(1)));
    let (one, two, ()) = join!(one, two, yields(2));
    one.and(two).expect("no panic");
}

async fn join_set(run: Run) -> Vec<usize> {
    let (mut tasks, mut ended) = (JoinSet::new(), Vec::new());
    for gate in 0..6 {
        tasks.spawn(run.part(run.gate(gate)));
    }
    while let Some(task) = run.watch("any task's end", tasks.join_next()).await {
        ended.push(task.expect("no panic"));
    }
    ended
}

async fn local_set(run: Run) -> usize {
    let local = LocalSet::new();
    let (one, two) = (local.spawn_local(run.part(run.gate(0))), local.spawn_local(run.part(run.gate(1))));
    let ended = local.run_until(async { run.gate(2).await + one.await.expect("no panic") }).await;
    run.watch("LocalSet", local).await;
    ended + two.await.expect("no panic") + run.gate(3).await
}

/// Made by the request, but polled by a task that is not its own.
async fn parts_elsewhere(run: Run) -> Vec<usize> {
    let (sender, mut parts) = mpsc::unbounded_channel::<BoxFuture<'static, Result<(), usize>>>();
    tokio::spawn(async move {
        while let Some(part) = parts.recv().await {
            // Nobody listens any more if the request is dropped.
            let _ = part.await;
        }
    });
    let mut answers = Vec::new();
    for gate in 0..4 {
        let (answer, receiver) = oneshot::channel();
        let part = run.gate(gate).map(|gate| answer.send(gate));
        sender.send(run.part(part)).expect("a receiver");
        answers.push(run.watch("answer", receiver).await.expect("an answer"));
    }
    answers
}

#[test]
fn tasks_that_wake_the_request() {
    is_unnoticed("a task that answers", 2, answered);
    is_unnoticed("a task that notifies", 2, notified);
    is_unnoticed("a task that is asked and answers", 4, asked);
}

async fn answered(run: Run) -> usize {
    let (answer, receiver) = oneshot::channel();
    let gate = run.gate(0);
    run.spawn(async move { answer.send(gate.await) });
    run.watch("answer", receiver).await.expect("an answer") + run.gate(1).await
}

async fn notified(run: Run) -> usize {
    let notify = Arc::new(Notify::new());
    let (gate, notifies) = (run.gate(0), Arc::clone(&notify));
    run.spawn_counted(async move {
        gate.await;
        notifies.notify_waiters();
        notifies.notify_one();
    });
    run.watch("notified", async move { notify.notified().await }).await;
    run.gate(1).await
}

async fn asked(run: Run) -> usize {
    let (questions, mut asked) = mpsc::channel::<oneshot::Sender<usize>>(1);
    let answers = run.clone();
    run.spawn(async move {
        let mut gate = 0;
        while let Some(answer) = asked.recv().await {
            // Nobody listens any more if the request is dropped.
            let _ = answer.send(answers.gate(gate).await);
            gate += 1;
        }
    });
    let mut sum = 0;
    for _ in 0..4 {
        let (answer, receiver) = oneshot::channel();
        questions.send(answer).await.expect("a task");
        sum += run.watch("answer", receiver).await.expect("an answer");
    }
    sum
}

#[test]
fn threads_that_block() {
    is_unnoticed_if_settled("spawn_blocking", 2, blocking);
    is_unnoticed_if_settled("spawn_blocking in a join", 3, blocking_in_a_join);
}

async fn blocking(run: Run) -> usize {
    let gate = run.gate(0).await;
    blocked(&run).await;
    gate + run.gate(1).await
}

async fn blocking_in_a_join(run: Run) {
    let one = async {
        run.gate(0).await;
        blocked(&run).await;
    };
    let two = async {
        run.gate(1).await;
        blocked(&run).await;
    };
    join!(one, two, run.gate(2));
}

/// The closure goes on when the request has been polled: how fast a thread is must not matter.
async fn blocked(run: &Run) {
    let (sender, receiver) = channel();
    // Nobody sends if the request is dropped.
    let closure = run.spawn_blocking(move || receiver.recv().unwrap_or(()));
    tokio::spawn(async move { sender.send(()).expect("a thread") });
    run.watch("closure's end", closure).await.expect("no panic");
}
