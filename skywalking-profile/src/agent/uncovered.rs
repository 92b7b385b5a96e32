//! Waits that ended by the work of something that is not followed: another task, a future with a waker of its own.

use super::visits::Request;

impl Request<'_, '_> {
    /// What its strands waited for in that way, and how often.
    pub(super) fn uncovered(&mut self) -> Vec<(String, u64)> {
        let mut counts: Vec<(String, u64)> = Vec::new();
        for strand in [self.own].into_iter().chain(self.children.values()) {
            let path = strand.division.path.iter().filter(|path| path.len() == 1).flatten();
            let mut pieces: Vec<usize> = path.chain(strand.division.beside.iter().flatten()).copied().collect();
            pieces.sort_unstable();
            pieces.dedup();
            for piece in pieces.into_iter().map(|piece| strand.pieces[piece]) {
                let has_woken = piece.woken.is_some() && !piece.has_yielded && self.cause(piece).is_none();
                let Some(addresses) = piece.addresses.as_ref().filter(|_| has_woken) else { continue };
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
