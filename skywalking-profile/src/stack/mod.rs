//! Stacks. Native ones are copied on the thread that polls ([`Image`]), unwound ([`Unwinder`]) and symbolized
//! ([`Symbolizer`]) on the agent's thread, then named and trimmed to what the application's author wrote ([`signatures`]).
//! Where they name no functions, [`Annotations`] stand in for them.
#![cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))),
    allow(dead_code, reason = "nothing is symbolized")
)]

mod annotation;
mod capture;
mod frame;
mod name;
pub(crate) mod nature;
// Miri runs no assembly.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod native;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[path = "unsupported.rs"]
mod native;
mod parting;
mod trim;

pub(crate) use annotation::{Annotations, AroundPoll};
pub(crate) use capture::{Capture, Preferred, Shown, has_room, prefer};
pub(crate) use frame::{CUT, CUT_OFF, Frame, UNKNOWN};
#[cfg(test)]
pub(crate) use frame::{DEEPEST, Source};
pub(crate) use name::named_by;
pub(crate) use parting::{are_rivals, is_stale, polls_many};
pub use trim::Frames;
pub(crate) use trim::{Leaf, Signatures, own_signatures, signatures};

pub(crate) use native::{Image, PollFrame, SUPPORTED, Symbolizer, Unwinder};
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
pub(crate) use native::{LONGEST_COPY, Memory, Registers};
