//! Capture, unwinding and symbolizing on x86_64 Linux.

mod code;
mod image;
mod modules;
mod registers;
mod symbolize;
mod thread;
mod unwind;

pub(crate) use image::{Image, PollFrame, has_room};
pub(crate) use symbolize::Symbolizer;
pub(crate) use unwind::Unwinder;

/// Whether stacks can be captured here.
pub(crate) const SUPPORTED: bool = true;
