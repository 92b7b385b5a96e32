//! What depends on the processor: aarch64.
#![expect(unsafe_code, reason = "inline assembly")]

use std::arch::asm;
use std::ffi::c_void;

pub(super) use framehop::aarch64::{CacheAarch64 as Cache, UnwinderAarch64 as Framehop};
use framehop::aarch64::{PtrAuthMask, UnwindRegsAarch64};

use super::code::Callees;

/// The arguments that a function may push for a call, in bytes: none, they have their place in its frame.
pub(super) const MOST_PUSHED: u64 = 0;

/// The length of every instruction, in bytes.
pub(super) const LONGEST_CALL: usize = 4;

/// In place of a frame pointer that is not known: no stack is there.
const NOWHERE: usize = 8;

/// What unwinding starts from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    /// `None` if it is not known: the kernel does not tell that of a blocked thread.
    pub(super) fp: Option<usize>,
    /// The return address as long as the function has not stored it; anything after.
    lr: usize,
}

impl Registers {
    /// Those of the frame that this is inlined into.
    #[inline(always)]
    pub(super) fn here() -> Self {
        let (pc, sp, fp, lr);
        // SAFETY: reads four registers and touches neither memory nor flags.
        unsafe {
            asm!(
                // First: the other three may be put into x30.
                "mov {lr}, x30",
                "adr {pc}, .",
                "mov {sp}, sp",
                "mov {fp}, x29",
                pc = out(reg) pc,
                sp = out(reg) sp,
                fp = out(reg) fp,
                lr = out(reg) lr,
                options(nomem, nostack, preserves_flags),
            );
        }
        Self { pc, sp, fp: Some(fp), lr }
    }

    /// Those that a signal interrupted, and whether by that it made a system call fail with EINTR. Async-signal-safe.
    ///
    /// # Safety
    /// - `context` is what the kernel passes to a signal handler with SA_SIGINFO.
    #[inline(always)]
    pub(crate) unsafe fn of_signal(context: *const c_void) -> (Self, bool) {
        // SAFETY: the kernel passes a `ucontext_t`, as the caller promises.
        let context = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
        let (pc, sp) = (context.pc as usize, context.sp as usize);
        let [.., fp, lr] = context.regs.map(|register| register as usize);
        // Nothing tells a call that has returned from other code that has this number here: some may be counted in vain.
        let failed = context.regs[0].cast_signed() == -i64::from(libc::EINTR);
        (Self { pc, sp, fp: Some(fp), lr }, failed)
    }

    /// Those of a thread that is blocked.
    pub(crate) fn of_blocked(pc: usize, sp: usize) -> Self {
        Self { pc, sp, fp: None, lr: 0 }
    }

    pub(super) fn with_frame_pointer(self, fp: usize) -> Self {
        Self { fp: Some(fp), ..self }
    }

    /// As framehop takes them. Above the bits that `highest_code` needs a return address may carry a signature.
    pub(super) fn to_unwind(self, highest_code: u64) -> UnwindRegsAarch64 {
        // Without any known code, which has no highest address, framehop's shift would overflow.
        let mask = PtrAuthMask::from_max_known_address(highest_code.max(1));
        UnwindRegsAarch64::new_with_ptr_auth_mask(
            mask,
            self.lr as u64,
            self.sp as u64,
            self.fp.unwrap_or(NOWHERE) as u64,
        )
    }
}

/// The stack pointer of the function that this is inlined into.
#[inline(always)]
pub(super) fn stack_pointer() -> usize {
    let sp;
    // SAFETY: reads one register and touches neither memory nor flags.
    unsafe { asm!("mov {}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// Copies `len` bytes of stack memory.
///
/// # Safety
/// - `[from, from + len)` is mapped and readable.
/// - `[to, to + len)` is writable, and no reference to it is alive but the one that `to` was made from.
#[inline(always)]
pub(super) unsafe fn copy_stack(from: usize, to: *mut u8, len: usize) {
    // SAFETY: the caller vouches for both ranges.
    unsafe {
        asm!(
            // By pairs of words; what is left, which is nothing between two stack pointers, by bytes.
            "subs {len}, {len}, #16",
            "b.lo 3f",
            "2:",
            "ldp {a}, {b}, [{from}], #16",
            "stp {a}, {b}, [{to}], #16",
            "subs {len}, {len}, #16",
            "b.hs 2b",
            "3:",
            "adds {len}, {len}, #16",
            "b.eq 5f",
            "4:",
            "ldrb {a:w}, [{from}], #1",
            "strb {a:w}, [{to}], #1",
            "subs {len}, {len}, #1",
            "b.ne 4b",
            "5:",
            a = out(reg) _,
            b = out(reg) _,
            len = inout(reg) len => _,
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            options(nostack),
        );
    }
}

/// Whether `bytes` are a call: `BL`, `BLR`, or one of the four that authenticate the address they call (Arm Architecture
/// Reference Manual for A-profile, C6.2, "BL", "BLR" and "BLRAA, BLRAAZ, BLRAB, BLRABZ").
pub(super) fn ends_with_call(bytes: &[u8; LONGEST_CALL]) -> bool {
    is_any(bytes, &[BL, BLR, BLRAAZ_BLRABZ, BLRAA_BLRAB])
}

/// What the call `bytes` calls, if it returns to `address`.
pub(super) fn callees(bytes: &[u8; LONGEST_CALL], address: u64) -> Callees {
    Callees {
        direct: is_any(bytes, &[BL]).then(|| branch_target(bytes, address - 4)),
        by_slot: None,
        any: is_any(bytes, &[BLR, BLRAAZ_BLRABZ, BLRAA_BLRAB]),
    }
}

/// Not looked into here: blocking calls that go through the procedure linkage table are cut off.
pub(super) fn linkage_slot(_: &[u8; LONGEST_JUMP], _: u64) -> Option<u64> {
    None
}

/// The target of the jump that a function at `address` begins with: `B`.
pub(super) fn jump(code: &[u8; LONGEST_JUMP], address: u64) -> Option<u64> {
    is_any(code, &[B]).then(|| branch_target(code, address))
}

/// Of `BL` and `B` at `address`: 26 bits, in words, from the instruction itself.
fn branch_target(instruction: &[u8; 4], address: u64) -> u64 {
    let offset = (u32::from_le_bytes(*instruction) << 6).cast_signed() >> 4;
    address.wrapping_add_signed(offset.into())
}

/// The bytes of a function that jumps that [`linkage_slot`] and [`jump`] look at.
pub(super) const LONGEST_JUMP: usize = 4;

/// Not looked into here.
pub(super) fn frame_size(_: &[u8; LONGEST_PROLOGUE]) -> u64 {
    0
}

/// The bytes at a function's beginning that [`frame_size`] looks at.
pub(super) const LONGEST_PROLOGUE: usize = 4;

/// The bits that tell an instruction, and what they are.
type Instruction = (u32, u32);

const B: Instruction = (0xfc00_0000, 0x1400_0000);
const BL: Instruction = (0xfc00_0000, 0x9400_0000);
const BLR: Instruction = (0xffff_fc1f, 0xd63f_0000);
const BLRAAZ_BLRABZ: Instruction = (0xffff_f81f, 0xd63f_081f);
const BLRAA_BLRAB: Instruction = (0xffff_f800, 0xd73f_0800);

fn is_any(bytes: &[u8; LONGEST_CALL], of: &[Instruction]) -> bool {
    let instruction = u32::from_le_bytes(*bytes);
    of.iter().any(|(bits, call)| instruction & bits == *call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_return_address_loses_its_signature() {
        let registers = Registers { lr: 0x00b7_aaaa_1234_5678, ..Registers::default() };
        assert_eq!(registers.to_unwind(0xffff_8000_0000).lr(), 0xaaaa_1234_5678);
        // No module could be read.
        registers.to_unwind(0);
    }

    #[test]
    fn what_a_call_calls_is_known_unless_a_register_tells() {
        let of = |instruction: u32| callees(&instruction.to_le_bytes(), 0x1004);
        assert_eq!((of(0x9400_0001).direct, of(0x9400_0001).any), (Some(0x1004), false));
        assert_eq!((of(0x97ff_fff0).direct, of(0x97ff_fff0).any), (Some(0xfc0), false));
        assert_eq!((of(0xd63f_0100).direct, of(0xd63f_0100).any), (None, true));
    }

    #[test]
    fn a_function_that_only_jumps_is_known() {
        assert_eq!(jump(&0x1400_0002_u32.to_le_bytes(), 0x1000), Some(0x1008));
        assert_eq!(jump(&0x9400_0002_u32.to_le_bytes(), 0x1000), None);
    }

    #[test]
    fn calls_are_told_from_other_instructions() {
        for call in [
            0x9400_0001_u32, // bl .+4
            0x97ff_fff0,     // bl .-64
            0xd63f_0100,     // blr x8
            0xd63f_03c0,     // blr x30
            0xd63f_091f,     // blraaz x8
            0xd63f_0d1f,     // blrabz x8
            0xd73f_0909,     // blraa x8, x9
            0xd73f_0d1f,     // blrab x8, sp
        ] {
            assert!(ends_with_call(&call.to_le_bytes()), "{call:x}");
        }
        for other in [
            0xd503_201f_u32, // nop
            0x1400_0001,     // b .+4
            0xd61f_0100,     // br x8
            0xd71f_0909,     // braa x8, x9
            0xd65f_03c0,     // ret
            0xb400_0040,     // cbz x0, .+8
        ] {
            assert!(!ends_with_call(&other.to_le_bytes()), "{other:x}");
        }
    }
}
