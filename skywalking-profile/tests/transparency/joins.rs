//! Requests that wait for all of several things.

use std::task::Poll;

use futures_util::future::{BoxFuture, join_all, poll_fn, try_join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::{join, try_join};

use super::compare::is_unnoticed;
use super::run::Run;

#[test]
fn joins() {
    is_unnoticed("join!", 3, joined);
    is_unnoticed("futures' join!", 3, joined_by_futures);
    is_unnoticed("join! of steps", 5, joined_steps);
    is_unnoticed("join! of yields", 1, joined_yields);
    is_unnoticed("join! of joins", 6, joined_joins);
    is_unnoticed("join! of one gate", 2, joined_at_one_gate);
    is_unnoticed("a recursive join!", 8, |run| joined_recursively(run, 3, 0));
    is_unnoticed("all polled by hand", 4, polled_by_hand);
}

async fn joined(run: Run) -> (usize, usize, usize) {
    join!(run.gate(0), run.gate(1), run.gate(2))
}

async fn joined_by_futures(run: Run) -> (usize, usize, usize) {
    futures_util::join!(run.gate(0), run.gate(1), run.gate(2))
}

async fn joined_steps(run: Run) -> (usize, usize) {
    let one = async {
        run.gate(0).await;
        run.gate(1).await;
        run.gate(2).await
    };
    let two = async {
        run.gate(3).await;
        run.gate(4).await
    };
    join!(one, two)
}

async fn joined_yields(run: Run) {
    join!(run.watch("yield", yield_now()), run.watch("yield", yield_now()), run.watch("yield", yield_now()));
    run.gate(0).await;
    join!(run.watch("yield", yield_now()), run.gate(0), run.watch("yield", yield_now()));
}

async fn joined_joins(run: Run) {
    let one = async { join!(run.gate(0), run.gate(1)) };
    let two = async { join!(run.gate(2), async { join!(run.gate(3), run.gate(4)) }) };
    join!(one, two, run.gate(5));
}

async fn joined_at_one_gate(run: Run) {
    join!(run.gate(0), run.gate(1), run.gate(0), run.gate(1), run.gate(0));
}

/// Each leaf is a gate.
fn joined_recursively(run: Run, depth: u32, first: usize) -> BoxFuture<'static, usize> {
    async move {
        if depth == 0 {
            return run.gate(first).await;
        }
        let second = first + (1 << (depth - 1));
        let (one, two) =
            join!(joined_recursively(run.clone(), depth - 1, first), joined_recursively(run, depth - 1, second));
        one + two
    }
    .boxed()
}

async fn polled_by_hand(run: Run) {
    let mut ahead: Vec<_> = (0..4).map(|i| run.gate(i)).collect();
    poll_fn(|cx| {
        ahead.retain_mut(|gate| gate.poll_unpin(cx).is_pending());
        if ahead.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[test]
fn joins_of_results() {
    is_unnoticed("try_join!", 3, tried);
    is_unnoticed("try_join! that fails", 3, tried_in_vain);
    is_unnoticed("futures' try_join!", 3, tried_by_futures);
    is_unnoticed("futures' try_join! that fails", 3, tried_in_vain_by_futures);
    is_unnoticed("try_join_all of 3", 3, |run| all_tried(run, 3, None));
    is_unnoticed("try_join_all of 40", 40, |run| all_tried(run, 40, None));
    is_unnoticed("try_join_all of 3 that fails", 3, |run| all_tried(run, 3, Some(1)));
    is_unnoticed("try_join_all of 40 that fails", 40, |run| all_tried(run, 40, Some(17)));
}

async fn tried(run: Run) -> Result<(usize, usize, usize), usize> {
    try_join!(run.gate(0).map(Ok), run.gate(1).map(Ok), run.gate(2).map(Ok))
}

async fn tried_in_vain(run: Run) -> Result<(usize, usize, usize), usize> {
    try_join!(run.gate(0).map(Ok), run.gate(1).map(Err), run.gate(2).map(Ok))
}

async fn tried_by_futures(run: Run) -> Result<(usize, usize, usize), usize> {
    futures_util::try_join!(run.gate(0).map(Ok), run.gate(1).map(Ok), run.gate(2).map(Ok))
}

async fn tried_in_vain_by_futures(run: Run) -> Result<(usize, usize, usize), usize> {
    futures_util::try_join!(run.gate(0).map(Ok), run.gate(1).map(Err), run.gate(2).map(Ok))
}

async fn all_tried(run: Run, elements: usize, fails: Option<usize>) -> Result<Vec<usize>, usize> {
    let element = |i| run.gate(i).map(move |gate| if fails == Some(gate) { Err(gate) } else { Ok(gate) });
    try_join_all((0..elements).map(element)).await
}

#[test]
fn joins_of_many() {
    is_unnoticed("join_all of 3", 3, |run| all_joined(run, 3));
    is_unnoticed("join_all of 30", 30, |run| all_joined(run, 30));
    is_unnoticed("join_all of 40", 40, |run| all_joined(run, 40));
    is_unnoticed("join_all of 3 parts", 3, |run| all_parts_joined(run, 3));
    is_unnoticed("join_all of 40 parts", 40, |run| all_parts_joined(run, 40));
    is_unnoticed("FuturesUnordered", 8, unordered);
    is_unnoticed("FuturesUnordered that grows", 8, growing);
}

async fn all_joined(run: Run, elements: usize) -> Vec<usize> {
    join_all((0..elements).map(|i| run.gate(i))).await
}

async fn all_parts_joined(run: Run, elements: usize) -> Vec<usize> {
    join_all((0..elements).map(|i| run.part(run.gate(i)))).await
}

async fn unordered(run: Run) -> Vec<usize> {
    (0..8).map(|i| run.part(run.gate(i))).collect::<FuturesUnordered<_>>().collect().await
}

/// Each that ends brings another.
async fn growing(run: Run) -> Vec<usize> {
    let (mut ended, mut going) = (Vec::new(), FuturesUnordered::from_iter([run.part(run.gate(0))]));
    while let Some(gate) = going.next().await {
        ended.push(gate);
        let next = ended.len();
        if next < 8 {
            going.push(run.part(run.gate(next)));
        }
    }
    ended
}

#[test]
fn branches_that_meet() {
    is_unnoticed("a branch that begins as another ends", 3, handed_over);
    is_unnoticed("a branch that another one wakes", 3, woken_from_within);
    is_unnoticed("a select in a join", 4, select_in_join);
}

async fn handed_over(run: Run) -> (usize, usize) {
    let (sender, receiver) = oneshot::channel();
    let one = async {
        let gate = run.gate(0).await;
        sender.send(gate).expect("a receiver");
        gate
    };
    let two = async {
        run.watch("oneshot", receiver).await.expect("an answer");
        run.gate(1).await;
        run.gate(2).await
    };
    join!(two, one)
}

async fn woken_from_within(run: Run) -> (usize, usize, usize) {
    let one = async {
        run.gate(0).await;
        run.open(1);
        run.gate(2).await
    };
    join!(run.gate(1), one, run.gate(1))
}

async fn select_in_join(run: Run) -> (usize, usize) {
    let selected = async {
        tokio::select! {
            biased;
            gate = run.gate(0) => gate,
            gate = async { join!(run.gate(1), run.gate(2)) } => gate.0 + gate.1,
        }
    };
    join!(selected, run.gate(3))
}
