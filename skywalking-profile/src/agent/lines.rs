//! The leaves of a strand, from wait to wait: what it awaited, from when to when, and what of it woke it.

use std::cmp::Reverse;

use super::stacks::Addresses;
use crate::await_tree::Line;
use crate::request::Wake;
use crate::stack::CUT;

/// Places where later leaves of one poll branch off that are kept of a leaf, the farthest from the root first: there its own
/// coroutine may have gone on.
const MOST_BRANCHES: usize = 4;

/// A leaf as long as it was awaited at one place, through however many waits of its strand. Times are by
/// [`clock::now`](crate::clock::now).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) from: u64,
    /// The end of the last wait that it was a leaf of.
    pub(super) to: u64,
    pub(super) line: Line,
    /// `None` if its stack could not be copied.
    pub(super) addresses: Option<Addresses>,
    /// Where later leaves of the same polls branch off.
    pub(super) branches: Vec<Branch>,
    /// What ended it: it woke the strand.
    pub(super) woken: Option<Woken>,
}

/// A leaf's wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Woken {
    pub(super) at: u64,
    /// The number of the other strand of the request whose doing it was.
    pub(super) by: Option<u64>,
}

/// Where the stack of a later leaf of the same poll parts from a leaf's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    /// The index of the first address that differs, from the root.
    pub(super) depth: usize,
    /// The later leaf's address there.
    pub(super) address: u64,
}

/// A leaf of one wait.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) line: Line,
    pub(super) addresses: Option<Addresses>,
    pub(super) woken: Option<Woken>,
}

/// All leaves of a strand so far.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Those of the latest wait.
    open: Vec<Piece>,
    ended: Vec<Piece>,
}

impl Lines {
    /// The strand waited from `from` to `to` for `leaves`, which are in the order of their registration.
    pub(super) fn wait(&mut self, from: u64, to: u64, leaves: Vec<Seen>) {
        let mut before = std::mem::take(&mut self.open);
        for (i, leaf) in leaves.iter().enumerate() {
            let branches = leaf.addresses.as_deref().map(|own| branches(own, &leaves[i + 1..])).unwrap_or_default();
            let goes_on = |piece: &Piece| piece.goes_on(leaf, &branches);
            self.open.push(match before.iter().position(goes_on) {
                Some(earlier) => Piece { to, woken: leaf.woken, ..before.swap_remove(earlier) },
                None => {
                    Piece { from, to, line: leaf.line, addresses: leaf.addresses.clone(), branches, woken: leaf.woken }
                }
            });
        }
        self.ended.append(&mut before);
    }

    /// Waits that were not told ended by these wakes.
    pub(super) fn untold(&mut self, wakes: &[Wake]) {
        for wake in wakes {
            if let Some(piece) = self.open.iter_mut().find(|piece| piece.line == wake.line && piece.woken.is_none()) {
                piece.woken = Some(Woken { at: wake.at, by: wake.by });
            }
        }
    }

    /// How many there are, without those that the strand still waits for.
    pub(super) fn ended(&self) -> usize {
        self.ended.len()
    }

    /// Drops what ended and lasted less than `least`.
    pub(super) fn keep(&mut self, least: u64) {
        self.ended.retain(|piece| piece.to - piece.from >= least);
        self.ended.shrink_to_fit();
    }

    /// In the order in which they began; those that began in one wait, in the order of their registration.
    pub(super) fn pieces(&self) -> Vec<&Piece> {
        let mut pieces: Vec<&Piece> = self.ended.iter().chain(&self.open).collect();
        pieces.sort_by_key(|piece| piece.from);
        pieces
    }
}

impl Piece {
    /// Whether the leaf of a later wait is this one, and is awaited if this one is: a branch that was not known may show that
    /// nobody awaits it any more.
    fn goes_on(&self, leaf: &Seen, branches: &[Branch]) -> bool {
        self.line == leaf.line
            && self.woken.is_none()
            && self.addresses == leaf.addresses
            && branches.iter().all(|branch| self.branches.contains(branch))
    }
}

/// A stack that was cut off at its root has nothing to be compared by.
fn branches(own: &[u64], later: &[Seen]) -> Vec<Branch> {
    let mut branches = Vec::new();
    for other in later.iter().filter_map(|leaf| leaf.addresses.as_deref()) {
        let parts = own.iter().zip(other).position(|(own, other)| own != other);
        let Some(depth) = parts.filter(|depth| *depth > 0 && own[0] != CUT) else { continue };
        branches.push(Branch { depth, address: other[depth] });
    }
    branches.sort_unstable_by_key(|branch| (Reverse(branch.depth), branch.address));
    branches.dedup();
    branches.truncate(MOST_BRANCHES);
    branches
}
