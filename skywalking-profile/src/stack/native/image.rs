//! A copy of the native stack from a capture up to the poll frame.
//!
//! What makes the copy sound: [`PollFrame::here`] is called by the function that polls, and [`Image::capture`] by a
//! function that this poll calls, on the same thread, before the poll returns. The bytes from the stack pointer of the
//! capture up to the poll frame are then live stack of this thread; [`Image::capture`] checks that both ends lie on the
//! thread's own stack, since a fiber in between would have switched to another.
#![expect(unsafe_code, reason = "copies stack memory")]

use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::arch::{Registers, copy_stack, stack_pointer};
use super::thread::stack_bounds;

/// The longest copy, in bytes. A capture runs under other people's locks, so its length is bounded.
const LONGEST: usize = 64 * 1024;

/// The bytes that all images of the process may hold together: 64 MiB, some 20,000 waits of an ordinary axum handler.
const ALL_IMAGES: usize = 64 * 1024 * 1024;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Whether there is room for an image of any size.
pub(crate) fn has_room() -> bool {
    HELD.load(Ordering::Relaxed) + LONGEST <= ALL_IMAGES
}

/// The frame of the function that polls: the root side of every image taken in this poll.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PollFrame {
    sp: usize,
    stack_low: usize,
}

impl PollFrame {
    /// The frame of the function that this is inlined into, or `None` if it does not run on its thread's own stack.
    #[inline(always)]
    pub(crate) fn here() -> Option<Self> {
        let sp = stack_pointer();
        let bounds = stack_bounds();
        bounds.contains(&sp).then_some(Self { sp, stack_low: bounds.start })
    }
}

/// Registers and stack bytes of one capture: all that unwinding it later, on another thread, needs.
pub(crate) struct Image {
    registers: Registers,
    bytes: Vec<u8>,
    poll_frame: usize,
}

impl Image {
    /// Copies the stack between the caller and `frame`.
    ///
    /// `None` if the stack pointer is not on the stack that `frame` is on, if the images of the process hold
    /// all that they may, or if there is no memory.
    ///
    /// # Safety
    /// - `frame` was taken on this thread, in a function that has not returned yet.
    #[inline(never)]
    pub(crate) unsafe fn capture(frame: &PollFrame) -> Option<Self> {
        let registers = Registers::here();
        if !(frame.stack_low..frame.sp).contains(&registers.sp) {
            return None;
        }
        let len = (frame.sp - registers.sp).min(LONGEST);
        if HELD.fetch_add(len, Ordering::Relaxed) + len > ALL_IMAGES {
            HELD.fetch_sub(len, Ordering::Relaxed);
            return None;
        }
        // From here on `Drop` gives the bytes back.
        let mut image = Self { registers, bytes: Vec::new(), poll_frame: frame.sp };
        if image.bytes.try_reserve_exact(len).is_err() {
            HELD.fetch_sub(len, Ordering::Relaxed);
            return None;
        }
        // SAFETY: the source is live stack of this thread, as the module's header shows from the caller's promise and the
        // bounds checked above; the destination has just been reserved and belongs to `image` alone.
        unsafe { copy_stack(registers.sp, image.bytes.as_mut_ptr(), len) };
        // SAFETY: `len` bytes of the reserved capacity were written above.
        unsafe { image.bytes.set_len(len) };
        Some(image)
    }

    pub(super) fn registers(&self) -> Registers {
        self.registers
    }

    /// The stack pointer of the poll frame: an unwind that arrives there is whole.
    pub(super) fn poll_frame(&self) -> usize {
        self.poll_frame
    }

    /// Whether all of the stack was copied.
    pub(super) fn is_whole(&self) -> bool {
        self.registers.sp + self.bytes.len() == self.poll_frame
    }

    /// The stack word at `address`, if it was copied.
    pub(super) fn word(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.registers.sp)?;
        let word = self.bytes.get(offset..)?.first_chunk()?;
        Some(usize::from_ne_bytes(*word))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // They may hold secrets of the application.
        self.bytes.fill(0);
        HELD.fetch_sub(black_box(&self.bytes).len(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the bytes.
        f.debug_struct("Image")
            .field("registers", &self.registers)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_bytes_is_copied() {
        let from: [u8; 64] = std::array::from_fn(|i| i as u8);
        for len in (0..40).chain([63, 64]) {
            let mut to = [0xff; 64];
            // SAFETY: both arrays are as long or longer, and nobody else has `to`.
            unsafe { copy_stack(from.as_ptr().expose_provenance(), to.as_mut_ptr(), len) };
            assert_eq!(to[..len], from[..len]);
            assert!(to[len..].iter().all(|byte| *byte == 0xff), "{len}");
        }
    }
}
