//! The leaves of a strand, from wait to wait: what it awaited, from when to when, and what of it woke it.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::stacks::Addresses;
use crate::await_tree::{Cause, Line};
use crate::request::Wake;
use crate::stack::CUT;

/// Places where later leaves of one poll branch off that are kept of a leaf, the farthest from the root first: there its own
/// coroutine may have gone on.
const MOST_BRANCHES: usize = 4;

/// Leaves of one poll that each one is compared with.
const MOST_COMPARED: usize = 64;

/// And of all its polls together.
const MOST_KNOWN_BRANCHES: usize = 8;

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
    /// Stands for where all leaves of the same polls do.
    pub(super) others: u64,
    /// What ended it: it woke the strand.
    pub(super) woken: Option<Woken>,
    /// It asked for nothing but to be polled again.
    pub(super) has_yielded: bool,
}

/// A leaf's wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Woken {
    pub(super) at: u64,
    pub(super) by: Option<Cause>,
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
    pub(super) has_yielded: bool,
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
            let own = leaf.addresses.as_deref().unwrap_or_default();
            let mut branches = branches(own, &leaves[i + 1..]);
            let others = hash(own, &leaves);
            let goes_on = |piece: &Piece| piece.goes_on(leaf, others);
            self.open.push(match before.iter().position(goes_on) {
                Some(earlier) => {
                    let mut piece = before.swap_remove(earlier);
                    branches.retain(|branch| !piece.branches.contains(branch));
                    branches.truncate(MOST_KNOWN_BRANCHES.saturating_sub(piece.branches.len()));
                    piece.branches.append(&mut branches);
                    Piece { to, woken: leaf.woken, ..piece }
                }
                None => {
                    let Seen { line, ref addresses, woken, has_yielded } = *leaf;
                    Piece { from, to, line, addresses: addresses.clone(), branches, others, woken, has_yielded }
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
    #[cfg(test)]
    pub(super) fn new((from, to): (u64, u64), line: Line, stack: &[u64], woken: Option<Woken>) -> Self {
        let addresses = Some(stack.into());
        Self { from, to, line, addresses, branches: Vec::new(), others: 0, woken, has_yielded: false }
    }

    /// Whether the leaf of a later wait is this one, and is awaited if this one is: beside others it may not be.
    fn goes_on(&self, leaf: &Seen, others: u64) -> bool {
        self.line == leaf.line && self.woken.is_none() && self.addresses == leaf.addresses && self.others == others
    }
}

/// Where all of a poll's leaves branch off the stack `own`, in whatever order they registered: arms of a `join!` are polled in
/// turns.
fn hash(own: &[u64], leaves: &[Seen]) -> u64 {
    let mut branches: Vec<(usize, u64)> = leaves
        .iter()
        .take(MOST_COMPARED)
        .filter_map(|leaf| {
            let other = leaf.addresses.as_deref()?;
            let depth = own.iter().zip(other).position(|(own, other)| own != other)?;
            Some((depth, other[depth]))
        })
        .collect();
    branches.sort_unstable();
    branches.dedup();
    let mut hasher = DefaultHasher::new();
    branches.hash(&mut hasher);
    hasher.finish()
}

/// A stack that was cut off at its root has nothing to be compared by.
fn branches(own: &[u64], later: &[Seen]) -> Vec<Branch> {
    let mut branches = Vec::new();
    for other in later.iter().take(MOST_COMPARED).filter_map(|leaf| leaf.addresses.as_deref()) {
        let parts = own.iter().zip(other).position(|(own, other)| own != other);
        let Some(depth) = parts.filter(|depth| *depth > 0 && own[0] != CUT) else { continue };
        branches.push(Branch { depth, address: other[depth] });
    }
    branches.sort_unstable_by_key(|branch| (Reverse(branch.depth), branch.address));
    branches.dedup();
    branches.truncate(MOST_BRANCHES);
    branches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(line: Line, stack: &[u64], woken: Option<u64>) -> Seen {
        Seen { line, addresses: Some(stack.into()), woken: woken.map(|at| Woken { at, by: None }), has_yielded: false }
    }

    /// Line, from, to, and when it woke.
    fn shown(lines: &Lines) -> Vec<(Line, u64, u64, Option<u64>)> {
        lines
            .pieces()
            .iter()
            .map(|piece| (piece.line, piece.from, piece.to, piece.woken.map(|woken| woken.at)))
            .collect()
    }

    #[test]
    fn a_leaf_goes_on_until_it_wakes_or_is_gone() {
        let mut lines = Lines::default();
        lines.wait(0, 10, vec![leaf(1, &[9, 1], Some(10)), leaf(2, &[9, 2], None), leaf(3, &[9, 1], None)]);
        lines.wait(11, 20, vec![leaf(4, &[9, 1], None), leaf(2, &[9, 2], Some(19))]);
        let mut shown = shown(&lines);
        shown.sort_unstable();
        assert_eq!(shown, [(1, 0, 10, Some(10)), (2, 0, 20, Some(19)), (3, 0, 10, None), (4, 11, 20, None)]);
        assert_eq!(lines.ended(), 2);
    }

    #[test]
    fn at_another_place_it_is_another_piece() {
        let mut lines = Lines::default();
        lines.wait(0, 10, vec![leaf(1, &[9, 1], None)]);
        lines.wait(10, 20, vec![leaf(1, &[9, 2], None)]);
        assert_eq!(shown(&lines), [(1, 0, 10, None), (1, 10, 20, None)]);
    }

    #[test]
    fn what_shows_that_it_may_be_stale_begins_a_piece() {
        let mut lines = Lines::default();
        let (own, other, next) = (leaf(1, &[9, 1, 5], None), leaf(2, &[9, 2], None), leaf(3, &[9, 1, 6], None));
        lines.wait(0, 10, vec![own.clone(), other.clone()]);
        // As arms that are polled in turns.
        lines.wait(10, 20, vec![other.clone(), own.clone()]);
        lines.wait(20, 30, vec![own.clone(), other.clone()]);
        assert_eq!(lines.ended(), 0);
        lines.wait(30, 40, vec![own.clone(), next]);
        lines.wait(40, 50, vec![other, own]);
        let of_own: Vec<_> = shown(&lines).into_iter().filter(|(line, ..)| *line == 1).collect();
        assert_eq!(of_own, [(1, 0, 30, None), (1, 30, 40, None), (1, 40, 50, None)], "it may be stale for a while");
    }

    #[test]
    fn waits_that_were_not_told_end_pieces() {
        let mut lines = Lines::default();
        lines.wait(0, 10, vec![leaf(1, &[9, 1], Some(10)), leaf(2, &[9, 2], None)]);
        let by = Some(Cause { strand: 7, has_ended: false });
        lines.untold(&[Wake { line: 2, at: 11, by }, Wake { line: 3, at: 11, by: None }]);
        let woken: Vec<_> = lines.pieces().iter().map(|piece| piece.woken).collect();
        assert_eq!(woken, [Some(Woken { at: 10, by: None }), Some(Woken { at: 11, by })]);
    }

    #[test]
    fn what_is_known_of_where_others_branch_off_is_bounded() {
        let leaves: Vec<_> = (0..256).map(|i| leaf(i, &[9, 1, 100 + i], None)).collect();
        let mut lines = Lines::default();
        lines.wait(0, 10, leaves);
        assert!(lines.pieces().iter().all(|piece| piece.branches.len() <= MOST_BRANCHES));
        let cut = vec![leaf(1, &[CUT, 1], None), leaf(2, &[CUT, 2], None)];
        let mut lines = Lines::default();
        lines.wait(0, 10, cut);
        assert!(lines.pieces().iter().all(|piece| piece.branches.is_empty()), "nothing to compare by");
    }

    #[test]
    fn the_shortest_that_ended_are_dropped() {
        let mut lines = Lines::default();
        for i in 0..100 {
            lines.wait(10 * i, 10 * i + 1 + i % 10, vec![leaf(i, &[9, 1], Some(10 * i + 1))]);
        }
        lines.keep(5);
        assert_eq!(lines.ended(), 59, "and the one that was seen last stays in any case");
    }
}
