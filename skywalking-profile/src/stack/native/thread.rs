//! Where the current thread's own stack lies.
//!
//! Fibers and `stacker` switch the stack pointer to memory of their own; between there and the poll frame lies memory
//! that may not be mapped. A capture therefore needs the bounds of the stack that the thread was born with.
#![expect(unsafe_code, reason = "pthread_getattr_np")]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;

/// No more of a stack is taken to be the thread's own, in bytes.
const LARGEST: usize = 64 * 1024 * 1024;

thread_local! {
    static BOUNDS: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// The address range of the current thread's own stack; empty if it cannot be told.
///
/// The first call on a thread may allocate and read `/proc/self/maps`, later ones read a thread-local.
pub(super) fn stack_bounds() -> Range<usize> {
    let (low, high) = BOUNDS
        .get()
        .or_else(|| {
            BOUNDS.set(ask());
            BOUNDS.get()
        })
        .unwrap_or_default();
    low..high
}

fn ask() -> Option<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: `pthread_self` is the calling thread, and `attributes` is writable.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: `attributes` was initialised by the successful call above; the two results are writable.
    let failed = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut size) };
    // SAFETY: `attributes` was initialised above and is not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    // Without a limit (`ulimit -s unlimited`) the main thread is said to have all that lies below its stack.
    let high = low.addr() + size;
    (failed == 0).then(|| (low.addr().max(high.saturating_sub(LARGEST)), high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_lies_within_the_bounds_on_every_thread() {
        let check = || {
            let local = 0u8;
            assert!(stack_bounds().contains(&(&raw const local).addr()));
        };
        check();
        std::thread::spawn(check).join().unwrap();
    }
}
