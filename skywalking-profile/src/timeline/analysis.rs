//! The OAP's analysis of thread snapshots.

use std::collections::HashMap;

use super::{SignatureId, Snapshot};

/// One code signature below one parent, as the OAP shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    /// The code signature.
    pub(crate) signature: SignatureId,
    /// Milliseconds with the node on the stack: over the runs of consecutive sequence numbers, the
    /// sum of last dump time minus first.
    pub(crate) duration_ms: i64,
    /// `duration_ms` without that of the children.
    pub(crate) self_ms: i64,
    /// The number of snapshots with the node on the stack, which flame graphs draw.
    pub(crate) count: u32,
    /// In the order in which they first appear.
    pub(crate) children: Vec<Self>,
}

/// The snapshots that the OAP analyses for a span that was from `start_ms` to `end_ms`, both
/// included: all from the first to the last that were dumped then. `snapshots` are in order of
/// sequence.
pub(crate) fn within(snapshots: &[Snapshot], start_ms: i64, end_ms: i64) -> &[Snapshot] {
    let is_within = |snapshot: &Snapshot| (start_ms..=end_ms).contains(&snapshot.time_ms);
    let first = snapshots.iter().position(is_within);
    let last = snapshots.iter().rposition(is_within);
    first.zip(last).map_or(&[], |(first, last)| &snapshots[first..=last])
}

/// The trees of a segment, one for each distinct first frame, in the order of their first
/// appearance.
pub(crate) fn analyse(snapshots: &[Snapshot]) -> Vec<Node> {
    let mut ordered: Vec<_> = snapshots.iter().collect();
    ordered.sort_by_key(|snapshot| snapshot.sequence);

    let mut tallies: Vec<Tally> = Vec::new();
    let mut known = HashMap::new();
    for snapshot in ordered {
        let mut parent = None;
        for &signature in snapshot.stack.iter() {
            let index = *known.entry((parent, signature)).or_insert_with(|| {
                tallies.push(Tally::new(signature, parent, snapshot));
                tallies.len() - 1
            });
            tallies[index].add(snapshot);
            parent = Some(index);
        }
    }

    // Children stand behind their parent: the last tally is always a node without open children.
    let mut roots = Vec::new();
    let mut children: Vec<Vec<Node>> = vec![Vec::new(); tallies.len()];
    while let (Some(tally), Some(mut own)) = (tallies.pop(), children.pop()) {
        own.reverse();
        let siblings = match tally.parent {
            Some(parent) => &mut children[parent],
            None => &mut roots,
        };
        siblings.push(tally.node(own));
    }
    roots.reverse();
    roots
}

/// What has been seen of one node.
#[derive(Clone, Copy, Debug)]
struct Tally {
    signature: SignatureId,
    parent: Option<usize>,
    count: u32,
    /// Length of the runs that are over.
    past_ms: i64,
    /// Dump time of the first snapshot of the current run.
    run_from_ms: i64,
    latest_ms: i64,
    latest_sequence: i32,
}

impl Tally {
    fn new(signature: SignatureId, parent: Option<usize>, first: &Snapshot) -> Self {
        Self {
            signature,
            parent,
            count: 0,
            past_ms: 0,
            run_from_ms: first.time_ms,
            latest_ms: first.time_ms,
            latest_sequence: first.sequence,
        }
    }

    fn add(&mut self, snapshot: &Snapshot) {
        let goes_on = self.latest_sequence.checked_add(1) == Some(snapshot.sequence);
        if self.count > 0 && !goes_on {
            self.past_ms += self.latest_ms - self.run_from_ms;
            self.run_from_ms = snapshot.time_ms;
        }
        self.count += 1;
        self.latest_ms = snapshot.time_ms;
        self.latest_sequence = snapshot.sequence;
    }

    fn node(self, children: Vec<Node>) -> Node {
        let duration_ms = self.past_ms + self.latest_ms - self.run_from_ms;
        let children_ms: i64 = children.iter().map(|child| child.duration_ms).sum();
        Node { signature: self.signature, duration_ms, self_ms: duration_ms - children_ms, count: self.count, children }
    }
}
