//! The critical path of a strand, and what it did beside it.
//!
//! A strand that awaits several leaves at once, by `join!`, `select!` or their like, goes on when one of them wakes it. Seen
//! from its end, each wait belongs to the leaf without which what came after would not have begun: that of the wake that
//! began the poll in which the next leaf of the path first registered. So an arm of a `join!` that others were waited for is
//! off the path, and so is the loser of a `select!`: also one that the next round of a loop awaits again, up to there.
//!
//! Waits are all there is here: that a strand runs is on the path in any case.

use std::cmp::Reverse;
use std::mem;

use super::lines::Piece;

/// A stretch in which the strand was not polled, by [`clock::now`](crate::clock::now).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) from: u64,
    pub(super) to: u64,
    /// Whether it is known to follow the wait before it: nothing but polls lies between.
    pub(super) follows: bool,
}

/// Pieces go by their indices.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Division {
    /// Of each wait: the leaf on the path; several if it is not known which, none if no leaf showed itself.
    pub(super) path: Vec<Vec<usize>>,
    /// Branches off the path that woke the strand, or were pending when it ended, each with its leaves in the order of time.
    pub(super) beside: Vec<Vec<usize>>,
    /// Branches that never woke it and were dropped, alike.
    pub(super) losers: Vec<Vec<usize>>,
    /// Of each wait: whether one of its leaves woke the strand.
    pub(super) has_woken: Vec<bool>,
}

/// What symbols tell of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nature {
    /// It is not stale.
    pub(super) is_awaited: bool,
    /// Equal for leaves that are awaited at one place: a compiler may make several calls of one await.
    pub(super) place: usize,
    /// It asked for nothing but to be polled again.
    pub(super) yields: bool,
    /// It is the timer of a timeout: what that is for is awaited as long as it does not elapse.
    pub(super) is_timer: bool,
    /// Polled again, it drops its token before it registers anew: its line ends, though it does not.
    pub(super) begins_anew: bool,
}

/// Whether two leaves are of arms of one `select!`.
type Rivals<'a> = dyn FnMut(&Piece, &Piece) -> bool + 'a;

/// Divides what a strand waited for. `pieces` are in the order in which they began, each with its nature, `waits` in time order
/// and not overlapping.
///
/// Without `completed`, the strand was dropped in its last wait, or goes on in it.
pub(super) fn divide(
    pieces: &[&Piece],
    natures: &[Nature],
    waits: &[Wait],
    completed: bool,
    are_rivals: &mut Rivals<'_>,
) -> Division {
    let awaited = awaited(pieces, natures, waits);
    let before = before(pieces, natures, waits, &awaited, are_rivals);
    let path = path(pieces, natures, waits, &awaited, &before, completed, are_rivals);
    let (beside, losers) = branches(pieces, natures, waits, &awaited, &path, &before, completed);
    let woke = |here: &Vec<usize>, wait: &Wait| {
        here.iter().any(|&piece| pieces[piece].woken.is_some_and(|woken| woken.at <= wait.to))
    };
    let has_woken = awaited.iter().zip(waits).map(|(here, wait)| woke(here, wait)).collect();
    Division { path, beside, losers, has_woken }
}

/// The pieces that cover each wait, by their indices in order.
fn awaited(pieces: &[&Piece], natures: &[Nature], waits: &[Wait]) -> Vec<Vec<usize>> {
    let (mut begun, mut open) = (0, Vec::new());
    waits
        .iter()
        .map(|wait| {
            while pieces.get(begun).is_some_and(|piece| piece.from <= wait.from) {
                if natures[begun].is_awaited {
                    open.push(begun);
                }
                begun += 1;
            }
            open.retain(|&piece: &usize| pieces[piece].to >= wait.to);
            open.clone()
        })
        .collect()
}

/// The piece that each one came after.
fn before(
    pieces: &[&Piece],
    natures: &[Nature],
    waits: &[Wait],
    awaited: &[Vec<usize>],
    are_rivals: &mut Rivals<'_>,
) -> Vec<Option<usize>> {
    let mut before = vec![None; pieces.len()];
    for i in 1..waits.len() {
        let (earlier, now) = (&awaited[i - 1], &awaited[i]);
        if !waits[i].follows || earlier.is_empty() {
            continue;
        }
        let mut taken = vec![false; earlier.len()];
        for &piece in now.iter().filter(|piece| !is_in(earlier, **piece)) {
            let is_same = |&other: &usize| {
                pieces[other].woken.is_none()
                    && natures[other].place == natures[piece].place
                    && (pieces[other].line == pieces[piece].line || natures[other].begins_anew)
            };
            let same = (0..earlier.len()).find(|&i| !taken[i] && !is_in(now, earlier[i]) && is_same(&earlier[i]));
            let found = same.or_else(|| likeliest(pieces, earlier, now, &taken, piece, are_rivals));
            if let Some(found) = found {
                taken[found] = true;
                before[piece] = Some(earlier[found]);
            }
        }
    }
    before
}

/// Of the leaves of the wait before, the one whose wake brought `piece` about: of those that woke the one whose stack has
/// most in common with it, then one that nothing else came after, then the one that was waited for.
fn likeliest(
    pieces: &[&Piece],
    earlier: &[usize],
    now: &[usize],
    taken: &[bool],
    piece: usize,
    are_rivals: &mut Rivals<'_>,
) -> Option<usize> {
    let has_ended = |other: usize| !is_in(now, other);
    let rank = |candidate: usize| {
        let other = earlier[candidate];
        let has_woken = pieces[other].woken.is_some() && has_ended(other);
        (has_woken, has_ended(other), common(pieces[other], pieces[piece]), !taken[candidate])
    };
    let best = (0..earlier.len()).map(rank).max()?;
    let candidates: Vec<usize> = (0..earlier.len()).filter(|&candidate| rank(candidate) == best).collect();
    let woken: Vec<usize> = candidates.iter().map(|&candidate| earlier[candidate]).collect();
    let found = waited_for(pieces, &woken, are_rivals).unwrap_or(woken[0]);
    candidates.into_iter().find(|&candidate| earlier[candidate] == found)
}

/// Of several leaves that woke in one wait, the one that what came after had to wait for: of rivals the first, of others the
/// last.
fn waited_for(pieces: &[&Piece], leaves: &[usize], are_rivals: &mut Rivals<'_>) -> Option<usize> {
    let mut woken: Vec<(u64, usize)> =
        leaves.iter().filter_map(|&piece| Some((pieces[piece].woken?.at, piece))).collect();
    woken.sort_unstable();
    let last = |first: usize, next: usize| if are_rivals(pieces[first], pieces[next]) { first } else { next };
    woken.into_iter().map(|(_, piece)| piece).reduce(last)
}

/// `pieces` are sorted.
fn is_in(pieces: &[usize], piece: usize) -> bool {
    pieces.binary_search(&piece).is_ok()
}

/// How many calls the stacks of two leaves share, from the root.
pub(super) fn common(one: &Piece, other: &Piece) -> usize {
    let (Some(one), Some(other)) = (&one.addresses, &other.addresses) else { return 0 };
    one.iter().zip(&**other).take_while(|(one, other)| one == other).count()
}

fn path(
    pieces: &[&Piece],
    natures: &[Nature],
    waits: &[Wait],
    awaited: &[Vec<usize>],
    before: &[Option<usize>],
    completed: bool,
    are_rivals: &mut Rivals<'_>,
) -> Vec<Vec<usize>> {
    let mut path = vec![Vec::new(); waits.len()];
    let mut current: Vec<usize> = Vec::new();
    for i in (0..waits.len()).rev() {
        let is_last = i + 1 == waits.len();
        let follows = is_last || waits[i + 1].follows;
        let earlier = |&piece: &usize| {
            let is_here = |piece: &usize| is_in(&awaited[i], *piece);
            Some(piece).filter(is_here).or_else(|| before[piece].filter(|piece| follows && is_here(piece)))
        };
        let mut here: Vec<usize> = current.iter().filter_map(earlier).collect();
        here.sort_unstable();
        here.dedup();
        let woke_here = |piece: usize| pieces[piece].woken.is_some_and(|woken| woken.at <= waits[i].to);
        if let [piece] = here[..]
            && !is_last
            && !woke_here(piece)
            && let Some(winner) = first_woken(pieces, &awaited[i])
            && winner != piece
            && woke_here(winner)
            && are_rivals(pieces[winner], pieces[piece])
        {
            // If its arm went on, it has not won yet.
            let goes_on = |&next: &usize| {
                let is_elsewhere = before[next] == Some(winner) && natures[next].place != natures[winner].place;
                let goes_on = is_in(&awaited[i], next) || before[next].is_some_and(|earlier| earlier != winner);
                common(pieces[next], pieces[winner]) > common(pieces[piece], pieces[winner])
                    && (is_elsewhere || goes_on)
            };
            if !awaited[i + 1].iter().any(goes_on) {
                here = vec![winner];
            }
        }
        if here.is_empty() {
            let woken = if is_last && !completed { None } else { waited_for(pieces, &awaited[i], are_rivals) };
            here = woken.map_or_else(|| pending(natures, &awaited[i]), |piece| vec![piece]);
        }
        if !here.is_empty() {
            current.clone_from(&here);
        }
        path[i] = here;
    }
    path
}

/// Of leaves none of which has woken, those that may be waited for.
fn pending(natures: &[Nature], awaited: &[usize]) -> Vec<usize> {
    let others: Vec<usize> = awaited.iter().copied().filter(|&piece| !natures[piece].is_timer).collect();
    if others.is_empty() { awaited.to_vec() } else { others }
}

/// Of the leaves of a wait, the one that woke the strand first.
fn first_woken(pieces: &[&Piece], awaited: &[usize]) -> Option<usize> {
    awaited
        .iter()
        .copied()
        .filter(|&piece| pieces[piece].woken.is_some())
        .min_by_key(|&piece| pieces[piece].woken.map(|woken| woken.at))
}

/// What came after what, without what is on the path: branches that are shown, and those that lost.
fn branches(
    pieces: &[&Piece],
    natures: &[Nature],
    waits: &[Wait],
    awaited: &[Vec<usize>],
    path: &[Vec<usize>],
    before: &[Option<usize>],
    completed: bool,
) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
    let mut is_off_path = vec![false; pieces.len()];
    // One that yields is a part of whatever it is in.
    awaited.iter().flatten().for_each(|&piece| is_off_path[piece] = !natures[piece].yields);
    path.iter().filter(|here| here.len() == 1).for_each(|here| is_off_path[here[0]] = false);
    // From their ends, too: where a branch had branches, it goes on with the one that was waited for.
    let mut ends: Vec<usize> = (0..pieces.len()).filter(|&piece| is_off_path[piece]).collect();
    ends.sort_by_key(|&piece| Reverse((pieces[piece].to, pieces[piece].woken.map(|woken| woken.at))));
    let mut branches: Vec<Vec<usize>> = Vec::new();
    for end in ends {
        let mut branch = Vec::new();
        let mut next = Some(end);
        while let Some(piece) = next.filter(|&piece| mem::take(&mut is_off_path[piece])) {
            branch.push(piece);
            next = before[piece];
        }
        branch.reverse();
        branches.push(branch);
    }
    branches.retain(|branch| !branch.is_empty());
    branches.sort_unstable();
    let end = waits.last().map(|wait| wait.to);
    let is_pending = |piece: usize| !completed && Some(pieces[piece].to) == end && !natures[piece].is_timer;
    branches
        .into_iter()
        .partition(|branch| branch.iter().any(|&piece| pieces[piece].woken.is_some() || is_pending(piece)))
}

#[cfg(test)]
mod tests;
