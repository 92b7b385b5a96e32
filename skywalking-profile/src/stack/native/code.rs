//! What the executable memory of this process says about an address: whether a call returns there.
//!
//! Without rules for an address framehop falls back to frame pointers, which application code seldom keeps, and so may
//! take any word of the stack for a return address. One that no call instruction stands before is none.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::arch::{LONGEST_CALL, ends_with_call};

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

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code").field("ranges", &self.ranges.len()).field("known", &self.known.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_code_is_not_returned_to() {
        let mut code = Code::new(std::iter::once(0x1000..0x2000).collect());
        assert!(!code.is_returned_to(0x1800), "nothing is mapped there");
        let data = [0xe8_u8; 16];
        assert!(!code.is_returned_to(data.as_ptr().addr() as u64 + 8));
    }
}
