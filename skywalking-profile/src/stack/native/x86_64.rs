//! What depends on the processor: x86_64.
#![expect(unsafe_code, reason = "inline assembly")]

use std::arch::asm;
use std::ffi::c_void;

use framehop::x86_64::UnwindRegsX86_64;
pub(super) use framehop::x86_64::{CacheX86_64 as Cache, UnwinderX86_64 as Framehop};

use super::code::Callees;

/// The arguments that a function may push for a call, in bytes.
pub(super) const MOST_PUSHED: u64 = 64;

/// The longest call instruction without prefixes, in bytes.
pub(super) const LONGEST_CALL: usize = 7;

/// In place of a frame pointer that is not known: no stack is there.
const NOWHERE: usize = 8;

/// What unwinding starts from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    /// `None` if it is not known: the kernel does not tell that of a blocked thread.
    pub(super) fp: Option<usize>,
}

impl Registers {
    /// Those of the frame that this is inlined into.
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
        Self { pc, sp, fp: Some(fp) }
    }

    /// Those that a signal interrupted, and whether by that it made a system call fail with EINTR. Async-signal-safe.
    ///
    /// # Safety
    /// - `context` is what the kernel passes to a signal handler with SA_SIGINFO.
    #[inline(always)]
    pub(crate) unsafe fn of_signal(context: *const c_void) -> (Self, bool) {
        // SAFETY: the kernel passes a `ucontext_t`, as the caller promises.
        let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
        let of = |register: i32| registers[register as usize] as usize;
        let pc = of(libc::REG_RIP);
        // The SYSCALL instruction leaves the address after it in RCX. A call that is to be restarted is not past it.
        let failed = of(libc::REG_RCX) == pc && registers[libc::REG_RAX as usize] == -i64::from(libc::EINTR);
        (Self { pc, sp: of(libc::REG_RSP), fp: Some(of(libc::REG_RBP)) }, failed)
    }

    /// Those of a thread that is blocked.
    pub(crate) fn of_blocked(pc: usize, sp: usize) -> Self {
        Self { pc, sp, fp: None }
    }

    pub(super) fn with_frame_pointer(self, fp: usize) -> Self {
        Self { fp: Some(fp), ..self }
    }

    /// As framehop takes them. No bits of an address are a signature here, whatever the highest code address is.
    pub(super) fn to_unwind(self, _highest_code: u64) -> UnwindRegsX86_64 {
        UnwindRegsX86_64::new(self.pc as u64, self.sp as u64, self.fp.unwrap_or(NOWHERE) as u64)
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
    bytes[AT_RELATIVE] == RELATIVE || is_indirect(bytes, &[2, 3, 4, 6, 7])
}

/// What the calls that `bytes` may end with call, if they return to `address`.
pub(super) fn callees(bytes: &[u8; LONGEST_CALL], address: u64) -> Callees {
    let [.., a, b, c, d] = *bytes;
    let operand = address.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
    Callees {
        direct: (bytes[AT_RELATIVE] == RELATIVE).then_some(operand),
        // `FF 15`: of the address that lies at an offset from here.
        by_slot: (bytes[AT_RELATIVE - 1..=AT_RELATIVE] == [INDIRECT, 0x15]).then_some(operand),
        // Registers and what they point to.
        any: is_indirect(bytes, &[2, 3, 4, 7]) || is_indirect(bytes, &[6]) && bytes[AT_RELATIVE] != 0x15,
    }
}

/// The slot whose address a function of the procedure linkage table jumps to: `jmp [rip + slot]`, after ENDBR64 and a BND
/// prefix or not (System V ABI, AMD64 supplement, "Procedure Linkage Table").
pub(super) fn linkage_slot(code: &[u8; LONGEST_JUMP], address: u64) -> Option<u64> {
    let start = jump_start(code);
    let [INDIRECT, 0x25, a, b, c, d] = code[start..start + 6] else { return None };
    let next = address + start as u64 + 6;
    Some(next.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into()))
}

/// The target of the relative jump that a function at `address` begins with: `E9` with a 32-bit offset.
pub(super) fn jump(code: &[u8; LONGEST_JUMP], address: u64) -> Option<u64> {
    let start = jump_start(code);
    let [0xe9, a, b, c, d] = code[start..start + 5] else { return None };
    let next = address + start as u64 + 5;
    Some(next.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into()))
}

/// Where a jump stands, after ENDBR64 and a BND prefix.
fn jump_start(code: &[u8; LONGEST_JUMP]) -> usize {
    let start = if code.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
    start + usize::from(code[start] == 0xf2)
}

/// The bytes of a function that jumps that [`linkage_slot`] and [`jump`] look at.
pub(super) const LONGEST_JUMP: usize = 11;

/// How far below the frame pointer the stack pointer is at least once a function that begins with `code` has made its frame:
/// the registers that it pushes, and the room that it takes. 0 if it does not begin as compilers begin functions that keep a
/// frame pointer: `push rbp; mov rbp, rsp`.
pub(super) fn frame_size(code: &[u8; LONGEST_PROLOGUE]) -> u64 {
    let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    let (mut rest, mut size) = match code {
        [0x55, 0x48, 0x89, 0xe5, rest @ ..] | [0x55, 0x48, 0x8b, 0xec, rest @ ..] => (rest, 0),
        _ => return 0,
    };
    loop {
        rest = match rest {
            // push
            [0x50..=0x57, rest @ ..] | [0x41, 0x50..=0x57, rest @ ..] => {
                size += 8;
                rest
            }
            // and rsp, which takes an unknown number of bytes
            [0x48, 0x83, 0xe4, _, rest @ ..] | [0x48, 0x81, 0xe4, _, _, _, _, rest @ ..] => rest,
            // sub rsp
            [0x48, 0x83, 0xec, room @ 0..=0x7f, rest @ ..] => {
                size += u64::from(*room);
                rest
            }
            [0x48, 0x81, 0xec, a, b, c, d, rest @ ..] => {
                size += u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
                rest
            }
            // mov qword ptr [rsp], 0: touches each page.
            [0x48, 0xc7, 0x04, 0x24, 0, 0, 0, 0, rest @ ..] => rest,
            _ => return size,
        }
    }
}

/// The bytes at a function's beginning that [`frame_size`] looks at.
pub(super) const LONGEST_PROLOGUE: usize = 64;

const RELATIVE: u8 = 0xe8;
const INDIRECT: u8 = 0xff;

/// Where the opcode of a relative call stands.
const AT_RELATIVE: usize = LONGEST_CALL - 5;

fn is_indirect(bytes: &[u8; LONGEST_CALL], lengths: &[usize]) -> bool {
    let at = |length: usize| LONGEST_CALL - length;
    lengths.iter().any(|&length| bytes[at(length)] == INDIRECT && (bytes[at(length) + 1] >> 3) & 7 == 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_calls_is_known_unless_a_register_tells() {
        let of = |bytes: [u8; LONGEST_CALL]| callees(&bytes, 0x1000);
        let direct = of([0x90, 0x90, 0xe8, 0xf0, 0xff, 0xff, 0xff]);
        assert_eq!((direct.direct, direct.by_slot, direct.any), (Some(0xff0), None, false));
        let by_slot = of([0x90, 0xff, 0x15, 0x10, 0, 0, 0]);
        assert_eq!((by_slot.direct, by_slot.by_slot, by_slot.any), (None, Some(0x1010), false));
        let any = of([0x90, 0x90, 0x90, 0x90, 0xff, 0x50, 0x18]);
        assert_eq!((any.direct, any.by_slot, any.any), (None, None, true));
    }

    #[test]
    fn the_linkage_table_jumps_by_its_slots() {
        assert_eq!(linkage_slot(&[0xff, 0x25, 0x10, 0, 0, 0, 0x68, 0, 0, 0, 0], 0x1000), Some(0x1016));
        assert_eq!(linkage_slot(&[0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0x10, 0, 0, 0], 0x1000), Some(0x101b));
        assert_eq!(linkage_slot(&[0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0x10, 0, 0, 0, 0], 0x1000), Some(0x101a));
        assert_eq!(linkage_slot(&[0x55; LONGEST_JUMP], 0x1000), None);
    }

    #[test]
    fn a_function_that_only_jumps_is_known() {
        assert_eq!(jump(&[0xe9, 0x10, 0, 0, 0, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc], 0x1000), Some(0x1015));
        assert_eq!(jump(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0xf7, 0xff, 0xff, 0xff, 0, 0], 0x1000), Some(0x1000));
        assert_eq!(jump(&[0x55; LONGEST_JUMP], 0x1000), None);
    }

    #[test]
    fn the_size_of_a_frame_is_read_from_the_functions_beginning() {
        let size = |bytes: &[u8]| {
            let mut code = [0x90; LONGEST_PROLOGUE];
            code[..bytes.len()].copy_from_slice(bytes);
            frame_size(&code)
        };
        let pushes = [0x55, 0x48, 0x89, 0xe5, 0x41, 0x57, 0x41, 0x56, 0x53];
        assert_eq!(size(&pushes), 24);
        assert_eq!(size(&[&pushes[..], &[0x48, 0x83, 0xec, 0x28]].concat()), 24 + 0x28);
        let aligned = [0x48, 0x83, 0xe4, 0xc0, 0x48, 0x81, 0xec, 0xc0, 0x0f, 0, 0];
        assert_eq!(size(&[&pushes[..], &aligned].concat()), 24 + 0xfc0);
        assert_eq!(size(&[0x53, 0x48, 0x83, 0xec, 0x28]), 0, "no frame pointer");
    }

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
