//! The agent's side of one followed request: its timeline so far.

use std::sync::Arc;

use super::stacks::{Addresses, Stacks};
use crate::await_tree::LeafToken;
use crate::request::{OpenWait, Started, WaitFor};
use crate::timeline::LEAST_WAIT_NS;

/// Stretches kept of one request, some megabytes. An endless request beyond loses its shortest ones.
const MOST_STRETCHES: usize = 20_000;

/// A request that is followed and has not ended.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) started: Box<Started>,
    pub(super) stretches: Vec<Stretch>,
    /// Waits shorter than this are not kept, in nanoseconds.
    least: u64,
    taken: Option<TakenWait>,
    /// The request is gone without a word: its end was lost in a full queue, unless it is still in there.
    pub(super) is_gone: bool,
}

/// A stretch of a request, by [`clock::now`](crate::clock::now).
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) what: What,
}

/// What a request did for a stretch.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// It was being polled.
    Ran,
    /// It waited for a leaf; `None` if none showed itself or its stack could not be copied.
    Awaited(Option<Addresses>),
    /// It waited to be asked for the rest of its answer.
    Peer,
}

/// A wait whose end the request will tell.
#[derive(Debug)]
struct TakenWait {
    from: u64,
    /// `None`: the peer.
    leaves: Option<Vec<(Arc<LeafToken>, Option<Addresses>)>>,
}

impl Following {
    pub(super) fn new(started: Box<Started>) -> Self {
        Self { started, stretches: Vec::new(), least: LEAST_WAIT_NS, taken: None, is_gone: false }
    }

    pub(super) fn ran(&mut self, from: u64, to: u64) {
        self.push(Stretch { from, to, what: What::Ran });
    }

    /// The request has told a whole wait: only the leaf that it waited for is unwound.
    pub(super) fn waited(&mut self, wait: OpenWait, to: u64, stacks: &mut Stacks) {
        let what = match wait.what {
            WaitFor::Peer => What::Peer,
            WaitFor::Leaves(leaves) => {
                let leaf = awaited(leaves.iter().map(|leaf| &*leaf.token), to).map(|i| &leaves[i]);
                What::Awaited(leaf.and_then(|leaf| leaf.image.as_ref()).map(|image| stacks.unwind(image)))
            }
        };
        self.push(Stretch { from: wait.from, to, what });
    }

    /// Takes the open wait if it began before `before`, so that its images can be freed.
    pub(super) fn take_open_wait(&mut self, before: u64, stacks: &mut Stacks) {
        let Some(wait) = self.started.slot.take_older(before) else { return };
        let leaves = match wait.what {
            WaitFor::Peer => None,
            WaitFor::Leaves(leaves) => Some(
                leaves.into_iter().map(|leaf| (leaf.token, leaf.image.map(|image| stacks.unwind(&image)))).collect(),
            ),
        };
        self.taken = Some(TakenWait { from: wait.from, leaves });
    }

    /// The wait that was taken, if any, has ended, or is taken to.
    pub(super) fn end_taken_wait(&mut self, to: u64) {
        let Some(TakenWait { from, leaves }) = self.taken.take() else { return };
        let what = leaves.map_or(What::Peer, |mut leaves| {
            let leaf = awaited(leaves.iter().map(|(token, _)| &**token), to);
            What::Awaited(leaf.and_then(|i| leaves.swap_remove(i).1))
        });
        self.push(Stretch { from, to, what });
    }

    fn push(&mut self, stretch: Stretch) {
        if matches!(stretch.what, What::Ran) || stretch.to.saturating_sub(stretch.from) >= self.least {
            self.stretches.push(stretch);
        }
        while self.stretches.len() > MOST_STRETCHES {
            self.least *= 2;
            self.stretches.retain(|stretch| stretch.to - stretch.from >= self.least);
        }
    }
}

/// Which of a poll's leaves the request waited for until `to`: the one that woke it first, else the one that registered
/// last. An earlier one that never woke may be a leftover that nobody awaits any more.
fn awaited<'a>(leaves: impl ExactSizeIterator<Item = &'a LeafToken>, to: u64) -> Option<usize> {
    let last = leaves.len().checked_sub(1)?;
    let woken = leaves.enumerate().filter_map(|(i, leaf)| Some((leaf.woken_at().filter(|at| *at <= to)?, i)));
    Some(woken.min().map_or(last, |(_, i)| i))
}
