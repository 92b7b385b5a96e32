//! The capture waker: lent to one poll, turned into a leaf token wherever it is cloned.
//!
//! The lent waker's data pointer is the [`Lent`] on the frame of the function that polls. That is sound because the `Waker` made of it
//! never leaves that function but by reference (`lend` takes a closure), references to it end with the poll, and every
//! clone is a `Waker` of its own: a leaf token, or a clone of the request's own waker.
//!
//! A leaf token's data pointer is from `Arc::into_raw`, and its `Waker` owns that reference to it.
#![expect(unsafe_code, reason = "a waker's vtable")]

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::token::LeafToken;

/// What the capture waker calls back to.
///
/// Called on whatever thread uses the waker, under other people's locks: implementations neither block nor panic.
pub(super) trait Lent: Sized + Sync {
    /// A waker to be stored.
    fn clone_waker(&self) -> Waker;

    /// A wake by the waker itself: the request asks to be polled again.
    fn wake(&self);
}

/// Runs `poll` with a waker that calls back to `lent`.
pub(super) fn lend<L: Lent, R>(lent: &L, poll: impl FnOnce(&Waker) -> R) -> R {
    // SAFETY: the vtable's functions take the pointer for a `&L`. `lent` outlives the waker, which is never moved out of
    // here, and `L: Sync` since a `&Waker` may reach other threads.
    let waker = unsafe { Waker::new(ptr::from_ref(lent).cast(), &Vtable::<L>::VTABLE) };
    poll(&waker)
}

struct Vtable<L>(L);

impl<L: Lent> Vtable<L> {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(Self::clone, Self::wake, Self::wake_by_ref, Self::drop);

    /// # Safety
    /// - As for all of these: `data` is the pointer that `lend` made, and its waker has not been dropped.
    unsafe fn clone(data: *const ()) -> RawWaker {
        // SAFETY: `data` is the `&L` of `lend`, which outlives every reference to the lent waker.
        let lent = unsafe { &*data.cast::<L>() };
        let waker = ManuallyDrop::new(lent.clone_waker());
        RawWaker::new(waker.data(), waker.vtable())
    }

    /// Never called: the lent waker is not given away.
    ///
    /// # Safety
    /// - As for `clone`.
    unsafe fn wake(data: *const ()) {
        // SAFETY: as for `clone`.
        unsafe { Self::wake_by_ref(data) };
    }

    /// # Safety
    /// - As for `clone`.
    unsafe fn wake_by_ref(data: *const ()) {
        // SAFETY: as for `clone`.
        unsafe { &*data.cast::<L>() }.wake();
    }

    /// The lent waker owns nothing.
    ///
    /// # Safety
    /// - None: nothing is touched.
    unsafe fn drop(_: *const ()) {}
}

/// A waker that is the token, and tells it when it is dropped.
pub(super) fn of_token(token: Arc<LeafToken>) -> Waker {
    // SAFETY: the vtable's functions take the pointer for one from `Arc::into_raw` whose reference the waker owns.
    // `LeafToken` is `Send` and `Sync`, as is checked below.
    unsafe { Waker::new(Arc::into_raw(token).cast(), &TOKEN) }
}

const TOKEN: RawWakerVTable = RawWakerVTable::new(clone_token, wake_token, wake_token_by_ref, drop_token);

const _: () = {
    const fn is_shared_between_threads<T: Send + Sync>() {}
    is_shared_between_threads::<LeafToken>();
};

/// # Safety
/// - As for all of these: `data` is the pointer of a waker that `of_token` or `clone_token` made and that has not been dropped.
unsafe fn clone_token(data: *const ()) -> RawWaker {
    // SAFETY: `data` is from `Arc::into_raw`, and the waker's own reference is alive.
    unsafe { Arc::increment_strong_count(data.cast::<LeafToken>()) };
    RawWaker::new(data, &TOKEN)
}

/// # Safety
/// - As for `clone_token`; the waker is given away.
unsafe fn wake_token(data: *const ()) {
    // SAFETY: `data` is from `Arc::into_raw`, and this takes over the waker's own reference.
    let token = unsafe { Arc::from_raw(data.cast::<LeafToken>()) };
    token.wake();
}

/// # Safety
/// - As for `clone_token`.
unsafe fn wake_token_by_ref(data: *const ()) {
    // SAFETY: `data` is from `Arc::into_raw`, and the waker's own reference is alive.
    unsafe { &*data.cast::<LeafToken>() }.wake();
}

/// # Safety
/// - As for `clone_token`; the waker is given away.
unsafe fn drop_token(data: *const ()) {
    // SAFETY: `data` is from `Arc::into_raw`, and this takes over the waker's own reference.
    unsafe { Arc::from_raw(data.cast::<LeafToken>()) }.let_go();
}
