//! From images to code signatures.

use std::collections::HashSet;
use std::sync::Arc;

use super::awaited::Branch;
use crate::stack::{
    Annotations, Capture, Frame, Frames, Image, Leaf, Shown, Signatures, Symbolizer, Unwinder, is_deferred, is_stale,
    signatures,
};

/// Unwinds and symbolizes. Its tables are made when a task begins and freed when the last one ends.
#[derive(Debug)]
pub(super) struct Stacks {
    shown: Frames,
    unwinder: Option<Unwinder>,
    shared: HashSet<Addresses>,
    symbolizer: Option<Symbolizer>,
    annotations: Annotations,
}

/// The code addresses of one stack, root first.
pub(super) type Addresses = Arc<[u64]>;

/// Stacks that are kept once, however many stretches share them.
const SHARED: usize = 10_000;

impl Stacks {
    pub(super) fn new(shown: Frames) -> Self {
        Self { shown, unwinder: None, shared: HashSet::new(), symbolizer: None, annotations: Annotations::new() }
    }

    /// Makes the tables, so that the first request does not wait for them.
    pub(super) fn prepare(&mut self) {
        self.unwinder.get_or_insert_with(Unwinder::new).refresh();
    }

    /// Frees the tables, some megabytes.
    pub(super) fn release(&mut self) {
        *self = Self::new(self.shown);
    }

    pub(super) fn addresses(&mut self, capture: &Capture) -> Addresses {
        match capture.preferred() {
            Shown::Native(image) => self.unwind(image),
            Shown::Annotated(annotated) => {
                let addresses = self.annotations.addresses(annotated);
                self.share(addresses)
            }
        }
    }

    pub(super) fn unwind(&mut self, image: &Image) -> Addresses {
        let addresses = self.unwinder.get_or_insert_with(Unwinder::new).unwind(image);
        self.share(addresses)
    }

    fn share(&mut self, addresses: Vec<u64>) -> Addresses {
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
        signatures(&frames, self.shown, leaf)
    }

    fn symbolize(&mut self, addresses: &[u64]) -> Vec<Arc<[Frame]>> {
        let annotated: Vec<_> = addresses.iter().map(|address| self.annotations.at(*address)).collect();
        let is_native = |(address, frames): (&u64, &Option<_>)| frames.is_none().then_some(*address);
        let native: Vec<u64> = addresses.iter().zip(&annotated).filter_map(is_native).collect();
        if native.is_empty() {
            return annotated.into_iter().flatten().collect();
        }
        let mut native = self.symbolizer.get_or_insert_with(Symbolizer::new).symbolize(&native).into_iter();
        annotated.into_iter().filter_map(|frames| frames.or_else(|| native.next())).collect()
    }
}
