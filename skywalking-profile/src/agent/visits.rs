//! From a request's strands to visits: the critical path through all of them, and what they did beside it.

use std::collections::HashMap;
use std::sync::Arc;

use super::critical::{Division, Nature, Wait, divide};
use super::following::{Child, Following};
use super::lanes::Beside;
use super::lines::Piece;
use super::signatures::{SignatureTable, one_of};
use super::stacks::{Addresses, Stacks};
use super::track::{Stretch, Track, What};
use crate::request::{Left, Pause};
use crate::stack::{self, Signatures, UNKNOWN};
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

/// The visits until `end` of a request whose root frame is `root`, and which ran to its own end if it is `completed`.
pub(super) fn visits(following: &Following, root: &str, end: u64, completed: bool, stacks: &mut Stacks) -> Visits {
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
    let mut request = Request { started: following.started.at, own: &own, children: &children, stacks, table };
    let mut list = Vec::new();
    request.walk(&own, &[root], (following.started.at, end), &mut Vec::new(), &mut list);
    let beside = request.beside(root, end);
    let uncovered = request.uncovered();
    Visits { list, beside, root, signatures: request.table.texts, uncovered }
}

/// A request in the making of its visits.
struct Request<'a, 's> {
    /// By [`clock::now`](crate::clock::now).
    started: u64,
    own: &'a Strand<'a>,
    children: &'a HashMap<u64, Strand<'a>>,
    stacks: &'s mut Stacks,
    table: SignatureTable,
}

/// A strand, divided into its critical path and what is beside it.
struct Strand<'a> {
    track: &'a Track,
    /// `None`: the request's own future.
    child: Option<&'a Child>,
    pieces: Vec<&'a Piece>,
    division: Division,
    /// Of each stretch: the number of the wait that it is.
    waits: Vec<Option<usize>>,
}

impl<'a> Strand<'a> {
    fn new(track: &'a Track, child: Option<&'a Child>, completed: bool, stacks: &mut Stacks) -> Self {
        let pieces = track.lines.pieces();
        let mut places = HashMap::new();
        let natures: Vec<Nature> = pieces
            .iter()
            .map(|piece| {
                let number = places.len();
                let place = piece.addresses.as_ref().map(|own| stacks.awaited(own));
                Nature {
                    is_awaited: !piece.addresses.as_ref().is_some_and(|own| stacks.is_stale(own, &piece.branches)),
                    place: *places.entry(place).or_insert(number),
                    begins_anew: piece.addresses.as_ref().is_some_and(|own| stacks.begins_anew(own)),
                }
            })
            .collect();
        let mut waits = Vec::new();
        let mut follows = false;
        let numbers = track.stretches.iter().map(|Stretch { from, to, what }| {
            let is_wait = matches!(what, What::Awaited | What::Scheduled);
            if is_wait {
                waits.push(Wait { from: *from, to: *to, follows });
            }
            follows = is_wait || follows && matches!(what, What::Ran(_));
            is_wait.then(|| waits.len() - 1)
        });
        let numbers = numbers.collect();
        let mut are_rivals = |one: &Piece, other: &Piece| {
            one.addresses
                .as_ref()
                .zip(other.addresses.as_ref())
                .is_some_and(|(one, other)| stacks.are_rivals(one, other))
        };
        let division = divide(&pieces, &natures, &waits, completed, &mut are_rivals);
        Self { track, child, pieces, division, waits: numbers }
    }

    /// The leaves on the path in the stretch of this index.
    fn path(&self, stretch: usize) -> &[usize] {
        self.waits[stretch].map_or(&[], |wait| &self.division.path[wait])
    }

    fn began_at(&self) -> Option<u64> {
        self.child.map(|child| child.began.at)
    }

    fn ended_at(&self) -> Option<u64> {
        self.child?.left.map(|(at, _)| at)
    }
}

/// From when to when, by [`clock::now`](crate::clock::now).
type Span = (u64, u64);

impl<'a> Request<'a, '_> {
    /// Adds the visits of the strand's critical path within `span`, below the frames `above`. The strands that are
    /// `being_walked` wait for it.
    fn walk(
        &mut self,
        strand: &'a Strand<'a>,
        above: &[SignatureId],
        span: Span,
        being_walked: &mut Vec<u64>,
        visits: &mut Vec<Visit>,
    ) {
        for (i, stretch) in strand.track.stretches.iter().enumerate() {
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
                    let stack = self.paused(strand, *pause, above);
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
    fn await_piece(
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
        let child = piece.woken.and_then(|woken| Some((woken.by?, self.children.get(&woken.by?)?)));
        match child.filter(|(number, _)| !being_walked.contains(number) && being_walked.len() < DEEPEST) {
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
        let scheduled = self.awaited(&leaf, above, true);
        self.visit((ready, to), Some(scheduled), visits);
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
        let mut frames = one_of(leaves.iter().map(|leaf| self.stacks.awaited(leaf).to_vec()).collect());
        if frames.is_empty() {
            frames.push("[pending]".to_owned());
        }
        let frames = frames.iter().map(|frame| self.table.id(frame));
        above.iter().copied().chain(frames).chain(is_scheduled.then_some(SignatureId::SCHEDULED)).collect()
    }

    /// Without a frame that has a name, it is known no better.
    fn ran(&mut self, addresses: &Addresses, above: &[SignatureId]) -> Option<Stack> {
        let frames = self.stacks.ran(addresses);
        let is_named = frames.iter().any(|frame| frame != UNKNOWN);
        is_named.then(|| above.iter().copied().chain(frames.iter().map(|frame| self.table.id(frame))).collect())
    }

    fn paused(&mut self, strand: &'a Strand<'a>, pause: Pause, above: &[SignatureId]) -> Stack {
        let note = match pause {
            Pause::FirstPoll => "[waiting for the first poll]",
            Pause::BlockingThread => "[waiting for a thread]",
            Pause::Peer => "[waiting for the client]",
        };
        let name = strand.child.is_some().then(|| self.name(strand));
        let frames = name.iter().map(String::as_str).chain([note]).map(|frame| self.table.id(frame));
        above.iter().copied().chain(frames).collect()
    }

    /// That of a child's function, without its module if that is long.
    fn name(&mut self, strand: &'a Strand<'a>) -> String {
        let first = |awaited: Signatures| awaited.first().map(|first| path(first).to_owned());
        let named = strand.child.and_then(|child| stack::named_by(child.began.name));
        named
            .or_else(|| first(self.stacks.awaited(strand.pieces.first()?.addresses.as_ref()?).to_vec()))
            .unwrap_or_else(|| "[task]".to_owned())
    }

    /// Branches of all strands, and the strands beside the request's own, in the order in which they began.
    fn beside(&mut self, root: SignatureId, end: u64) -> Vec<Beside> {
        let mut beside = Vec::new();
        let mut children: Vec<_> = self.children.iter().collect();
        children.sort_by_key(|(number, strand)| (strand.began_at(), **number));
        for (number, strand) in children {
            let Some(child) = strand.child else { continue };
            let (from, to) = (child.began.at, strand.ended_at().unwrap_or(end));
            let mut visits = Vec::new();
            self.walk(strand, &[root], (from, to), &mut vec![*number], &mut visits);
            beside.push(Beside {
                name: self.name(strand).into(),
                from_ns: from.saturating_sub(self.started),
                to_ns: to.saturating_sub(self.started),
                is_cancelled: child.left.is_some_and(|(_, how)| how == Left::Dropped),
                is_finished: child.left.is_some(),
                visits,
            });
            self.branches(strand, root, &mut beside);
        }
        self.branches(self.own, root, &mut beside);
        beside.retain(|beside| beside.to_ns - beside.from_ns >= LEAST_WAIT_NS);
        beside.sort_by_key(|beside| beside.from_ns);
        beside
    }

    fn branches(&mut self, strand: &'a Strand<'a>, root: SignatureId, beside: &mut Vec<Beside>) {
        let cut_off: Vec<_> = strand.division.losers.iter().filter(|loser| self.is_cut_off(strand, loser)).collect();
        for branch in strand.division.beside.iter().chain(cut_off) {
            let (Some(&first), Some(&last)) = (branch.first(), branch.last()) else { continue };
            let (from, last) = (strand.pieces[first].from, strand.pieces[last]);
            let mut visits = Vec::new();
            for piece in branch.iter().map(|&piece| strand.pieces[piece]) {
                self.await_piece(piece, &[root], (piece.from, piece.to), false, &mut Vec::new(), &mut visits);
            }
            let is_pending = last.woken.is_none();
            beside.push(Beside {
                name: self.branch_name(strand, first).into(),
                from_ns: from.saturating_sub(self.started),
                to_ns: last.to.saturating_sub(self.started),
                is_cancelled: is_pending,
                is_finished: true,
                visits,
            });
        }
    }

    /// Whether a timeout that elapsed ended the branch.
    fn is_cut_off(&mut self, strand: &Strand<'_>, branch: &[usize]) -> bool {
        let Some(pending) = branch.last().map(|&last| strand.pieces[last]) else { return false };
        let Some(cut_off) = &pending.addresses else { return false };
        let winners = strand.division.path.iter().filter_map(|path| match path[..] {
            [winner] => Some(strand.pieces[winner]),
            _ => None,
        });
        let winner = winners.filter(|winner| winner.to == pending.to && winner.woken.is_some()).next();
        let Some(elapsed) = winner.and_then(|winner| winner.addresses.as_ref()) else { return false };
        self.stacks.is_timeout(elapsed) && {
            let (timeout, cut_off) = (self.stacks.awaited(elapsed), self.stacks.awaited(cut_off));
            timeout.split_last().is_some_and(|(_, above)| cut_off.starts_with(above))
        }
    }

    /// That of the first function which is the branch's alone.
    fn branch_name(&mut self, strand: &Strand<'_>, first: usize) -> String {
        let piece = strand.pieces[first];
        let Some(addresses) = &piece.addresses else { return "[pending]".to_owned() };
        let own = self.stacks.awaited(addresses);
        let others = strand.pieces.iter().enumerate().filter(|(i, other)| {
            *i != first && other.from <= piece.from && other.to > piece.from || other.from == piece.from && *i != first
        });
        let shown = |i: usize| strand.division.path.iter().any(|path| path.contains(&i));
        let others: Vec<_> =
            others.filter(|(i, _)| shown(*i)).filter_map(|(_, other)| other.addresses.as_ref()).collect();
        let shared = others.iter().map(|other| {
            let other = self.stacks.awaited(other);
            own.iter().zip(&*other).take_while(|(own, other)| own == other).count()
        });
        let shared = shared.max().unwrap_or(0);
        let place = if shared < own.len() { shared } else { self.stacks.first_of_many(addresses).min(own.len() - 1) };
        own.get(place).map_or_else(|| "[pending]".to_owned(), |signature| path(signature).to_owned())
    }

    /// Waits that ended by the work of something that is not followed.
    fn uncovered(&mut self) -> Vec<(String, u64)> {
        let mut counts: Vec<(String, u64)> = Vec::new();
        for strand in [self.own].into_iter().chain(self.children.values()) {
            let path = strand.division.path.iter().filter(|path| path.len() == 1).flatten();
            let mut pieces: Vec<usize> = path.chain(strand.division.beside.iter().flatten()).copied().collect();
            pieces.sort_unstable();
            pieces.dedup();
            for piece in pieces.into_iter().map(|piece| strand.pieces[piece]) {
                let is_others = piece.woken.is_some_and(|woken| woken.by.is_none());
                let Some(addresses) = piece.addresses.as_ref().filter(|_| is_others) else { continue };
                if !self.stacks.hides(addresses) {
                    continue;
                }
                let leaf = self.stacks.awaited(addresses).last().cloned().unwrap_or_default();
                match counts.iter_mut().find(|(other, _)| *other == leaf) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((leaf, 1)),
                }
            }
        }
        counts
    }
}

impl Strand<'_> {
    /// Whether, in the stretch of this index, something else than what is on the path woke the strand.
    fn is_others_wake(&self, stretch: usize) -> bool {
        self.waits[stretch].is_some_and(|wait| self.division.has_woken[wait])
    }
}

/// A signature's function.
fn path(signature: &str) -> &str {
    signature.split_once(" @ ").map_or(signature, |(path, _)| path)
}
