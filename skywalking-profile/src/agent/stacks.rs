//! From images to code signatures.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use tracing::warn;

use super::awaited::Branch;
use crate::TARGET;
use crate::stack::{Frame, Frames, Image, Leaf, Signatures, Symbolizer, Unwinder, is_deferred, is_stale, signatures};

/// Unwinds and symbolizes. Its tables are made when a task begins and freed when the last one ends.
#[derive(Debug)]
pub(super) struct Stacks {
    shown: Frames,
    unwinder: Option<Unwinder>,
    shared: HashSet<Addresses>,
    symbolizer: Option<Symbolizer>,
    told_of_missing_lines: bool,
}

/// The code addresses of one stack, root first.
pub(super) type Addresses = Arc<[u64]>;

/// Stacks that are kept once, however many stretches share them.
const SHARED: usize = 10_000;

impl Stacks {
    pub(super) fn new(shown: Frames) -> Self {
        Self { shown, unwinder: None, shared: HashSet::new(), symbolizer: None, told_of_missing_lines: false }
    }

    /// Makes the tables, so that the first request does not wait for them.
    pub(super) fn prepare(&mut self) {
        self.unwinder.get_or_insert_with(Unwinder::new).refresh();
    }

    /// Frees the tables, some megabytes.
    pub(super) fn release(&mut self) {
        (self.unwinder, self.symbolizer, self.shared) = (None, None, HashSet::new());
    }

    pub(super) fn unwind(&mut self, image: &Image) -> Addresses {
        let addresses = self.unwinder.get_or_insert_with(Unwinder::new).unwind(image);
        if let Some(shared) = self.shared.get(&*addresses) {
            return Arc::clone(shared);
        }
        if self.shared.len() >= SHARED {
            self.shared.clear();
        }
        let addresses = Addresses::from(addresses);
        self.shared.insert(Arc::clone(&addresses));
        addresses
    }

    /// Whether a later leaf that branches off a stack in this way shows that nobody awaits the stack's leaf any more.
    pub(super) fn is_stale(&mut self, addresses: &Addresses, branch: Branch) -> bool {
        let at: Vec<u64> = addresses[..=branch.depth].iter().copied().chain([branch.address]).collect();
        let frames = self.symbolize(&at);
        let [common @ .., older, newer] = &*frames else { return false };
        is_stale(common.iter().flat_map(|frames| &**frames), older, newer)
    }

    /// Whether the stack's leaf is ready although it was not woken.
    pub(super) fn is_deferred(&mut self, addresses: &Addresses) -> bool {
        is_deferred(self.symbolize(addresses).iter().flat_map(|frames| &**frames))
    }

    pub(super) fn signatures(&mut self, addresses: &Addresses, leaf: Leaf) -> Signatures {
        let frames: Vec<_> = self.symbolize(addresses).iter().flat_map(|frames| frames.iter().cloned()).collect();
        // The frames at the root are always instantiated by the application's own crate, with its debug information.
        if frames.iter().all(|frame| frame.source.is_none()) && !mem::replace(&mut self.told_of_missing_lines, true) {
            warn!(
                target: TARGET,
                "this binary has no debug information: async functions cannot be told apart, nor a leaf that is awaited from one that was; in Cargo.toml, set \
                 `debug = \"limited\"` under [profile.release]"
            );
        }
        signatures(&frames, self.shown, leaf)
    }

    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Arc<[Frame]>> {
        self.symbolizer.get_or_insert_with(Symbolizer::new).symbolize(addresses)
    }
}
