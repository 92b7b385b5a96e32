//! Code addresses to frames, by the debug information or the symbols of the binary.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use blazesym::Pid;
use blazesym::symbolize::source::{self, Elf, Process};
use blazesym::symbolize::{CodeInfo, Input, Sym, Symbolized, Symbolizer as Blazesym};

use crate::stack::frame::{CUT, CUT_OFF, Frame, Source, UNKNOWN};

/// Addresses kept with their frames; more than any service awaits in, and a few megabytes.
const CACHED: usize = 20_000;

/// Symbolizes addresses of this process. Owned by one thread; opens the binary when first used.
pub(crate) struct Symbolizer {
    blazesym: Blazesym,
    process: source::Source<'static>,
    /// The same without debug information.
    symbols: source::Source<'static>,
    replaced: Vec<Replaced>,
    /// The module that this crate is in.
    own: Option<OsString>,
    cache: HashMap<u64, Arc<[Frame]>>,
}

impl Symbolizer {
    pub(crate) fn new() -> Self {
        let mut process = Process::new(Pid::Slf);
        // `/proc/self/map_files` needs privileges that a service seldom has; its own files it can open by their paths.
        process.map_files = false;
        process.perf_map = false;
        let mut symbols = process.clone();
        symbols.debug_syms = false;
        let symbols = symbols.into();
        // Names are demangled here, by `Name`.
        let blazesym = Blazesym::builder().enable_demangling(false).enable_auto_reload(false).build();
        let own = blazesym.symbolize_single(&symbols, Input::AbsAddr(Self::new as *const () as u64)).ok();
        let own = own.and_then(|own| own.into_sym()?.module.map(OsString::from));
        Self { blazesym, process: process.into(), symbols, replaced: replaced(), own, cache: HashMap::new() }
    }

    /// The frames at each of `addresses`, in their order, inlined functions expanded, outer ones first.
    pub(crate) fn symbolize(&mut self, addresses: &[u64]) -> Vec<Arc<[Frame]>> {
        if self.cache.len() > CACHED {
            self.cache.clear();
        }
        let is_new = |address: &u64| !self.cache.contains_key(address);
        let mut current: Vec<u64> = addresses.iter().copied().filter(is_new).collect();
        current.sort_unstable();
        current.dedup();
        let is_replaced = |address: &mut u64| self.replaced.iter().any(|file| file.range.contains(address));
        for address in current.extract_if(.., is_replaced).collect::<Vec<_>>() {
            self.look_up_replaced(address);
        }
        self.look_up_all(&current);
        addresses.iter().filter_map(|address| self.cache.get(address)).map(Arc::clone).collect()
    }

    /// What one module cannot tell, its debug information compressed in an unknown way say, leaves the others' frames named.
    fn look_up_all(&mut self, addresses: &[u64]) {
        let (process, symbols) = (self.process.clone(), self.symbols.clone());
        if addresses.is_empty() || self.look_up(addresses, &process, Input::AbsAddr(addresses)) {
            return;
        }
        for address in addresses.chunks(1) {
            let is_known = self.look_up(address, &process, Input::AbsAddr(address))
                || self.look_up(address, &symbols, Input::AbsAddr(address));
            if !is_known {
                self.cache.insert(address[0], [nameless(UNKNOWN)].into());
            }
        }
    }

    fn look_up_replaced(&mut self, address: u64) {
        let Some(file) = self.replaced.iter().find(|file| file.range.contains(&address)) else { return };
        let offset = file.offset(address);
        // The running executable is there as long as it runs, whatever its path leads to by now.
        let is_known = file.is_executable
            && self.look_up(&[address], &Elf::new("/proc/self/exe").into(), Input::FileOffset(&[offset]));
        if !is_known {
            self.cache.insert(address, [nameless(UNKNOWN)].into());
        }
    }

    /// Symbolizes `input`, which is `addresses` as `source` counts them; false if nothing can be told.
    fn look_up(&mut self, addresses: &[u64], source: &source::Source<'static>, input: Input<&[u64]>) -> bool {
        let Ok(symbolized) = self.blazesym.symbolize(source, input) else { return false };
        for (&address, symbolized) in addresses.iter().zip(symbolized) {
            let frames = match symbolized {
                Symbolized::Sym(symbol) => frames(&symbol, self.own.as_deref()),
                Symbolized::Unknown(_) => vec![nameless(if address == CUT { CUT_OFF } else { UNKNOWN })],
            };
            self.cache.insert(address, frames.into());
        }
        true
    }
}

/// A mapping whose file has been replaced or deleted since, by an upgrade say: what its path leads to is another.
#[derive(Debug)]
struct Replaced {
    range: Range<u64>,
    file_offset: u64,
    is_executable: bool,
}

impl Replaced {
    fn offset(&self, address: u64) -> u64 {
        address - self.range.start + self.file_offset
    }
}

fn replaced() -> Vec<Replaced> {
    let executable = fs::read_link("/proc/self/exe").unwrap_or_default();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines().filter_map(|line| parse_replaced(line, &executable)).collect()
}

/// A line of `/proc/self/maps` (proc(5)): `55d0-55d4 r-xp 00002000 08:02 173521 /path (deleted)`.
fn parse_replaced(line: &str, executable: &Path) -> Option<Replaced> {
    let line = line.strip_suffix(" (deleted)")?;
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let _permissions = fields.next()?;
    let file_offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let path = fields.nth(2)?.trim_start();
    Some(Replaced {
        range: u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?,
        file_offset,
        is_executable: Path::new(&format!("{path} (deleted)")) == executable,
    })
}

fn frames(symbol: &Sym<'_>, own: Option<&OsStr>) -> Vec<Frame> {
    let foreign = own.is_some() && symbol.module.as_deref().is_some_and(|module| Some(module) != own);
    let frame = |name: &str, code: Option<&CodeInfo<'_>>, inlined| Frame {
        inlined,
        foreign,
        ..Frame::new(name, code.and_then(place))
    };
    let outer = frame(&symbol.name, symbol.code_info.as_deref(), false);
    let inlined = symbol.inlined.iter().map(|call| frame(&call.name, call.code_info.as_ref(), true));
    [outer].into_iter().chain(inlined).collect()
}

fn place(code: &CodeInfo<'_>) -> Option<Source> {
    let folder = code.dir.as_deref().unwrap_or(Path::new(""));
    Some(Source::new(folder, &code.file.to_string_lossy(), code.line?, code.column))
}

fn nameless(name: &str) -> Frame {
    Frame::new(name, None)
}

impl fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbolizer").field("cached", &self.cache.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_executable_is_told_from_other_files() {
        let executable = Path::new("/srv/my shop (deleted)");
        let line = "7f00-7f80 r-xp 00002000 08:02 173521                     /srv/my shop (deleted)";
        let replaced = parse_replaced(line, executable).unwrap();
        assert!(replaced.is_executable);
        assert_eq!((replaced.range.clone(), replaced.offset(0x7f10)), (0x7f00..0x7f80, 0x2010));
        let library = "7f00-7f80 r-xp 00002000 08:02 173521 /lib/libc.so.6 (deleted)";
        assert!(!parse_replaced(library, executable).unwrap().is_executable);
        for other in ["7f00-7f80 r-xp 00002000 08:02 173521 /srv/my shop", "7f00-7f80 rw-p 00000000 00:00 0", ""] {
            assert!(parse_replaced(other, executable).is_none());
        }
    }

    #[inline(never)]
    fn known_function() -> usize {
        std::hint::black_box(1)
    }

    #[test]
    fn a_function_of_this_binary_is_named() {
        let address = known_function as *const () as u64;
        let frames = Symbolizer::new().symbolize(&[address, CUT, 8]);
        assert!(frames[0][0].name.path().ends_with("tests::known_function"), "{frames:?}");
        assert_eq!(frames[1][0].name.path(), "[…]");
        assert_eq!(frames[2][0].name.path(), "[unknown]");
    }
}
