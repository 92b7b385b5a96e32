//! What clones of the capture waker become. Runs under Miri, where no stack is captured.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;

use super::{Leaf, Registrations, Strand, StrandId, lender, poll};

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
    leaves_of(&strand(), request, what)
}

/// Of one poll of the strand.
fn leaves_of<R>(strand: &Arc<Strand>, request: &Waker, what: impl FnOnce(&Waker) -> R) -> (Vec<Leaf>, R) {
    let mut registrations = Registrations::default();
    let result = poll(request, strand, &mut registrations, |cx: &mut Context<'_>| what(cx.waker()));
    (registrations.leaves, result)
}

fn strand() -> Arc<Strand> {
    Arc::new(Strand::new(StrandId::of_request()))
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
    let ((request, _), strand) = (request(), strand());
    let (leaves, stored) =
        leaves_of(&strand, &request, |waker| thread::scope(|scope| scope.spawn(|| waker.clone()).join().unwrap()));
    assert!(leaves.is_empty() && is_same(&stored, &request));
    stored.wake();
    assert_eq!(strand.first_wake.at(), None, "its wakes are not seen");
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
    const MANY: usize = if cfg!(miri) { 300 } else { 1000 };
    let (request, _) = request();
    let (leaves, stored) = leaves(&request, |waker| (0..MANY).map(|_| waker.clone()).collect::<Vec<_>>());
    assert!(leaves.len() < stored.len());
    assert!(stored.last().is_some_and(|last| is_same(last, &request)));
    let (leaves, ()) = self::leaves(&request, |waker| (0..MANY).for_each(|_| drop(waker.clone())));
    assert!(leaves.len() < MANY, "those that let go make room");
}

#[test]
fn the_first_wake_of_any_leaf_is_the_requests() {
    let ((request, _), strand) = (request(), strand());
    let (_, older) = leaves_of(&strand, &request, Waker::clone);
    let (leaves, newer) = leaves_of(&strand, &request, Waker::clone);
    assert_eq!(strand.first_wake.at(), None);
    newer.wake_by_ref();
    let at = strand.first_wake.at();
    assert!(at.is_some() && at == leaves[0].token.woken_at());
    older.wake_by_ref();
    assert_eq!(strand.first_wake.take(), at);
    newer.wake();
    assert!(strand.first_wake.take().is_some(), "it wakes anew, though it is not the leaf's first");
    older.wake();
    assert!(strand.first_wake.at().is_some(), "nor is that of an earlier poll");
}

#[test]
fn a_wake_by_the_capture_waker_is_the_requests() {
    let ((request, _), strand) = (request(), strand());
    let (leaves, ()) = leaves_of(&strand, &request, Waker::wake_by_ref);
    assert!(strand.first_wake.at().is_some() && strand.first_wake.take() == leaves[0].token.woken_at());
    leaves_of(&strand, &request, |waker| {
        thread::scope(|scope| scope.spawn(|| waker.wake_by_ref()).join().unwrap());
    });
    assert!(strand.first_wake.at().is_some(), "on whatever thread");
}

/// A poll in which those leaves register, in this order.
fn register(strand: &Arc<Strand>, stored: &mut [Option<Waker>], order: &[usize]) -> Vec<u64> {
    let (request, _) = request();
    let (leaves, ()) = leaves_of(strand, &request, |waker| {
        for &i in order {
            stored[i] = Some(waker.clone());
        }
    });
    leaves.iter().map(|leaf| leaf.token.line()).collect()
}

#[test]
fn a_leaf_that_is_polled_again_keeps_its_line() {
    let (strand, mut stored) = (strand(), [const { None }; 3]);
    let known = register(&strand, &mut stored, &[0, 1, 2]);
    assert_eq!(register(&strand, &mut stored, &[2, 0, 1]), [known[2], known[0], known[1]]);
    stored[0].take().expect("a waker").wake();
    let [woken, pending] = register(&strand, &mut stored, &[0, 1])[..] else { panic!("two leaves") };
    assert!(!known.contains(&woken), "it may be another");
    assert_eq!(pending, known[1]);
}

#[test]
fn a_leaf_that_comes_after_one_that_was_dropped_is_another() {
    let (strand, mut stored) = (strand(), [const { None }; 2]);
    let before = register(&strand, &mut stored, &[0]);
    let (request, _) = request();
    let (_, ()) = leaves_of(&strand, &request, |_| stored[0] = None);
    assert_ne!(register(&strand, &mut stored, &[0]), before);
    // Twice in one poll.
    let [first, second] = register(&strand, &mut stored, &[1, 1])[..] else { panic!("two leaves") };
    assert_ne!(first, second);
}

#[test]
fn a_lent_waker_tells_whose_poll_has_lent_it() {
    let ((request, _), strand) = (request(), strand());
    let (_, stored) = leaves_of(&strand, &request, |waker| {
        assert_eq!(lender(waker), Some(strand.id));
        assert_eq!(lender(&request), None);
        let (_, ()) = leaves(waker, |inner| assert!(lender(inner).is_some_and(|lender| lender != strand.id)));
        waker.clone()
    });
    assert_eq!(lender(&stored), None);
}
