//! Thread stacks: where a request is while it is being polled.
//!
//! Each thread that polls followed requests has a record of whom it polls and where the
//! [poll frame](crate::stack::PollFrame) is ([`watch`]). While a task is active a thread of the agent's ticks ([`Sampler`])
//! and looks at each of them:
//!
//! - A thread that is blocked in the kernel is read from outside and never signalled, which would cut short calls that have
//!   a timeout. It did not run while its stack was copied if its processor time stands still.
//! - A thread that runs is signalled. The handler copies registers and stack, up to the poll frame, into a
//!   [`Mailbox`](mailbox::Mailbox) of the record, where the sampler finds it at its next tick, or the thread itself when
//!   the poll ends.
//!
//! The copies are unwound and symbolized by the agent, as those of await trees are. No thread is stopped, and none waits
//! for the sampler.

#![cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))),
    allow(dead_code, reason = "nothing is sampled")
)]

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod linux;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[path = "unsupported.rs"]
mod linux;
mod mailbox;
mod sampling;

pub(crate) use linux::{Sampler, install, sees_blocked, watch};
pub(crate) use sampling::{Sampling, SamplingLosses};

use crate::stack::Image;

/// Where a request was in the middle of a poll.
#[derive(Debug)]
pub(crate) struct ThreadSample {
    pub(crate) strand: u64,
    /// When the poll began, by [`clock::now`](crate::clock::now), as the other times.
    pub(crate) since: u64,
    /// It was there from `from` to `at`: a thread that answers a signal late did not run before.
    pub(crate) from: u64,
    pub(crate) at: u64,
    pub(crate) stack: SampledStack,
}

/// The stack of a sample.
#[derive(Debug)]
pub(crate) enum SampledStack {
    Copied(Image),
    /// As at the poll's last sample: the thread had not run since.
    Unchanged,
    /// It could not be copied: what the poll's other samples show may not be what the thread did here.
    Unknown,
}
