//! This process's own memory, read so that a page that is gone is an error and not a signal.
#![expect(unsafe_code, reason = "process_vm_readv")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// `/proc/self/mem`, or the system call that does the same. The file is closed to a process that has given up its privileges
/// or was given capabilities, the call to one in an old container.
#[derive(Debug)]
pub(crate) struct Memory(Option<File>);

impl Memory {
    pub(crate) fn open() -> Self {
        Self(File::open("/proc/self/mem").ok())
    }

    /// Fills `bytes` with what is at `address`.
    ///
    /// # Errors
    /// If not all of it can be read.
    pub(crate) fn read(&self, address: u64, bytes: &mut [u8]) -> io::Result<()> {
        match &self.0 {
            Some(file) => file.read_exact_at(bytes, address),
            None => read_by_call(address, bytes),
        }
    }
}

fn read_by_call(address: u64, bytes: &mut [u8]) -> io::Result<()> {
    let to = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let from = libc::iovec { iov_base: std::ptr::without_provenance_mut(address as usize), iov_len: bytes.len() };
    let this = std::process::id().cast_signed();
    // SAFETY: writes to `bytes`, which is ours alone; what cannot be read is refused by the kernel.
    let read = unsafe { libc::process_vm_readv(this, &raw const to, 1, &raw const from, 1, 0) };
    match usize::try_from(read) {
        Ok(read) if read == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_is_read_by_either_way() {
        let there = *b"what is there";
        for memory in [Memory::open(), Memory(None)] {
            let mut bytes = [0; 13];
            memory.read(there.as_ptr().expose_provenance() as u64, &mut bytes).unwrap();
            assert_eq!(bytes, there);
            memory.read(0, &mut []).unwrap();
            assert!(memory.read(8, &mut bytes).is_err(), "nothing is mapped there");
        }
    }
}
