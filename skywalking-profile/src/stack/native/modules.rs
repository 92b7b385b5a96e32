//! The modules (executable and shared libraries) of this process, with the tables that unwinding reads.
//!
//! They are read from memory rather than from files, so that stripped, deleted and replaced binaries work alike, and
//! copied, so that a later `dlclose` cannot pull them away.
#![expect(unsafe_code, reason = "dl_iterate_phdr and the mapped tables")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::slice;

use libc::{PF_X, PT_GNU_EH_FRAME, PT_LOAD, dl_phdr_info, size_t};

/// One loaded module. All addresses are of the running process.
#[derive(Debug)]
pub(super) struct Module {
    /// What was added to the file's addresses when it was loaded.
    pub(super) base: u64,
    pub(super) range: Range<u64>,
    pub(super) code: Vec<Range<u64>>,
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
    unsafe extern "C" fn first(info: *mut dl_phdr_info, _: size_t, generation: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid record, and `generation` is the caller's local below.
        unsafe { *generation.cast() = ((*info).dlpi_adds, (*info).dlpi_subs) };
        1
    }
    let mut generation = (0u64, 0u64);
    // SAFETY: `first` is of the demanded type and writes to `generation` only, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut generation).cast()) };
    generation
}

/// All modules that carry unwind tables.
pub(super) fn loaded() -> Vec<Module> {
    unsafe extern "C" fn add(info: *mut dl_phdr_info, _: size_t, modules: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid record and holds its lock while this runs, so nothing is unloaded; `modules`
        // is the caller's local below.
        let (info, modules) = unsafe { (&*info, &mut *modules.cast::<Vec<Module>>()) };
        // SAFETY: see above: the record's module is mapped.
        modules.extend(unsafe { read(info) });
        0
    }
    let mut modules = Vec::new();
    // SAFETY: `add` is of the demanded type and touches `modules` only, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut modules).cast()) };
    modules
}

/// # Safety
/// - The module that `info` describes is mapped and stays so during the call.
unsafe fn read(info: &dl_phdr_info) -> Option<Module> {
    // SAFETY: the loader's record points to that many program headers.
    let headers = unsafe { slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let mapped = |header: &libc::Elf64_Phdr| {
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
        start..start.wrapping_add(header.p_memsz)
    };
    let segments: Vec<_> = headers.iter().filter(|header| header.p_type == PT_LOAD).collect();
    let eh_frame_hdr = mapped(headers.iter().find(|header| header.p_type == PT_GNU_EH_FRAME)?);
    let range = segments.iter().map(|header| mapped(header).start).min()?
        ..segments.iter().map(|header| mapped(header).end).max()?;
    let code = segments.iter().filter(|header| header.p_flags & PF_X != 0).map(|header| mapped(header)).collect();
    let readable = |address: u64| {
        let segment = segments.iter().find(|header| mapped(header).contains(&address))?;
        (segment.p_flags & libc::PF_R != 0).then(|| address..mapped(segment).end)
    };
    let copy = |range: Range<u64>| {
        let len = usize::try_from(range.end - range.start).ok()?;
        // SAFETY: callers pass ranges within one readable segment, mapped by this function's contract.
        let bytes = unsafe { slice::from_raw_parts(range.start as *const u8, len) };
        Some(Table { address: range.start, bytes: bytes.to_vec() })
    };
    let readable_hdr = readable(eh_frame_hdr.start)?;
    let eh_frame_hdr = copy(eh_frame_hdr.start..eh_frame_hdr.end.min(readable_hdr.end))?;
    // The program headers do not say how long `.eh_frame` is. It ends with its segment at the latest, and is entered
    // only through the table of the header.
    let eh_frame = copy(readable(eh_frame_address(&eh_frame_hdr)?)?)?;
    Some(Module { base: info.dlpi_addr, range, code, eh_frame_hdr, eh_frame })
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
        assert_eq!(generation(), generation());
    }
}
