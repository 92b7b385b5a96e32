//! Capture, unwinding and symbolizing on Linux.

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
mod arch;
mod code;
mod image;
mod memory;
mod modules;
mod symbolize;
#[cfg(test)]
mod tests;
mod thread;
mod unwind;

pub(crate) use arch::Registers;
pub(crate) use image::{Image, LONGEST_COPY, PollFrame, has_room};
pub(crate) use memory::Memory;
pub(crate) use symbolize::Symbolizer;
pub(crate) use unwind::Unwinder;

/// Whether stacks can be captured here.
pub(crate) const SUPPORTED: bool = true;
