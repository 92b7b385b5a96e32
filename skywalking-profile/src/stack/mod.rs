//! Native stacks: copied on the thread that polls ([`Image`]), unwound ([`Unwinder`]) and symbolized ([`Symbolizer`]) on
//! the agent's thread, then named and trimmed to what the application's author wrote ([`signatures`]).
#![cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))),
    allow(dead_code, reason = "nothing is symbolized")
)]

mod deferred;
mod frame;
mod name;
// Miri runs no assembly.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod native;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[path = "unsupported.rs"]
mod native;
mod stale;
mod trim;

pub(crate) use deferred::is_deferred;
pub(crate) use frame::{CUT, Frame};
pub(crate) use stale::is_stale;
pub use trim::Frames;
pub(crate) use trim::{Leaf, Signatures, signatures};

pub(crate) use native::{Image, PollFrame, SUPPORTED, Symbolizer, Unwinder, has_room};
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
pub(crate) use native::{LONGEST_COPY, Registers};
