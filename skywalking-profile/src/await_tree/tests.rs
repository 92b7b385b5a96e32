//! What clones of the capture waker become. Runs under Miri, where no stack is captured.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;

use super::{FirstWake, Leaf, poll};

/// A request's own waker, which counts.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn request() -> (Waker, Arc<Wakes>) {
    let wakes = Arc::<Wakes>::default();
    (Waker::from(Arc::clone(&wakes)), wakes)
}

/// The leaves of a poll that does `what` with its waker.
fn leaves<R>(request: &Waker, what: impl FnOnce(&Waker) -> R) -> (Vec<Leaf>, R) {
    leaves_and_wakes(request, &Arc::default(), what)
}

/// And the first wake of the request, whose polls share it.
fn leaves_and_wakes<R>(request: &Waker, first_wake: &Arc<FirstWake>, what: impl FnOnce(&Waker) -> R) -> (Vec<Leaf>, R) {
    let mut leaves = Vec::new();
    let result = poll(request, first_wake, &mut leaves, |cx: &mut Context<'_>| what(cx.waker()));
    (leaves, result)
}

/// `Waker::will_wake` compares vtables, too, whose addresses are not unique everywhere.
fn is_same(waker: &Waker, other: &Waker) -> bool {
    waker.data() == other.data()
}

#[test]
fn a_clone_within_the_poll_is_a_leaf_that_forwards_wakes() {
    let (request, wakes) = request();
    let (leaves, stored) = leaves(&request, Waker::clone);
    assert_eq!(leaves.len(), 1);
    assert!(leaves[0].is_live() && leaves[0].token.woken_at().is_none());
    stored.wake_by_ref();
    stored.wake();
    assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
    assert!(leaves[0].is_live() && leaves[0].token.woken_at().is_some());
}

#[test]
fn a_leaf_that_let_go_without_a_wake_is_dead() {
    let (request, _) = request();
    let (leaves, (first, second)) = leaves(&request, |waker| (waker.clone(), waker.clone()));
    assert!(!is_same(&first, &second), "each registration is a leaf of its own");
    drop(first);
    assert_eq!(leaves.iter().map(Leaf::is_live).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_wake_within_the_poll_is_a_leaf_too() {
    let (request, wakes) = request();
    let (leaves, ()) = leaves(&request, Waker::wake_by_ref);
    assert!(leaves[0].token.woken_at().is_some());
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
}

#[test]
fn on_another_thread_a_clone_is_the_requests_own_waker() {
    let (request, _) = request();
    let first_wake = Arc::<FirstWake>::default();
    let (leaves, stored) = leaves_and_wakes(&request, &first_wake, |waker| {
        thread::scope(|scope| scope.spawn(|| waker.clone()).join().unwrap())
    });
    assert!(leaves.is_empty() && is_same(&stored, &request));
    stored.wake();
    assert_eq!(first_wake.at(), None, "its wakes are not seen");
}

#[test]
fn of_nested_polls_the_innermost_has_the_leaf() {
    let (request, wakes) = request();
    let (outer, (inner, stored)) = leaves(&request, |waker| leaves(waker, Waker::clone));
    assert_eq!((outer.len(), inner.len()), (0, 1));
    stored.wake();
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
}

#[test]
fn after_a_poll_that_panicked_the_outer_one_has_its_leaves() {
    let (request, _) = request();
    let (leaves, ()) = leaves(&request, |waker| {
        let panicked = catch_unwind(AssertUnwindSafe(|| leaves(waker, |_| panic!("on purpose"))));
        assert!(panicked.is_err());
        drop(waker.clone());
    });
    assert_eq!(leaves.len(), 1);
}

#[test]
fn leaves_beyond_the_limit_are_the_requests_own_waker() {
    let (request, _) = request();
    let (leaves, stored) = leaves(&request, |waker| (0..1000).map(|_| waker.clone()).collect::<Vec<_>>());
    assert!(leaves.len() < stored.len());
    assert!(stored.last().is_some_and(|last| is_same(last, &request)));
    let (leaves, ()) = self::leaves(&request, |waker| (0..1000).for_each(|_| drop(waker.clone())));
    assert!(leaves.len() < 1000, "those that let go make room");
}

#[test]
fn the_first_wake_of_any_leaf_is_the_requests() {
    let ((request, _), first_wake) = (request(), Arc::<FirstWake>::default());
    let (_, older) = leaves_and_wakes(&request, &first_wake, Waker::clone);
    let (leaves, newer) = leaves_and_wakes(&request, &first_wake, Waker::clone);
    assert_eq!(first_wake.at(), None);
    newer.wake_by_ref();
    let at = first_wake.at();
    assert!(at.is_some() && at == leaves[0].token.woken_at());
    older.wake_by_ref();
    assert_eq!(first_wake.take(), at);
    newer.wake();
    assert!(first_wake.take().is_some(), "it wakes anew, though it is not the leaf's first");
    older.wake();
    assert!(first_wake.at().is_some(), "nor is that of an earlier poll");
}

#[test]
fn a_wake_by_the_capture_waker_is_the_requests() {
    let ((request, _), first_wake) = (request(), Arc::<FirstWake>::default());
    let (leaves, ()) = leaves_and_wakes(&request, &first_wake, Waker::wake_by_ref);
    assert!(first_wake.at().is_some() && first_wake.take() == leaves[0].token.woken_at());
    leaves_and_wakes(&request, &first_wake, |waker| {
        thread::scope(|scope| scope.spawn(|| waker.wake_by_ref()).join().unwrap());
    });
    assert!(first_wake.at().is_some(), "on whatever thread");
}
