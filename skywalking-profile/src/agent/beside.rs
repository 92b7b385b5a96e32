//! What a request did beside its main tree: branches of its strands, and the strands themselves.

use super::lanes::Beside;
use super::stacks::Stacks;
use super::strand::Strand;
use super::visits::Request;
use crate::request::Left;
use crate::stack;
use crate::timeline::{LEAST_WAIT_NS, SignatureId};

impl<'a> Request<'a, '_> {
    /// That of a child's function, without its module if that is long.
    pub(super) fn name(&mut self, strand: &'a Strand<'a>) -> String {
        let named = strand.child.and_then(|child| stack::named_by(child.began.name));
        let first = |stacks: &mut Stacks| {
            let awaited = stacks.awaited(strand.pieces.first()?.addresses.as_ref()?);
            awaited.first().map(|first| path(first).to_owned())
        };
        named.or_else(|| first(self.stacks)).unwrap_or_else(|| "[task]".to_owned())
    }

    /// Branches of all strands, and the strands beside the request's own, in the order in which they began.
    pub(super) fn beside(&mut self, root: SignatureId, end: u64) -> Vec<Beside> {
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
            let is_over = strand.child.map_or(self.is_over, |child| child.left.is_some());
            beside.push(Beside {
                name: self.branch_name(strand, first).into(),
                from_ns: from.saturating_sub(self.started),
                to_ns: last.to.saturating_sub(self.started),
                is_cancelled: is_pending && is_over,
                is_finished: !is_pending || is_over,
                visits,
            });
        }
    }

    /// Whether a timeout that elapsed ended the branch.
    fn is_cut_off(&mut self, strand: &Strand<'_>, branch: &[usize]) -> bool {
        let Some(pending) = branch.last().map(|&last| strand.pieces[last]) else { return false };
        let Some(cut_off) = &pending.addresses else { return false };
        let cut_off = self.stacks.awaited(cut_off);
        let mut timeouts = strand.elapsed_at(pending.to).filter_map(|elapsed| elapsed.addresses.as_ref());
        timeouts.any(|timeout| {
            let timeout = self.stacks.awaited(timeout);
            timeout != cut_off && timeout.split_last().is_some_and(|(_, above)| cut_off.starts_with(above))
        })
    }

    /// That of the first function which is the branch's alone.
    fn branch_name(&mut self, strand: &Strand<'_>, first: usize) -> String {
        const UNNAMED: &str = "[pending]";
        let Some(addresses) = &strand.pieces[first].addresses else { return UNNAMED.to_owned() };
        let own = self.stacks.awaited(addresses);
        let on_path = strand.path_after(strand.pieces[first].from).iter().filter(|piece| **piece != first);
        let on_path = on_path.filter_map(|&piece| strand.pieces[piece].addresses.as_ref());
        let shared = on_path.map(|other| {
            let named = self.stacks.awaited(other);
            match own.iter().zip(&*named).position(|(own, other)| own != other) {
                Some(shared) => shared,
                None => self.stacks.parts_from(addresses, other),
            }
        });
        let place = shared.max().unwrap_or(0);
        own.get(place).or(own.last()).map_or(UNNAMED, |signature| path(signature)).to_owned()
    }
}

/// A signature's function.
fn path(signature: &str) -> &str {
    signature.split_once(" @ ").map_or(signature, |(path, _)| path)
}
