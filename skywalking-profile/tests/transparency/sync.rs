//! Requests that wait for what others share with them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::join;
use tokio::sync::{Barrier, Mutex, Notify, OnceCell, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};

use super::compare::is_unnoticed;
use super::run::Run;

#[test]
fn locks() {
    is_unnoticed("Mutex", 6, mutex);
    is_unnoticed("RwLock", 4, rw_lock);
    is_unnoticed("Semaphore", 5, semaphore);
    is_unnoticed("Barrier", 3, barrier);
    is_unnoticed("OnceCell", 3, once_cell);
    is_unnoticed("Shared", 4, shared);
}

async fn mutex(run: Run) -> Vec<usize> {
    let entered = Arc::new(Mutex::new(Vec::new()));
    let enters = |gate| {
        let (run, entered) = (run.clone(), Arc::clone(&entered));
        async move {
            for gate in [gate, gate + 3] {
                let mut entered = run.watch_one_of("lock", gate, entered.lock()).await;
                entered.push(run.gate(gate).await);
            }
        }
    };
    let task = run.spawn(enters(0));
    let (ended, (), ()) = join!(task, enters(1), enters(2));
    ended.expect("no panic");
    let entered = entered.lock().await;
    entered.clone()
}

async fn rw_lock(run: Run) -> (usize, usize, usize) {
    let sum = RwLock::new(0);
    let read = async |gate| {
        run.gate(gate).await;
        let sum = run.watch_one_of("read", gate, sum.read()).await;
        *sum + run.gate(2).await
    };
    let write = async {
        let mut sum = run.watch("write", sum.write()).await;
        *sum += run.gate(3).await;
        *sum
    };
    join!(read(0), write, read(1))
}

async fn semaphore(run: Run) -> Vec<usize> {
    let permits = Arc::new(Semaphore::new(2));
    let enters = |gate: usize| {
        let (run, permits) = (run.clone(), Arc::clone(&permits));
        async move {
            let permit = run.watch_one_of("permits", gate, permits.acquire_many_owned(1 + gate as u32 % 2)).await;
            let gate = run.gate(gate).await;
            drop(permit);
            gate
        }
    };
    let (task, part) = (run.spawn_counted(enters(0)), run.part(enters(1)));
    let (task, one, two, three, four) = join!(task, part, enters(2), enters(3), enters(4));
    vec![task.expect("no panic"), one, two, three, four]
}

async fn barrier(run: Run) {
    let barrier = Arc::new(Barrier::new(3));
    let arrives = |gate| {
        let (run, barrier) = (run.clone(), Arc::clone(&barrier));
        async move {
            run.gate(gate).await;
            run.watch_one_of("barrier", gate, barrier.wait()).await;
        }
    };
    let task = run.spawn(arrives(0));
    let (task, (), ()) = join!(task, arrives(1), arrives(2));
    task.expect("no panic");
}

async fn once_cell(run: Run) -> (usize, usize, usize) {
    let cell = OnceCell::new();
    let init = async |gate| {
        run.gate(gate).await;
        *run.watch_one_of("cell", gate, cell.get_or_init(async || run.gate(2).await)).await
    };
    join!(init(0), init(1), init(2))
}

async fn shared(run: Run) -> (usize, usize, usize) {
    let shared = run.part(run.gate(0)).shared();
    let task = run.spawn(shared.clone());
    let one = async {
        run.gate(1).await;
        run.watch("shared", shared.clone()).await
    };
    let two: BoxFuture<'_, usize> = async { run.gate(2).await + run.watch("shared", shared.clone()).await }.boxed();
    let (task, one, two) = join!(task, one, two);
    (task.expect("no panic"), one, two + run.gate(3).await)
}

#[test]
fn channels() {
    is_unnoticed("mpsc that is full", 8, bounded_mpsc);
    is_unnoticed("mpsc without bounds", 6, unbounded_mpsc);
    is_unnoticed("oneshot", 2, oneshots);
    is_unnoticed("broadcast", 4, broadcasts);
    is_unnoticed("watch", 4, watched);
    is_unnoticed("Notify", 3, notified);
}

async fn bounded_mpsc(run: Run) -> Vec<usize> {
    let (sender, mut receiver) = mpsc::channel(1);
    let sends = |from: usize| {
        let (run, sender) = (run.clone(), sender.clone());
        async move {
            for gate in from..from + 2 {
                let gate = run.gate(gate).await;
                run.watch_one_of("send", gate, sender.send(gate)).await.expect("a receiver");
            }
        }
    };
    let (task, one, two) = (run.spawn(sends(0)), sends(2), run.part(sends(4)));
    drop(sender);
    let receives = async {
        let mut messages = Vec::new();
        while let Some(message) = run.watch("message", receiver.recv()).await {
            messages.push(message + run.gate(6).await + run.gate(7).await);
        }
        messages
    };
    let (messages, task, (), ()) = join!(receives, task, one, two);
    task.expect("no panic");
    messages
}

async fn unbounded_mpsc(run: Run) -> Vec<Vec<usize>> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for gate in 0..6 {
        let (gate, sender) = (run.gate(gate), sender.clone());
        run.spawn(async move { sender.send(gate.await) });
    }
    drop(sender);
    let mut messages = Vec::new();
    loop {
        let mut some = Vec::new();
        if run.watch("messages", receiver.recv_many(&mut some, 2)).await == 0 {
            return messages;
        }
        messages.push(some);
    }
}

async fn oneshots(run: Run) -> (bool, usize) {
    let (answers, answered) = oneshot::channel();
    let (mut closes, closed) = oneshot::channel::<()>();
    let (zero, one) = (run.gate(0), run.gate(1));
    run.spawn(async move {
        zero.await;
        drop(closed);
        one.map(|gate| answers.send(gate)).await
    });
    run.watch("closed", closes.closed()).await;
    (closes.is_closed(), run.watch("answer", answered).await.expect("an answer"))
}

async fn broadcasts(run: Run) -> (Vec<usize>, Vec<usize>) {
    let (sender, first) = broadcast::channel(8);
    let second = sender.subscribe();
    let sending = run.clone();
    run.spawn(async move {
        for gate in 0..4 {
            // Nobody listens any more if the request is dropped.
            let _ = sender.send(sending.gate(gate).await);
        }
    });
    let receives = async |mut receiver: broadcast::Receiver<usize>| {
        let mut messages = Vec::new();
        while let Ok(message) = run.watch("message", receiver.recv()).await {
            messages.push(message);
        }
        messages
    };
    join!(receives(first), receives(second))
}

async fn watched(run: Run) -> Vec<usize> {
    let (sender, mut receiver) = watch::channel(0);
    for gate in 0..4 {
        let (gate, sender) = (run.gate(gate), sender.clone());
        run.spawn(async move {
            let gate = gate.await;
            sender.send_modify(|sum| *sum += gate);
        });
    }
    drop(sender);
    let mut sums = Vec::new();
    while run.watch("change", receiver.changed()).await.is_ok() {
        sums.push(*receiver.borrow_and_update());
    }
    sums
}

async fn notified(run: Run) {
    let notify = Arc::new(Notify::new());
    for gate in 0..3 {
        let (gate, notify) = (run.gate(gate), Arc::clone(&notify));
        run.spawn(async move {
            gate.await;
            notify.notify_one();
        });
    }
    let waits = |number| run.watch_one_of("notified", number, notify.notified());
    join!(waits(0), waits(1), waits(2));
}
