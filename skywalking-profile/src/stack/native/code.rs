//! What the executable memory of this process says about an address: whether a call returns there.
//!
//! Without rules for an address framehop falls back to frame pointers, which application code seldom keeps, and so may
//! take any word of the stack for a return address. One that no call instruction stands before is none.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use super::arch::{
    LONGEST_CALL, LONGEST_JUMP, LONGEST_PROLOGUE, callees, ends_with_call, frame_size, jump, linkage_slot,
};
use super::memory::Memory;

/// Addresses remembered: more than any service returns to.
const KNOWN: usize = 20_000;

/// Executable ranges, and the return addresses known so far: a few hundred in an ordinary service.
pub(super) struct Code {
    /// Sorted by start.
    ranges: Vec<Range<u64>>,
    /// Where functions start, sorted.
    functions: Vec<u64>,
    memory: Memory,
    known: HashMap<u64, bool>,
    /// By return address and function.
    calls: HashMap<(u64, u64), Calls>,
}

/// What the instruction before a return address may call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Callees {
    pub(super) direct: Option<u64>,
    /// Where the address of the function stands.
    pub(super) by_slot: Option<u64>,
    /// The instruction does not tell.
    pub(super) any: bool,
}

/// Whether a call is of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Calls {
    Surely,
    Perhaps,
    No,
}

impl Code {
    pub(super) fn new(mut ranges: Vec<Range<u64>>, mut functions: Vec<u64>) -> Self {
        ranges.sort_by_key(|range| range.start);
        functions.sort_unstable();
        Self { ranges, functions, memory: Memory::open(), known: HashMap::new(), calls: HashMap::new() }
    }

    /// Whether a call returns to `address`.
    pub(super) fn is_returned_to(&mut self, address: u64) -> bool {
        if let Some(known) = self.known.get(&address) {
            return *known;
        }
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        let is_returned_to = self.contains(address) && self.call(address).is_some_and(|bytes| ends_with_call(&bytes));
        self.known.insert(address, is_returned_to);
        is_returned_to
    }

    fn contains(&self, address: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.start <= address);
        after.checked_sub(1).is_some_and(|i| self.ranges[i].contains(&address))
    }

    /// Whether the call that returns to `address` is of the function that `callee`, an address within, is in.
    pub(super) fn calls(&mut self, address: u64, callee: u64) -> Calls {
        let Some(function) = self.function(callee) else { return Calls::No };
        if let Some(known) = self.calls.get(&(address, function)) {
            return *known;
        }
        if self.calls.len() >= KNOWN {
            self.calls.clear();
        }
        let calls = self.calls_function(address, function);
        self.calls.insert((address, function), calls);
        calls
    }

    fn calls_function(&self, address: u64, function: u64) -> Calls {
        let Some(call) = self.call(address) else { return Calls::No };
        let callees = callees(&call, address);
        let by_slot = || callees.by_slot.and_then(|slot| self.slot(slot));
        let is_surely = |called: Option<u64>| called.is_some_and(|called| self.leads_to(called, function));
        match is_surely(callees.direct) || is_surely(by_slot()) {
            true => Calls::Surely,
            false if callees.any => Calls::Perhaps,
            false => Calls::No,
        }
    }

    /// Whether a call of `called` is one of `function`, at once or by way of functions that only jump to others: entries of
    /// the procedure linkage table, and what is left of functions that only call another one.
    fn leads_to(&self, called: u64, function: u64) -> bool {
        const MOST_JUMPS: usize = 3;
        let jumps = std::iter::successors(Some(called), |address| self.jumps(*address));
        jumps.take(1 + MOST_JUMPS).any(|address| address == function)
    }

    /// How far below its frame pointer the stack pointer of the function that `callee` is in is, as far as its beginning tells.
    pub(super) fn frame_size(&self, callee: u64) -> u64 {
        let prologue = self.function(callee).and_then(|function| self.read::<LONGEST_PROLOGUE>(function));
        prologue.map_or(0, |prologue| frame_size(&prologue))
    }

    /// The start of the function that `address` is in.
    fn function(&self, address: u64) -> Option<u64> {
        let after = self.functions.partition_point(|start| *start <= address);
        after.checked_sub(1).map(|i| self.functions[i])
    }

    /// What the function at `address` jumps to, if it does nothing else.
    fn jumps(&self, address: u64) -> Option<u64> {
        let code = self.read::<LONGEST_JUMP>(address)?;
        jump(&code, address).or_else(|| self.slot(linkage_slot(&code, address)?))
    }

    fn slot(&self, address: u64) -> Option<u64> {
        self.read(address).map(u64::from_ne_bytes)
    }

    /// The instruction before `address`.
    fn call(&self, address: u64) -> Option<[u8; LONGEST_CALL]> {
        self.read(address.checked_sub(LONGEST_CALL as u64)?)
    }

    fn read<const LEN: usize>(&self, address: u64) -> Option<[u8; LEN]> {
        let mut bytes = [0; LEN];
        self.memory.read(address, &mut bytes).ok()?;
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
        let mut code = Code::new(std::iter::once(0x1000..0x2000).collect(), Vec::new());
        assert!(!code.is_returned_to(0x1800), "nothing is mapped there");
        let data = [0xe8_u8; 16];
        assert!(!code.is_returned_to(data.as_ptr().addr() as u64 + 8));
    }
}
