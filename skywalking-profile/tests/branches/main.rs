//! What a request shows that does several things at once: what it waited for in the end in its main tree, the rest in spans
//! of their own.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod cancelled;
mod expect;
mod joins;
mod selects;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod timeouts;
mod uncovered;
mod wakes;
