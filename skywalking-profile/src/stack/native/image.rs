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

/// The longest copy of a stack, in bytes. A capture runs under other people's locks, so its length is bounded.
pub(crate) const LONGEST_COPY: usize = 64 * 1024;

/// The bytes that all images of the process may hold together: 64 MiB, some 20,000 waits of an ordinary axum handler.
const ALL_IMAGES: usize = 64 * 1024 * 1024;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Whether there is room for an image of any size.
pub(crate) fn has_room() -> bool {
    HELD.load(Ordering::Relaxed) + LONGEST_COPY <= ALL_IMAGES
}

/// The frame of the function that polls: the root side of every image taken in this poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PollFrame {
    /// Its stack pointer.
    pub(crate) sp: usize,
    /// The lowest address of the stack that it is on.
    pub(crate) stack_low: usize,
}

impl PollFrame {
    /// The frame of the function that this is inlined into, or `None` if it does not run on its thread's own stack.
    #[inline(always)]
    pub(crate) fn here() -> Option<Self> {
        let sp = stack_pointer();
        let bounds = stack_bounds();
        bounds.contains(&sp).then_some(Self { sp, stack_low: bounds.start })
    }

    /// The bytes of stack between `sp` and the frame; `None` if `sp` does not lie below it on the same stack.
    pub(crate) fn distance_from(&self, sp: usize) -> Option<usize> {
        (self.stack_low..self.sp).contains(&sp).then(|| self.sp - sp)
    }

    /// Whether `sp`, in the middle of the poll, is on another stack: a fiber's, or one that `stacker` made.
    pub(crate) fn is_elsewhere(&self, sp: usize) -> bool {
        !(self.stack_low..=self.sp).contains(&sp)
    }

    /// Copies what lies between `registers` and the frame into the capacity of `bytes`; false if `registers` are not those
    /// of a function on the same stack. Async-signal-safe.
    ///
    /// # Safety
    /// - The function whose frame this is has not returned.
    #[inline(always)]
    pub(crate) unsafe fn copy_from(&self, registers: Registers, bytes: &mut Vec<u8>) -> bool {
        let Some(distance) = self.distance_from(registers.sp) else { return false };
        let len = distance.min(bytes.capacity());
        // SAFETY: the source is live stack, as the caller's promise and the bounds show; the destination belongs to `bytes`
        // alone.
        unsafe { copy_stack(registers.sp, bytes.as_mut_ptr(), len) };
        // SAFETY: `len` bytes of the capacity were written above.
        unsafe { bytes.set_len(len) };
        true
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
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(frame.distance_from(registers.sp)?.min(LONGEST_COPY)).ok()?;
        // SAFETY: the caller's promise.
        unsafe { frame.copy_from(registers, &mut bytes) };
        Self::of_copy(registers, bytes, frame)
    }

    /// The image of a stack whose `bytes`, from the stack pointer on towards `frame`, were copied already.
    ///
    /// `None` if the images of the process hold all that they may.
    pub(crate) fn of_copy(registers: Registers, bytes: Vec<u8>, frame: &PollFrame) -> Option<Self> {
        let len = bytes.len();
        // From here on `Drop` gives the bytes back.
        let image = Self { registers, bytes, poll_frame: frame.sp };
        (HELD.fetch_add(len, Ordering::Relaxed) + len <= ALL_IMAGES).then_some(image)
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
