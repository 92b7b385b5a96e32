//! A strand that has ended, or is reported as it stands.

use std::collections::HashMap;

use super::critical::{Division, Nature, Wait, divide};
use super::following::Child;
use super::lines::Piece;
use super::stacks::Stacks;
use super::track::{Stretch, Track, What};

/// A strand, divided into its critical path and what is beside it.
pub(super) struct Strand<'a> {
    pub(super) track: &'a Track,
    /// `None`: the request's own future.
    pub(super) child: Option<&'a Child>,
    pub(super) pieces: Vec<&'a Piece>,
    pub(super) division: Division,
    /// From when to when each wait lasted.
    spans: Vec<(u64, u64)>,
    /// Timers of timeouts that elapsed, by when their waits ended.
    elapsed: HashMap<u64, Vec<usize>>,
    /// Of each stretch: the number of the wait that it is.
    waits: Vec<Option<usize>>,
}

impl<'a> Strand<'a> {
    pub(super) fn new(track: &'a Track, child: Option<&'a Child>, completed: bool, stacks: &mut Stacks) -> Self {
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
                    yields: piece.has_yielded || piece.addresses.as_ref().is_some_and(|own| stacks.is_deferred(own)),
                    is_timer: piece.addresses.as_ref().is_some_and(|own| stacks.is_timeout(own)),
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
        let spans = waits.iter().map(|wait| (wait.from, wait.to)).collect();
        let mut are_rivals = |one: &Piece, other: &Piece| {
            one.addresses
                .as_ref()
                .zip(other.addresses.as_ref())
                .is_some_and(|(one, other)| stacks.are_rivals(one, other))
        };
        let mut elapsed = HashMap::<u64, Vec<usize>>::new();
        for (i, piece) in pieces.iter().enumerate().filter(|(i, piece)| natures[*i].is_timer && piece.woken.is_some()) {
            elapsed.entry(piece.to).or_default().push(i);
        }
        let division = divide(&pieces, &natures, &waits, completed, &mut are_rivals);
        Self { track, child, pieces, division, spans, elapsed, waits: numbers }
    }

    /// The leaves on the path in the stretch of this index.
    pub(super) fn path(&self, stretch: usize) -> &[usize] {
        self.waits[stretch].map_or(&[], |wait| &self.division.path[wait])
    }

    /// Timers of timeouts that elapsed in the wait that ended at `to`.
    pub(super) fn elapsed_at(&self, to: u64) -> impl Iterator<Item = &'a Piece> {
        self.elapsed.get(&to).into_iter().flatten().map(|&piece| self.pieces[piece])
    }

    /// The leaves on the path in the first wait from `from` on.
    pub(super) fn path_after(&self, from: u64) -> &[usize] {
        let wait = self.spans.partition_point(|(begin, _)| *begin < from);
        self.division.path.get(wait).map_or(&[], Vec::as_slice)
    }

    pub(super) fn began_at(&self) -> Option<u64> {
        self.child.map(|child| child.began.at)
    }

    pub(super) fn ended_at(&self) -> Option<u64> {
        self.child?.left.map(|(at, _)| at)
    }

    /// Whether, in the stretch of this index, something else than what is on the path woke the strand.
    pub(super) fn is_others_wake(&self, stretch: usize) -> bool {
        self.waits[stretch].is_some_and(|wait| self.division.has_woken[wait])
    }
}
