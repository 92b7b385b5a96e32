//! From a request's strands to visits: the critical path through all of them, and what they did beside it.

use std::collections::HashMap;
use std::sync::Arc;

use super::following::Following;
use super::lanes::Beside;
use super::lines::Piece;
use super::signatures::{SignatureTable, one_of};
use super::stacks::{Addresses, Stacks};
use super::strand::Strand;
use super::track::What;
use crate::request::{Ended, Left, Pause};
use crate::stack::UNKNOWN;
use crate::timeline::{LEAST_WAIT_NS, SignatureId, Stack, Visit};

/// Strands that the critical path goes through at a time: each waits for the next one.
const DEEPEST: usize = 16;

/// The visits of one request, and the signatures that their stacks consist of, by their ids.
pub(super) struct Visits {
    pub(super) list: Vec<Visit>,
    pub(super) beside: Vec<Beside>,
    pub(super) root: SignatureId,
    pub(super) signatures: Vec<Arc<str>>,
    /// What ended waits by work that is out of sight, and how many.
    pub(super) uncovered: Vec<(String, u64)>,
}

/// The visits until `end` of a request whose root frame is `root`. Without `ended` it goes on.
pub(super) fn visits(
    following: &Following,
    root: &str,
    end: u64,
    ended: Option<&Ended>,
    stacks: &mut Stacks,
) -> Visits {
    let completed = ended.is_some_and(|ended| ended.completed);
    let mut table = SignatureTable::default();
    table.id("[running]");
    table.id("[scheduled: waiting for a worker]");
    let root = table.id(root);
    let own = Strand::new(&following.own, None, completed, stacks);
    let children = following.children.iter().map(|(number, child)| {
        let completed = child.left.is_some_and(|(_, how)| how == Left::Completed);
        (*number, Strand::new(&child.track, Some(child), completed, stacks))
    });
    let children: HashMap<u64, Strand<'_>> = children.collect();
    let mut request = Request {
        started: following.started.at,
        is_over: ended.is_some(),
        own: &own,
        children: &children,
        stacks,
        table,
        frames: HashMap::new(),
    };
    let mut list = Vec::new();
    request.walk(&own, &[root], (following.started.at, end), &mut Vec::new(), &mut list);
    let beside = request.beside(root, end);
    let uncovered = request.uncovered();
    Visits { list, beside, root, signatures: request.table.texts, uncovered }
}

/// A request in the making of its visits.
pub(super) struct Request<'a, 's> {
    /// By [`clock::now`](crate::clock::now).
    pub(super) started: u64,
    pub(super) is_over: bool,
    pub(super) own: &'a Strand<'a>,
    pub(super) children: &'a HashMap<u64, Strand<'a>>,
    pub(super) stacks: &'s mut Stacks,
    table: SignatureTable,
    /// Of leaves' stacks.
    frames: HashMap<Addresses, Arc<[SignatureId]>>,
}

/// From when to when, by [`clock::now`](crate::clock::now).
type Span = (u64, u64);

impl<'a> Request<'a, '_> {
    /// Adds the visits of the strand's critical path within `span`, below the frames `above`. The strands that are
    /// `being_walked` wait for it.
    pub(super) fn walk(
        &mut self,
        strand: &'a Strand<'a>,
        above: &[SignatureId],
        span: Span,
        being_walked: &mut Vec<u64>,
        visits: &mut Vec<Visit>,
    ) {
        let first = strand.track.stretches.partition_point(|stretch| stretch.to <= span.0);
        for (i, stretch) in strand.track.stretches.iter().enumerate().skip(first) {
            if stretch.from >= span.1 {
                break;
            }
            let (from, to) = (stretch.from.max(span.0), stretch.to.min(span.1));
            if from >= to {
                continue;
            }
            match &stretch.what {
                What::Ran(addresses) => {
                    let stack = addresses.as_ref().and_then(|addresses| self.ran(addresses, above));
                    self.visit((from, to), stack, visits);
                }
                What::Paused(pause) => {
                    let stack = self.paused(*pause, above);
                    self.visit((from, to), Some(stack), visits);
                }
                What::Awaited | What::Scheduled => match strand.path(i) {
                    &[piece] => {
                        let is_scheduled = matches!(stretch.what, What::Scheduled) && !strand.is_others_wake(i);
                        let piece = strand.pieces[piece];
                        self.await_piece(piece, above, (from, to), is_scheduled, being_walked, visits);
                    }
                    leaves => {
                        let leaves: Vec<_> =
                            leaves.iter().filter_map(|&leaf| strand.pieces[leaf].addresses.as_ref()).collect();
                        let stack = self.awaited(&leaves, above, matches!(stretch.what, What::Scheduled));
                        self.visit((from, to), Some(stack), visits);
                    }
                },
            }
        }
    }

    /// Adds the visits of a wait for one leaf. If another strand of the request woke it, what that did meanwhile is below.
    pub(super) fn await_piece(
        &mut self,
        piece: &Piece,
        above: &[SignatureId],
        (from, to): Span,
        is_scheduled: bool,
        being_walked: &mut Vec<u64>,
        visits: &mut Vec<Visit>,
    ) {
        let leaf: Vec<_> = piece.addresses.iter().collect();
        let ready = match piece.woken {
            Some(woken) => woken.at.clamp(from, to),
            None if is_scheduled => from,
            None => to,
        };
        let waited = self.awaited(&leaf, above, false);
        match self.cause(piece).filter(|(number, _)| !being_walked.contains(number) && being_walked.len() < DEEPEST) {
            Some((number, child)) => {
                let began = child.began_at().unwrap_or(from).clamp(from, ready);
                let ended = child.ended_at().unwrap_or(ready).clamp(began, ready);
                self.visit((from, began), Some(Arc::clone(&waited)), visits);
                being_walked.push(number);
                self.walk(child, &waited, (began, ended), being_walked, visits);
                being_walked.pop();
                self.visit((ended, ready), Some(waited), visits);
            }
            None => self.visit((from, ready), Some(waited), visits),
        }
        if ready < to {
            let scheduled = self.awaited(&leaf, above, true);
            self.visit((ready, to), Some(scheduled), visits);
        }
    }

    /// The other strand whose doing it was that the leaf woke, with its number. One that had ended counts only for a leaf that
    /// waits for an end, and at once.
    pub(super) fn cause(&mut self, piece: &Piece) -> Option<(u64, &'a Strand<'a>)> {
        let woken = piece.woken?;
        let cause = woken.by?;
        let strand = self.children.get(&cause.strand)?;
        let is_end = |stacks: &mut Stacks| {
            let ago = woken.at.checked_sub(strand.ended_at()?)?;
            (ago < LEAST_WAIT_NS && stacks.hides(piece.addresses.as_ref()?)).then_some(())
        };
        (!cause.has_ended || is_end(self.stacks).is_some()).then_some((cause.strand, strand))
    }

    fn visit(&self, (from, to): Span, stack: Option<Stack>, visits: &mut Vec<Visit>) {
        if from < to {
            let since = |at: u64| at.saturating_sub(self.started);
            visits.push(Visit { from_ns: since(from), to_ns: since(to), stack });
        }
    }

    /// Of the leaves that may have been awaited, none if there was no leaf.
    fn awaited(&mut self, leaves: &[&Addresses], above: &[SignatureId], is_scheduled: bool) -> Stack {
        let is_scheduled = is_scheduled || leaves.iter().any(|leaf| self.stacks.is_deferred(leaf));
        let frames = match leaves {
            [leaf] => self.frames(leaf),
            _ => {
                let stacks = leaves.iter().map(|leaf| self.stacks.awaited(leaf).to_vec()).collect();
                self.ids(&one_of(stacks))
            }
        };
        above.iter().chain(&*frames).copied().chain(is_scheduled.then_some(SignatureId::SCHEDULED)).collect()
    }

    /// Of what is awaited: looked up once, however often it is.
    fn frames(&mut self, leaf: &Addresses) -> Arc<[SignatureId]> {
        if let Some(known) = self.frames.get(leaf) {
            return Arc::clone(known);
        }
        let signatures = self.stacks.awaited(leaf);
        let frames = self.ids(&signatures);
        self.frames.insert(Arc::clone(leaf), Arc::clone(&frames));
        frames
    }

    fn ids(&mut self, signatures: &[String]) -> Arc<[SignatureId]> {
        if signatures.is_empty() {
            return [self.table.id("[pending]")].into();
        }
        signatures.iter().map(|signature| self.table.id(signature)).collect()
    }

    /// Without a frame that has a name, it is known no better.
    fn ran(&mut self, addresses: &Addresses, above: &[SignatureId]) -> Option<Stack> {
        let frames = self.stacks.ran(addresses);
        let is_named = frames.iter().any(|frame| frame != UNKNOWN);
        is_named.then(|| above.iter().copied().chain(frames.iter().map(|frame| self.table.id(frame))).collect())
    }

    fn paused(&mut self, pause: Pause, above: &[SignatureId]) -> Stack {
        let note = match pause {
            Pause::FirstPoll => "[waiting for the first poll]",
            Pause::BlockingThread => "[waiting for a thread]",
            Pause::Peer => "[waiting for the client]",
        };
        above.iter().copied().chain([self.table.id(note)]).collect()
    }
}
