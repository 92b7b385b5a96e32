//! Which leaf of a poll is which of the poll before.
//!
//! A leaf that is polled again without having been woken clones its new token and then drops its old one: so the leaf that
//! registered last before the drop is the same. Whether it is awaited at the same place, too, the stacks tell. (Those of tokio's
//! oneshot channels do it the other way round. What was dropped before a new leaf registered may as well be another's.)

use super::strand::Line;
use super::token::{Leaf, LeafToken};

/// Tokens dropped in one poll that are remembered.
const MOST_LET_GO: usize = 256;

/// What registered in one poll, and what was dropped in it. Kept from poll to poll for its memory.
#[derive(Debug, Default)]
pub(crate) struct Registrations {
    /// In the order of their registration.
    pub(crate) leaves: Vec<Leaf>,
    let_go: Vec<LetGo>,
}

/// A token of an earlier poll was dropped before it was woken.
#[derive(Debug)]
struct LetGo {
    line: Line,
    /// The line that the latest leaf had registered with by then, or one before all of this poll's.
    after: Line,
}

impl Registrations {
    pub(crate) fn clear(&mut self) {
        self.leaves.clear();
        self.let_go.clear();
    }

    pub(super) fn note_let_go(&mut self, token: &LeafToken, after: Line) {
        if self.let_go.len() < MOST_LET_GO && self.let_go.try_reserve(1).is_ok() {
            self.let_go.push(LetGo { line: token.line(), after });
        }
    }

    /// At the end of the poll: leaves that go on take the lines that they had, the others keep those that they registered
    /// with.
    pub(super) fn continue_lines(&mut self) {
        for LetGo { line, after } in self.let_go.drain(..) {
            if let Ok(i) = self.leaves.binary_search_by_key(&after, |leaf| leaf.registered)
                && self.leaves[i].token.line() == after
            {
                self.leaves[i].token.continue_line(line);
            }
        }
    }
}
