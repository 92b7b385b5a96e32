//! The modules (executable and shared libraries) of this process, with the tables that unwinding reads.
//!
//! The tables are read from memory rather than from files, so that stripped, deleted and replaced binaries work alike, and
//! copied, so that a later `dlclose` cannot pull them away. They are read as [`Memory`]: a page that cannot be read, of a
//! file that was cut short or a library that is being unloaded, is an error there and not a signal.
#![expect(unsafe_code, reason = "dl_iterate_phdr")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::slice;

use libc::{Elf64_Phdr, PF_R, PF_X, PT_GNU_EH_FRAME, PT_LOAD, dl_phdr_info, size_t};

use super::memory::Memory;

/// One loaded module. All addresses are of the running process.
#[derive(Debug)]
pub(super) struct Module {
    /// What was added to the file's addresses when it was loaded.
    pub(super) base: u64,
    pub(super) range: Range<u64>,
    pub(super) code: Vec<Range<u64>>,
    /// Where functions start, sorted.
    pub(super) functions: Vec<u64>,
    pub(super) eh_frame_hdr: Table,
    pub(super) eh_frame: Table,
}

/// A section of unwind information: a copy of its bytes, and where it stands in the process.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) address: u64,
    pub(super) bytes: Vec<u8>,
}

/// How often modules were loaded and unloaded so far: equal numbers mean equal modules.
pub(super) fn generation() -> (u64, u64) {
    let mut generation = (0, 0);
    each_loaded(&mut |info| generation = (info.dlpi_adds, info.dlpi_subs));
    generation
}

/// All modules that carry unwind tables.
pub(super) fn loaded() -> Vec<Module> {
    // Under the loader's lock only the headers are copied, into memory that is there already, unless there are many.
    let mut headers: Vec<(u64, Vec<Elf64_Phdr>)> = Vec::with_capacity(256);
    each_loaded(&mut |info| {
        if !info.dlpi_phdr.is_null() {
            // SAFETY: the loader's record points to that many program headers, mapped while its lock is held.
            let of_module = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
            headers.push((info.dlpi_addr, of_module.to_vec()));
        }
    });
    let memory = Memory::open();
    headers.iter().filter_map(|(base, headers)| Module::read(*base, headers, &memory)).collect()
}

/// Calls `visit` with the loader's record of each module, under the loader's lock.
fn each_loaded(mut visit: &mut dyn FnMut(&dl_phdr_info)) {
    /// # Safety
    /// - `info` is a record of the loader's, `visit` the pointer that `each_loaded` passes.
    unsafe extern "C" fn call(info: *mut dl_phdr_info, _: size_t, visit: *mut c_void) -> c_int {
        // SAFETY: `visit` is `each_loaded`'s own local, which nobody else uses while the loader iterates.
        let visit = unsafe { &mut *visit.cast::<&mut dyn FnMut(&dl_phdr_info)>() };
        // SAFETY: the loader passes a valid record.
        visit(unsafe { &*info });
        0
    }
    // SAFETY: `call` is of the demanded type and gets what it demands.
    unsafe { libc::dl_iterate_phdr(Some(call), (&raw mut visit).cast()) };
}

impl Module {
    /// `None` if the module has no tables, or none that can be read.
    fn read(base: u64, headers: &[Elf64_Phdr], memory: &Memory) -> Option<Self> {
        // What the file fills; the rest of a segment is zeros.
        let filled = |header: &Elf64_Phdr| {
            let start = base.wrapping_add(header.p_vaddr);
            start..start.saturating_add(header.p_filesz)
        };
        let segments = || headers.iter().filter(|header| header.p_type == PT_LOAD);
        let segment_end = |address: u64| {
            let segment = segments().find(|header| filled(header).contains(&address) && header.p_flags & PF_R != 0)?;
            Some(filled(segment).end)
        };
        let copy = |range: Range<u64>| {
            let mut bytes = vec![0; usize::try_from(range.end.checked_sub(range.start)?).ok()?];
            memory.read(range.start, &mut bytes).ok()?;
            Some(Table { address: range.start, bytes })
        };
        let hdr = filled(headers.iter().find(|header| header.p_type == PT_GNU_EH_FRAME)?);
        let eh_frame_hdr = copy(hdr.start..hdr.end.min(segment_end(hdr.start)?))?;
        // The program headers do not say how long `.eh_frame` is. It ends with its segment at the latest, and is entered
        // only through the table of the header.
        let start = eh_frame_address(&eh_frame_hdr)?;
        let eh_frame = copy(start..segment_end(start)?)?;
        Some(Self {
            base,
            range: segments().map(|header| filled(header).start).min()?
                ..segments().map(|header| filled(header).end).max()?,
            code: segments().filter(|header| header.p_flags & PF_X != 0).map(filled).collect(),
            functions: functions(&eh_frame_hdr).unwrap_or_default(),
            eh_frame_hdr,
            eh_frame,
        })
    }
}

/// Where `.eh_frame` starts, by the first fields of `.eh_frame_hdr` (Linux Standard Base, "Exception Frame Header").
fn eh_frame_address(header: &Table) -> Option<u64> {
    const VERSION: u8 = 1;
    const PC_RELATIVE_I32: u8 = 0x1b;
    let [version, encoding, ..] = *header.bytes.as_slice() else { return None };
    if (version, encoding) != (VERSION, PC_RELATIVE_I32) {
        return None;
    }
    let offset = i32::from_ne_bytes(*header.bytes.get(4..)?.first_chunk()?);
    (header.address + 4).checked_add_signed(i64::from(offset))
}

/// The starts of the functions that `.eh_frame_hdr` lists, sorted, as its binary search table is (Linux Standard Base,
/// "Exception Frame Header").
fn functions(header: &Table) -> Option<Vec<u64>> {
    const COUNT_U32: u8 = 0x03;
    const TABLE_RELATIVE_I32: u8 = 0x3b;
    // Start of a function, and of its entry in `.eh_frame`.
    const ENTRY: usize = 8;
    let [_, _, count_encoding, table_encoding, ..] = *header.bytes.as_slice() else { return None };
    if (count_encoding, table_encoding) != (COUNT_U32, TABLE_RELATIVE_I32) {
        return None;
    }
    let count = u32::from_ne_bytes(*header.bytes.get(8..)?.first_chunk()?);
    let table = header.bytes.get(12..)?.chunks_exact(ENTRY).take(count as usize);
    let start = |entry: &[u8]| {
        let offset = i32::from_ne_bytes(*entry.first_chunk()?);
        header.address.checked_add_signed(offset.into())
    };
    table.map(start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_of_this_function_is_loaded_with_its_tables() {
        let here = eh_frame_address as *const () as u64;
        let modules = loaded();
        let module = modules.iter().find(|module| module.range.contains(&here)).unwrap();
        assert!(module.code.iter().any(|code| code.contains(&here)));
        assert!(!module.eh_frame.bytes.is_empty());
        assert!(module.functions.is_sorted());
        let start = generation as *const () as u64;
        assert!(module.functions.binary_search(&start).is_ok());
        assert_eq!(generation(), generation());
    }
}
