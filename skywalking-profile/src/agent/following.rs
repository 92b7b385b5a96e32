//! The agent's side of one followed request: its strands.

use std::collections::HashMap;
use std::sync::Arc;

use super::stacks::Stacks;
use super::track::Track;
use crate::request::{Began, Left, MOST_FOLLOWED, Started, Wake};
use crate::timeline::LEAST_WAIT_NS;

/// Stretches kept of one request, some 2 MB: more than are ever sent.
pub(super) const MOST_STRETCHES: usize = 20_000;

/// Stretches kept of all strands together, some 40 MB, and at worst four times that, if each wait is for several leaves
/// that woke; each strand has its share, of 40 at least.
const ALL_STRETCHES: usize = 40 * MOST_FOLLOWED;

/// How many stretches each of so many strands may have.
pub(super) fn share(strands: usize) -> usize {
    (ALL_STRETCHES / strands.max(1)).min(MOST_STRETCHES)
}

/// A request that is followed and has not ended.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) started: Box<Started>,
    /// Of its own future.
    pub(super) own: Track,
    /// What it had done elsewhere, by the numbers of the strands.
    pub(super) children: HashMap<u64, Child>,
    /// The request is gone without a word: its end was lost in a full queue, unless it is still in there.
    pub(super) is_gone: bool,
}

/// A strand of a request beside its own future.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) began: Box<Began>,
    pub(super) track: Track,
    /// When it ended, and how.
    pub(super) left: Option<(u64, Left)>,
}

impl Following {
    pub(super) fn new(started: Box<Started>) -> Self {
        let own = Track::new(Arc::clone(&started.strand), Arc::clone(&started.slot));
        Self { started, own, children: HashMap::new(), is_gone: false }
    }

    pub(super) fn began(&mut self, began: Box<Began>) {
        let track = Track::new(Arc::clone(&began.strand), Arc::clone(&began.slot));
        self.children.insert(began.strand.id.number, Child { began, track, left: None });
    }

    pub(super) fn left(&mut self, strand: u64, at: u64, how: Left, untold: &[Wake]) {
        if how == Left::Inline {
            self.children.remove(&strand);
        } else if let Some(child) = self.children.get_mut(&strand) {
            child.track.end(untold);
            child.left = Some((at, how));
        }
    }

    /// It is looked at no more; its strands are shown until `to`.
    pub(super) fn cut(&mut self, to: u64, stacks: &mut Stacks) {
        let losses = &self.started.task.losses;
        self.own.cut(to, stacks, losses);
        for child in self.children.values_mut().filter(|child| child.left.is_none()) {
            child.track.cut(to, stacks, losses);
        }
    }

    /// What its strands wait for is taken if they do so since before `before`.
    pub(super) fn take_open_waits(&mut self, before: u64, stacks: &mut Stacks) {
        self.tracks().for_each(|track| track.take_open_wait(before, stacks));
    }

    /// Drops the shortest stretches of its strands until each has `most` at most.
    pub(super) fn keep(&mut self, most: usize) {
        self.tracks().for_each(|track| track.keep(most));
    }

    /// Whether the request is gone: its end was told, or lost.
    pub(super) fn has_left(&self) -> bool {
        self.own.has_left()
    }

    /// Waits shorter than this were not kept, in nanoseconds.
    pub(super) fn least(&self) -> u64 {
        let children = self.children.values().map(|child| child.track.least());
        children.chain([self.own.least()]).max().unwrap_or(LEAST_WAIT_NS)
    }

    fn tracks(&mut self) -> impl Iterator<Item = &mut Track> {
        [&mut self.own].into_iter().chain(self.children.values_mut().map(|child| &mut child.track))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::await_tree::{Strand, StrandId};
    use crate::request::{Lineage, Slot, events};
    use crate::task::{Board, ProfileTask};

    pub(in crate::agent) fn following() -> Following {
        let (events, _queue) = events();
        let task = Board::default().put_up(ProfileTask::new("GET:/"));
        Following::new(Box::new(Started {
            strand: Arc::new(Strand::new(StrandId::of_request())),
            task: Arc::clone(&task),
            at: 0,
            wall: SystemTime::now(),
            method: http::Method::GET,
            host: None,
            path: "/".to_owned(),
            parent: None,
            slot: Arc::new(Slot::new()),
            _place: events.place().unwrap(),
            lineage: Arc::new(Lineage::new(task, events)),
        }))
    }

    #[test]
    fn all_requests_together_are_bounded() {
        for requests in [0, 1, 7, 100, MOST_FOLLOWED] {
            assert!((40..=MOST_STRETCHES).contains(&share(requests)));
            assert!(share(requests) * requests <= ALL_STRETCHES);
        }
    }
}
