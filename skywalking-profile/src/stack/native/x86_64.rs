//! What depends on the processor: x86_64.
#![expect(unsafe_code, reason = "inline assembly")]

use std::arch::asm;

use framehop::x86_64::UnwindRegsX86_64;
pub(super) use framehop::x86_64::{CacheX86_64 as Cache, UnwinderX86_64 as Framehop};

/// The arguments that a function may push for a call, in bytes.
pub(super) const MOST_PUSHED: u64 = 64;

/// The longest call instruction without prefixes, in bytes.
pub(super) const LONGEST_CALL: usize = 7;

/// What unwinding starts from: the registers of the frame that [`Registers::here`] is inlined into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    pub(super) pc: usize,
    pub(super) sp: usize,
    fp: usize,
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

    /// As framehop takes them. No bits of an address are a signature here, whatever the highest code address is.
    pub(super) fn to_unwind(self, _highest_code: u64) -> UnwindRegsX86_64 {
        UnwindRegsX86_64::new(self.pc as u64, self.sp as u64, self.fp as u64)
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

/// Whether `bytes` may end with a near call: `E8` with a 32-bit offset, or `FF /2` with a register or a memory operand
/// (Intel's Software Developer's Manual, volume 2, "CALL").
pub(super) fn ends_with_call(bytes: &[u8; LONGEST_CALL]) -> bool {
    const RELATIVE: u8 = 0xe8;
    const INDIRECT: u8 = 0xff;
    const RELATIVE_LENGTH: usize = 5;
    const INDIRECT_LENGTHS: [usize; 5] = [2, 3, 4, 6, 7];
    let at = |length: usize| LONGEST_CALL - length;
    let is_indirect = |length: usize| bytes[at(length)] == INDIRECT && (bytes[at(length) + 1] >> 3) & 7 == 2;
    bytes[at(RELATIVE_LENGTH)] == RELATIVE || INDIRECT_LENGTHS.into_iter().any(is_indirect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_other_instructions() {
        for call in [
            [0x90, 0x90, 0xe8, 1, 2, 3, 4],             // call rel32
            [0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xd0], // call rax
            [0x90, 0x90, 0x90, 0x90, 0x41, 0xff, 0xd7], // call r15
            [0x90, 0x90, 0x90, 0x90, 0xff, 0x50, 0x18], // call [rax + 0x18]
            [0x90, 0xff, 0x15, 1, 2, 3, 4],             // call [rip + disp32]
            [0xff, 0x94, 0x24, 1, 2, 3, 4],             // call [rsp + disp32]
        ] {
            assert!(ends_with_call(&call), "{call:x?}");
        }
        for other in [
            [0x90; LONGEST_CALL],
            [0x90, 0x90, 0xe9, 1, 2, 3, 4],             // jmp rel32
            [0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xe0], // jmp rax
            [0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xc0], // inc eax
        ] {
            assert!(!ends_with_call(&other), "{other:x?}");
        }
    }
}
