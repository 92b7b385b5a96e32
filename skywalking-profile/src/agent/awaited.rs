//! Which of the leaves that a poll left behind the request then waited for.
//!
//! The one that woke it; if several did, the first; if none, any of them. But an older leaf may be one that nobody awaits
//! any more, and only names tell ([`is_stale`](crate::stack::is_stale)), which are not looked up before a request is
//! reported. So the candidates are kept, each with the places where later leaves' stacks part from its own: usually that
//! is one candidate, and nothing parts.

use std::cmp::Reverse;
use std::sync::Arc;

use super::stacks::Addresses;
use crate::stack::CUT;

/// Leaves that are kept of one wait, of those that woke and of those that did not, the newest of them first.
const MOST_CANDIDATES: usize = 4;

/// Branches that are kept of one leaf, the farthest from the root first: there its own coroutine may have gone on.
const MOST_BRANCHES: usize = 4;

/// A leaf as far as the choice needs it.
#[derive(Debug)]
pub(super) struct Leaf {
    /// When it woke the request.
    pub(super) woken: Option<u64>,
    /// `None` if its stack could not be copied.
    pub(super) addresses: Option<Addresses>,
}

/// What a request waited for, as far as addresses tell.
#[derive(Clone, Debug)]
pub(super) struct Awaited(Arc<[Candidate]>);

#[derive(Debug)]
struct Candidate {
    has_woken: bool,
    addresses: Option<Addresses>,
    branches: Box<[Branch]>,
}

/// Where the stack of a later leaf parts from a candidate's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Branch {
    /// The index of the first address that differs, from the root.
    pub(super) depth: usize,
    /// The later leaf's address there.
    pub(super) address: u64,
}

impl Awaited {
    /// From the `leaves` of a poll in the order of their registration.
    pub(super) fn of(leaves: &[Leaf]) -> Self {
        let mut woken: Vec<usize> = (0..leaves.len()).filter(|&i| leaves[i].woken.is_some()).collect();
        woken.sort_by_key(|&i| leaves[i].woken);
        woken.truncate(MOST_CANDIDATES);
        let waiting = (0..leaves.len()).rev().filter(|&i| leaves[i].woken.is_none());

        let mut candidates: Vec<Candidate> = Vec::new();
        for i in woken.iter().copied().chain(waiting) {
            if candidates.len() == 2 * MOST_CANDIDATES {
                break;
            }
            let Leaf { woken, addresses } = &leaves[i];
            // Equal stacks are shown alike.
            if candidates.iter().any(|other| other.addresses == *addresses) {
                continue;
            }
            let branches = addresses.as_deref().map(|own| branches(own, &leaves[i + 1..])).unwrap_or_default();
            let is_certain = woken.is_some() && branches.is_empty();
            candidates.push(Candidate { has_woken: woken.is_some(), addresses: addresses.clone(), branches });
            if is_certain {
                break;
            }
        }
        Self(candidates.into())
    }

    /// The stacks of the leaves that it may have been: one, unless several were awaited and none woke. None if there was no
    /// leaf, or its stack could not be copied. `is_stale` tells whether a leaf is by how a later one branches off.
    pub(super) fn stacks(&self, mut is_stale: impl FnMut(&Addresses, Branch) -> bool) -> Vec<&Addresses> {
        let is_awaited = |candidate: &&Candidate| {
            let Some(addresses) = &candidate.addresses else { return true };
            !candidate.branches.iter().any(|branch| is_stale(addresses, *branch))
        };
        let mut awaited = self.0.iter().filter(is_awaited).peekable();
        let most = if awaited.peek().is_some_and(|first| first.has_woken) { 1 } else { MOST_CANDIDATES };
        awaited.take(most).filter_map(|candidate| candidate.addresses.as_ref()).collect()
    }

    /// Whether the likeliest of its stacks could be copied.
    pub(super) fn has_stack(&self) -> bool {
        self.0.first().is_some_and(|candidate| candidate.addresses.is_some())
    }
}

/// A stack that was cut off at its root has nothing to be compared by.
fn branches(own: &[u64], later: &[Leaf]) -> Box<[Branch]> {
    let mut branches = Vec::new();
    for other in later.iter().filter_map(|leaf| leaf.addresses.as_deref()) {
        let parts = own.iter().zip(other).position(|(own, other)| own != other);
        let Some(depth) = parts.filter(|depth| *depth > 0 && own[0] != CUT) else { continue };
        branches.push(Branch { depth, address: other[depth] });
    }
    branches.sort_unstable_by_key(|branch| (Reverse(branch.depth), branch.address));
    branches.dedup();
    branches.truncate(MOST_BRANCHES);
    branches.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(woken: Option<u64>, addresses: &[u64]) -> Leaf {
        Leaf { woken, addresses: Some(addresses.into()) }
    }

    /// Stacks that part below 1 are of one coroutine.
    fn stacks(awaited: &Awaited) -> Vec<&[u64]> {
        awaited.stacks(|addresses, branch| addresses[branch.depth - 1] == 1).into_iter().map(|stack| &**stack).collect()
    }

    #[track_caller]
    fn awaits(leaves: &[Leaf], expected: &[u64]) {
        assert_eq!(stacks(&Awaited::of(leaves)), [expected]);
    }

    #[test]
    fn the_leaf_that_woke_first_is_awaited() {
        awaits(&[leaf(Some(8), &[9, 2, 3]), leaf(Some(7), &[9, 2, 4]), leaf(None, &[9, 2, 5])], &[9, 2, 4]);
    }

    #[test]
    fn any_leaf_may_be_awaited_if_none_woke() {
        let awaited = Awaited::of(&[leaf(None, &[9, 2, 3]), leaf(None, &[9, 1, 5]), leaf(None, &[9, 1, 4])]);
        assert_eq!(stacks(&awaited), [[9, 1, 4], [9, 2, 3]]);
    }

    #[test]
    fn a_stale_leaf_is_not_awaited_even_if_it_woke() {
        awaits(&[leaf(Some(7), &[9, 1, 3]), leaf(None, &[9, 1, 4])], &[9, 1, 4]);
        let inner = [leaf(Some(7), &[9, 1, 3]), leaf(Some(8), &[9, 1, 4, 2, 5]), leaf(None, &[9, 1, 4, 2, 6])];
        awaits(&inner, &[9, 1, 4, 2, 5]);
    }

    #[test]
    fn equal_stacks_need_no_names() {
        let leaves: Vec<_> = (0..30).map(|i| leaf(Some(i), &[9, 2, 3])).collect();
        let awaited = Awaited::of(&leaves);
        assert_eq!((awaited.0.len(), awaited.0[0].branches.len()), (1, 0));
        awaits(&[leaf(None, &[9, 2, 3]), leaf(None, &[9, 2, 3])], &[9, 2, 3]);
    }

    #[test]
    fn what_is_kept_of_many_leaves_is_bounded() {
        let leaves: Vec<_> = (0..256).map(|i| leaf((i < 128).then_some(i), &[9, 1, 100 + i])).collect();
        let awaited = Awaited::of(&leaves);
        assert_eq!(awaited.0.len(), 2 * MOST_CANDIDATES);
        assert!(awaited.0.iter().all(|candidate| candidate.branches.len() <= MOST_BRANCHES));
        awaits(&leaves, &[9, 1, 355]);
    }

    #[test]
    fn a_leaf_whose_own_coroutine_went_on_is_stale_among_many() {
        let mut leaves = vec![leaf(Some(1), &[9, 2, 5, 1, 7])];
        leaves.extend((10..40).map(|arm| leaf(None, &[9, 2, arm])));
        leaves.push(leaf(Some(2), &[9, 2, 5, 1, 8]));
        leaves.push(leaf(None, &[9, 2, 41]));
        awaits(&leaves, &[9, 2, 5, 1, 8]);
    }

    #[test]
    fn without_a_leaf_nothing_is_shown() {
        assert!(stacks(&Awaited::of(&[])).is_empty());
        let stackless = Awaited::of(&[Leaf { woken: None, addresses: None }]);
        assert!(!stackless.has_stack() && stacks(&stackless).is_empty());
    }
}
