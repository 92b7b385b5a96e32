//! What the executable memory of this process says about an address: whether a call returns there.
//!
//! Without rules for an address framehop falls back to frame pointers, which application code seldom keeps, and so may
//! take any word of the stack for a return address. One that no call instruction stands before is none.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// The longest call instruction without prefixes, in bytes.
const LONGEST_CALL: usize = 7;

/// Addresses remembered: more than any service returns to.
const KNOWN: usize = 20_000;

/// Executable ranges, and the return addresses known so far: a few hundred in an ordinary service.
pub(super) struct Code {
    /// Sorted by start.
    ranges: Vec<Range<u64>>,
    /// `/proc/self/mem`: a page that is gone is an error there and not a signal.
    memory: Option<File>,
    known: HashMap<u64, bool>,
}

impl Code {
    pub(super) fn new(mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_by_key(|range| range.start);
        Self { ranges, memory: File::open("/proc/self/mem").ok(), known: HashMap::new() }
    }

    /// Whether a call returns to `address`.
    pub(super) fn is_returned_to(&mut self, address: u64) -> bool {
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let is_returned_to = self.contains(address) && self.before(address).is_some_and(|bytes| ends_with_call(&bytes));
        self.known.insert(address, is_returned_to);
        is_returned_to
    }

    fn contains(&self, address: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.start <= address);
        after.checked_sub(1).is_some_and(|i| self.ranges[i].contains(&address))
    }

    fn before(&self, address: u64) -> Option<[u8; LONGEST_CALL]> {
        let mut bytes = [0; LONGEST_CALL];
        let start = address.checked_sub(LONGEST_CALL as u64)?;
        self.memory.as_ref()?.read_exact_at(&mut bytes, start).ok()?;
        Some(bytes)
    }
}

/// Whether `bytes` may end with a near call: `E8` with a 32-bit offset, or `FF /2` with a register or a memory operand
/// (Intel's Software Developer's Manual, volume 2, "CALL").
fn ends_with_call(bytes: &[u8; LONGEST_CALL]) -> bool {
    const RELATIVE: u8 = 0xe8;
    const INDIRECT: u8 = 0xff;
    const RELATIVE_LENGTH: usize = 5;
    const INDIRECT_LENGTHS: [usize; 5] = [2, 3, 4, 6, 7];
    let at = |length: usize| LONGEST_CALL - length;
    let is_indirect = |length: usize| bytes[at(length)] == INDIRECT && (bytes[at(length) + 1] >> 3) & 7 == 2;
    bytes[at(RELATIVE_LENGTH)] == RELATIVE || INDIRECT_LENGTHS.into_iter().any(is_indirect)
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code").field("ranges", &self.ranges.len()).field("known", &self.known.len()).finish()
    }
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

    #[test]
    fn what_is_no_code_is_not_returned_to() {
        let mut code = Code::new(std::iter::once(0x1000..0x2000).collect());
        assert!(!code.is_returned_to(0x1800), "nothing is mapped there");
        let data = [0xe8_u8; 16];
        assert!(!code.is_returned_to(data.as_ptr().addr() as u64 + 8));
    }
}
