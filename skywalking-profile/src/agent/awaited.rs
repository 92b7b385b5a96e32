//! Which of the leaves that a poll left behind the request then waited for.
//!
//! The one that woke it; if several did, the first; if none, the newest. But an older leaf may be one that nobody awaits
//! any more, and only names tell ([`is_stale`](crate::stack::is_stale)), which are not looked up before a request is
//! reported. So the candidates are kept, each with the places where later leaves' stacks part from its own: usually that
//! is one candidate, and nothing parts.

use std::cmp::Reverse;

use super::stacks::Addresses;
use crate::stack::CUT;

/// Woken leaves that are kept of one wait; beyond, the newest counts.
const MOST_CANDIDATES: usize = 4;

/// Branches that are kept of one leaf, the farthest from the root first: there its own coroutine may have gone on.
const MOST_BRANCHES: usize = 4;

/// A leaf as far as the choice needs it.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// When it woke the request.
    pub(super) woken: Option<u64>,
    /// `None` if its stack could not be copied.
    pub(super) addresses: Option<Addresses>,
}

/// What a request waited for, as far as addresses tell.
#[derive(Clone, Debug, Default)]
pub(super) struct Awaited(Box<[Candidate]>);

#[derive(Clone, Debug)]
struct Candidate {
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
        let mut order: Vec<usize> = (0..leaves.len()).filter(|&i| leaves[i].woken.is_some()).collect();
        order.sort_by_key(|&i| leaves[i].woken);
        order.truncate(MOST_CANDIDATES);
        order.extend(leaves.len().checked_sub(1));

        let mut candidates = Vec::new();
        for i in order {
            let addresses = leaves[i].addresses.clone();
            let branches: Box<[_]> =
                addresses.as_deref().map(|own| branches(own, &leaves[i + 1..])).unwrap_or_default();
            let is_certain = branches.is_empty();
            candidates.push(Candidate { addresses, branches });
            if is_certain {
                break;
            }
        }
        Self(candidates.into())
    }

    /// The stack of the leaf that it was; `None` if there was no leaf, or its stack could not be copied. `is_stale` tells
    /// whether a leaf is by how a later one branches off.
    pub(super) fn stack(&self, mut is_stale: impl FnMut(&Addresses, Branch) -> bool) -> Option<&Addresses> {
        let is_awaited = |candidate: &&Candidate| {
            let Some(addresses) = &candidate.addresses else { return true };
            !candidate.branches.iter().any(|branch| is_stale(addresses, *branch))
        };
        self.0.iter().find(is_awaited)?.addresses.as_ref()
    }

    /// Whether there is any stack to be shown.
    pub(super) fn has_stack(&self) -> bool {
        self.0.iter().any(|candidate| candidate.addresses.is_some())
    }
}

/// A stack that was cut off at its root has nothing to be compared by.
fn branches(own: &[u64], later: &[Leaf]) -> Box<[Branch]> {
    let mut branches = Vec::new();
    for other in later.iter().filter_map(|leaf| leaf.addresses.as_deref()) {
        let parts = own.iter().zip(other).position(|(own, other)| own != other);
        let Some(depth) = parts.filter(|depth| *depth > 0 && own[0] != CUT) else { continue };
        let branch = Branch { depth, address: other[depth] };
        if !branches.contains(&branch) {
            branches.push(branch);
        }
    }
    branches.sort_by_key(|branch| Reverse(branch.depth));
    branches.truncate(MOST_BRANCHES);
    branches.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(woken: Option<u64>, addresses: &[u64]) -> Leaf {
        Leaf { woken, addresses: Some(addresses.into()) }
    }

    #[track_caller]
    fn awaits(leaves: &[Leaf], expected: &[u64]) {
        // Stacks that part below 1 are of one coroutine.
        let awaited = Awaited::of(leaves);
        let stack = awaited.stack(|addresses, branch| addresses[branch.depth - 1] == 1);
        assert_eq!(stack.map(|stack| &**stack), Some(expected));
    }

    #[test]
    fn the_leaf_that_woke_first_is_awaited() {
        awaits(&[leaf(Some(8), &[9, 2, 3]), leaf(Some(7), &[9, 2, 4]), leaf(None, &[9, 2, 5])], &[9, 2, 4]);
    }

    #[test]
    fn the_newest_leaf_is_awaited_if_none_woke() {
        awaits(&[leaf(None, &[9, 2, 3]), leaf(None, &[9, 2, 4])], &[9, 2, 4]);
    }

    #[test]
    fn a_stale_leaf_is_not_awaited_even_if_it_woke() {
        awaits(&[leaf(Some(7), &[9, 1, 3]), leaf(None, &[9, 1, 4])], &[9, 1, 4]);
        awaits(
            &[leaf(Some(7), &[9, 1, 3]), leaf(Some(8), &[9, 1, 4, 2, 5]), leaf(None, &[9, 1, 4, 2, 6])],
            &[9, 1, 4, 2, 5],
        );
    }

    #[test]
    fn equal_stacks_need_no_names() {
        let leaves: Vec<_> = (0..30).map(|i| leaf(Some(i), &[9, 2, 3])).collect();
        let awaited = Awaited::of(&leaves);
        assert_eq!((awaited.0.len(), awaited.0[0].branches.len()), (1, 0));
    }

    #[test]
    fn what_is_kept_of_many_leaves_is_bounded() {
        let leaves: Vec<_> = (0..256).map(|i| leaf(Some(i), &[9, 1, 100 + i])).collect();
        let awaited = Awaited::of(&leaves);
        assert_eq!(awaited.0.len(), MOST_CANDIDATES + 1);
        assert!(awaited.0.iter().all(|candidate| candidate.branches.len() <= MOST_BRANCHES));
        awaits(&leaves, &[9, 1, 355]);
    }

    #[test]
    fn a_leaf_whose_own_coroutine_went_on_is_stale_among_many() {
        let mut leaves = vec![leaf(Some(1), &[9, 2, 5, 1, 7])];
        leaves.extend((10..40).map(|arm| leaf(None, &[9, 2, arm])));
        leaves.push(leaf(None, &[9, 2, 5, 1, 8]));
        leaves.push(leaf(None, &[9, 2, 41]));
        awaits(&leaves, &[9, 2, 41]);
    }

    #[test]
    fn without_a_leaf_nothing_is_shown() {
        assert!(Awaited::of(&[]).stack(|_, _| false).is_none());
        let stackless = Awaited::of(&[Leaf { woken: None, addresses: None }]);
        assert!(!stackless.has_stack() && stackless.stack(|_, _| false).is_none());
    }
}
