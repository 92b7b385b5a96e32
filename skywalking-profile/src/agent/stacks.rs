//! From images to code signatures.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::lines::Branch;
use crate::stack::{
    Annotations, Capture, Frame, Frames, Image, Leaf, Shown, Symbolizer, Unwinder, are_rivals, is_stale, nature,
    own_signatures, polls_many, signatures,
};

/// Unwinds and symbolizes. Its tables are made when a task begins and freed when the last one ends.
#[derive(Debug)]
pub(super) struct Stacks {
    shown: Frames,
    unwinder: Option<Unwinder>,
    shared: HashSet<Addresses>,
    named: HashMap<(Addresses, Leaf), Arc<[String]>>,
    told: HashMap<Addresses, Told>,
    symbolizer: Option<Symbolizer>,
    annotations: Annotations,
}

/// What the names of a stack's functions tell of its leaf.
#[derive(Clone, Copy, Debug)]
struct Told {
    is_deferred: bool,
    begins_anew: bool,
    hides: bool,
}

/// The code addresses of one stack, root first.
pub(super) type Addresses = Arc<[u64]>;

/// Stacks that are kept once, however many stretches share them.
const SHARED: usize = 10_000;

impl Stacks {
    pub(super) fn new(shown: Frames) -> Self {
        Self {
            shown,
            unwinder: None,
            shared: HashSet::new(),
            named: HashMap::new(),
            told: HashMap::new(),
            symbolizer: None,
            annotations: Annotations::new(),
        }
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

    /// Whether later leaves that branch off a stack in these ways show that nobody awaits the stack's leaf any more.
    pub(super) fn is_stale(&mut self, addresses: &Addresses, branches: &[Branch]) -> bool {
        branches.iter().any(|branch| {
            let at: Vec<u64> = addresses[..=branch.depth].iter().copied().chain([branch.address]).collect();
            let frames = self.symbolize(&at);
            let [common @ .., older, newer] = &*frames else { return false };
            is_stale(common.iter().flat_map(|frames| &**frames), older, newer)
        })
    }

    /// Whether two leaves are of arms of one `select!`, one of which ends it.
    pub(super) fn are_rivals(&mut self, one: &Addresses, other: &Addresses) -> bool {
        let parts = one.iter().zip(&**other).position(|(one, other)| one != other);
        let Some(depth) = parts else { return false };
        let at: Vec<u64> = one[..=depth].iter().copied().chain([other[depth]]).collect();
        let frames = self.symbolize(&at);
        let [common @ .., one, other] = &*frames else { return false };
        are_rivals(common.iter().flat_map(|frames| &**frames), one, other)
    }

    /// Whether the stack's leaf is ready although it was not woken.
    pub(super) fn is_deferred(&mut self, addresses: &Addresses) -> bool {
        self.told(addresses).is_deferred
    }

    /// Whether the stack's leaf drops its waker before it stores another one.
    pub(super) fn begins_anew(&mut self, addresses: &Addresses) -> bool {
        self.told(addresses).begins_anew
    }

    /// Whether what the stack's leaf waits for is polled by others, or out of sight.
    pub(super) fn hides(&mut self, addresses: &Addresses) -> bool {
        self.told(addresses).hides
    }

    /// Whether the stack's leaf is the timer of a timeout.
    pub(super) fn is_timeout(&mut self, addresses: &Addresses) -> bool {
        self.awaited(addresses).last().is_some_and(|leaf| nature::is_timeout(leaf))
    }

    fn told(&mut self, addresses: &Addresses) -> Told {
        if let Some(told) = self.told.get(addresses) {
            return *told;
        }
        if self.told.len() >= SHARED {
            self.told.clear();
        }
        let frames = self.symbolize(addresses);
        let any = |is: fn(&Frame) -> bool| frames.iter().flat_map(|frames| &**frames).any(is);
        let told = Told {
            is_deferred: any(nature::is_deferred),
            begins_anew: any(nature::begins_anew),
            hides: any(nature::hides),
        };
        self.told.insert(Arc::clone(addresses), told);
        told
    }

    /// The signatures of a stack that ends in what is awaited.
    pub(super) fn awaited(&mut self, addresses: &Addresses) -> Arc<[String]> {
        self.signatures(addresses, Leaf::Awaited)
    }

    /// The signatures of a stack that ends in what runs, or blocks its thread.
    pub(super) fn ran(&mut self, addresses: &Addresses) -> Arc<[String]> {
        self.signatures(addresses, Leaf::Running)
    }

    fn signatures(&mut self, addresses: &Addresses, leaf: Leaf) -> Arc<[String]> {
        let key = (Arc::clone(addresses), leaf);
        if let Some(named) = self.named.get(&key) {
            return Arc::clone(named);
        }
        if self.named.len() >= SHARED {
            self.named.clear();
        }
        let frames: Vec<_> = self.symbolize(addresses).iter().flat_map(|frames| frames.iter().cloned()).collect();
        let named: Arc<[String]> = signatures(&frames, self.shown, leaf).into();
        self.named.insert(key, Arc::clone(&named));
        named
    }

    /// Of a stack's signatures, the index of the first that is not another stack's: where their calls part or, if all of them
    /// are the same, below what polls many futures of one kind.
    pub(super) fn parts_from(&mut self, addresses: &Addresses, other: &Addresses) -> usize {
        let parts = addresses.iter().zip(&**other).position(|(own, other)| own != other);
        let frames = self.symbolize(&addresses[..parts.unwrap_or(addresses.len())]);
        let frames: Vec<_> = frames.iter().flat_map(|frames| frames.iter().cloned()).collect();
        let shared = match parts {
            Some(_) => &frames[..],
            None => frames.iter().rposition(polls_many).map_or(&frames[..], |many| &frames[..=many]),
        };
        own_signatures(shared, self.shown)
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
