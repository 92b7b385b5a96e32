//! Waits that ended by the work of something that is not followed: another task, a future with a waker of its own.

use super::stacks::Stacks;
use super::strand::Strand;

/// What the strands waited for in that way, and how often.
pub(super) fn uncovered<'a>(strands: impl Iterator<Item = &'a Strand<'a>>, stacks: &mut Stacks) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for strand in strands {
        let path = strand.division.path.iter().filter(|path| path.len() == 1).flatten();
        let mut pieces: Vec<usize> = path.chain(strand.division.beside.iter().flatten()).copied().collect();
        pieces.sort_unstable();
        pieces.dedup();
        for piece in pieces.into_iter().map(|piece| strand.pieces[piece]) {
            let is_others = piece.woken.is_some_and(|woken| woken.by.is_none());
            let Some(addresses) = piece.addresses.as_ref().filter(|_| is_others) else { continue };
            if !stacks.hides(addresses) {
                continue;
            }
            let leaf = stacks.awaited(addresses).last().cloned().unwrap_or_default();
            match counts.iter_mut().find(|(other, _)| *other == leaf) {
                Some((_, count)) => *count += 1,
                None => counts.push((leaf, 1)),
            }
        }
    }
    counts
}
