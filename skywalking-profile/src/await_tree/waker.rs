//! The capture waker: lent to one poll, turned into a leaf token wherever it is cloned.
//!
//! Its data pointer is the [`Lent`] on the frame of the function that polls. That is sound because the `Waker` made of it
//! never leaves that function but by reference (`lend` takes a closure), references to it end with the poll, and every
//! clone is a `Waker` of its own: a leaf token, or a clone of the request's own waker.
#![expect(unsafe_code, reason = "a waker's vtable")]

use std::mem::ManuallyDrop;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

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
