//! The atomics of what is modelled by loom: loom's own under `--cfg skywalking_profile_loom`, otherwise the standard ones.

#[cfg(all(test, skywalking_profile_loom))]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
#[cfg(not(all(test, skywalking_profile_loom)))]
pub(crate) use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
