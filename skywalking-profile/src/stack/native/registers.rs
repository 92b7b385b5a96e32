//! The machine-level parts of a capture: reading registers and copying stack memory.
//!
//! Stack bytes belong to other functions' locals, which Rust's aliasing rules and AddressSanitizer's redzones both guard.
//! They are therefore read by assembly alone, whose effect the compiler sees only as a write to the destination.
#![expect(unsafe_code, reason = "inline assembly")]

use std::arch::asm;

/// What unwinding starts from: the registers of the frame that [`Registers::here`] is inlined into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub(super) pc: usize,
    pub(super) sp: usize,
    pub(super) fp: usize,
}

impl Registers {
    #[inline(always)]
    pub(super) fn here() -> Self {
        let (pc, sp, fp);
        // SAFETY: reads three registers and touches neither memory nor flags.
        unsafe {
            asm!(
                "lea {pc}, [rip]",
                "mov {sp}, rsp",
                "mov {fp}, rbp",
                pc = out(reg) pc,
                sp = out(reg) sp,
                fp = out(reg) fp,
                options(nomem, nostack, preserves_flags),
            );
        }
        Self { pc, sp, fp }
    }
}

/// The stack pointer of the function that this is inlined into.
#[inline(always)]
pub(super) fn stack_pointer() -> usize {
    let sp;
    // SAFETY: reads one register and touches neither memory nor flags.
    unsafe { asm!("mov {}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Copies `len` bytes of stack memory.
///
/// # Safety
/// - `[from, from + len)` is mapped and readable.
/// - `[to, to + len)` is writable, and no reference to it is alive but the one that `to` was made from.
#[inline(always)]
pub(super) unsafe fn copy_stack(from: usize, to: *mut u8, len: usize) {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear as the ABI demands.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}
