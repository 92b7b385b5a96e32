//! From images to code signatures.

use std::mem;
use std::sync::Arc;

use tracing::warn;

use crate::TARGET;
use crate::stack::{Frames, Image, Signatures, Symbolizer, Unwinder, signatures};

/// Unwinds and symbolizes. Its tables are made when a task begins and freed when the last one ends.
#[derive(Debug)]
pub(super) struct Stacks {
    shown: Frames,
    unwinder: Option<Unwinder>,
    symbolizer: Option<Symbolizer>,
    told_of_missing_lines: bool,
}

/// The code addresses of one stack, root first.
pub(super) type Addresses = Arc<[u64]>;

impl Stacks {
    pub(super) fn new(shown: Frames) -> Self {
        Self { shown, unwinder: None, symbolizer: None, told_of_missing_lines: false }
    }

    /// Makes the tables, so that the first request does not wait for them.
    pub(super) fn prepare(&mut self) {
        self.unwinder.get_or_insert_with(Unwinder::new).refresh();
    }

    /// Frees the tables, some megabytes.
    pub(super) fn release(&mut self) {
        (self.unwinder, self.symbolizer) = (None, None);
    }

    pub(super) fn unwind(&mut self, image: &Image) -> Addresses {
        self.unwinder.get_or_insert_with(Unwinder::new).unwind(image).into()
    }

    pub(super) fn signatures(&mut self, addresses: &Addresses) -> Signatures {
        let frames = self.symbolizer.get_or_insert_with(Symbolizer::new).symbolize(addresses);
        // The frames at the root are always instantiated by the application's own crate, with its debug information.
        if frames.iter().all(|frame| frame.source.is_none()) && !mem::replace(&mut self.told_of_missing_lines, true) {
            warn!(
                target: TARGET,
                "this binary has no debug information: async functions cannot be told apart; in Cargo.toml, set \
                 `debug = \"limited\"` under [profile.release]"
            );
        }
        signatures(&frames, self.shown)
    }
}
