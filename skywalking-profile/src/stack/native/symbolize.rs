//! Code addresses to frames, by the debug information or the symbols of the binary.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use blazesym::Pid;
use blazesym::symbolize::source::{self, Process};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer as Blazesym};

use crate::stack::frame::{CUT, Frame, Source};
use crate::stack::name::Name;

/// Addresses kept with their frames; more than any service awaits in, and a few megabytes.
const CACHED: usize = 20_000;

/// Symbolizes addresses of this process. Owned by one thread; opens the binary when first used.
pub(crate) struct Symbolizer {
    blazesym: Blazesym,
    source: source::Source<'static>,
    cache: HashMap<u64, Arc<[Frame]>>,
}

impl Symbolizer {
    pub(crate) fn new() -> Self {
        let mut process = Process::new(Pid::Slf);
        // `/proc/self/map_files` needs privileges that a service seldom has; its own files it can open by their paths.
        process.map_files = false;
        process.perf_map = false;
        Self {
            // Names are demangled here, by `Name`.
            blazesym: Blazesym::builder().enable_demangling(false).enable_auto_reload(false).build(),
            source: process.into(),
            cache: HashMap::new(),
        }
    }

    /// The frames at `addresses`, in their order, inlined functions expanded, outer ones first.
    pub(crate) fn symbolize(&mut self, addresses: &[u64]) -> Vec<Frame> {
        let unknown: Vec<u64> = addresses.iter().copied().filter(|address| !self.cache.contains_key(address)).collect();
        if self.cache.len() + unknown.len() > CACHED {
            self.cache.clear();
            return self.symbolize(&addresses[..addresses.len().min(CACHED)]);
        }
        if !unknown.is_empty() {
            let symbolized = self.blazesym.symbolize(&self.source, Input::AbsAddr(&unknown));
            // Any failure leaves frames without a name, never a stack without frames.
            let mut symbolized = symbolized.unwrap_or_default().into_iter();
            for address in unknown {
                let frames = match symbolized.next() {
                    Some(Symbolized::Sym(symbol)) => frames(&symbol),
                    Some(Symbolized::Unknown(_)) | None => {
                        vec![nameless(if address == CUT { "[…]" } else { "[unknown]" })]
                    }
                };
                self.cache.insert(address, frames.into());
            }
        }
        addresses
            .iter()
            .filter_map(|address| self.cache.get(address))
            .flat_map(|frames| frames.iter().cloned())
            .collect()
    }
}

fn frames(symbol: &Sym<'_>) -> Vec<Frame> {
    let outer = Frame { name: Name::of_symbol(&symbol.name), source: symbol.code_info.as_deref().and_then(place) };
    let inlined = symbol.inlined.iter().map(|function| Frame {
        name: Name::of_symbol(&function.name),
        source: function.code_info.as_ref().and_then(place),
    });
    [outer].into_iter().chain(inlined).collect()
}

fn place(code: &CodeInfo<'_>) -> Option<Source> {
    let folder = code.dir.as_deref().unwrap_or(Path::new(""));
    Some(Source::new(folder, &code.file.to_string_lossy(), code.line?))
}

fn nameless(name: &str) -> Frame {
    Frame { name: Name::of_symbol(name), source: None }
}

impl fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbolizer").field("cached", &self.cache.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn known_function() -> usize {
        std::hint::black_box(1)
    }

    #[test]
    fn a_function_of_this_binary_is_named() {
        let address = known_function as *const () as u64;
        let frames = Symbolizer::new().symbolize(&[address, CUT, 8]);
        assert!(frames[0].name.path().ends_with("tests::known_function"), "{frames:?}");
        assert_eq!(frames[frames.len() - 2].name.path(), "[…]");
        assert_eq!(frames[frames.len() - 1].name.path(), "[unknown]");
    }
}
