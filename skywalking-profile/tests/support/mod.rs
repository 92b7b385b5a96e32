//! What the tests share: a layer in embedded mode, what is expected of its trees, executors, and an OAP that fails.
#![allow(dead_code, unused_imports, reason = "each test binary takes its part")]

mod embedded;
mod executor;
mod log;
mod oap;
mod profile;
mod stopwatch;
mod stripped;
mod tree;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::Empty;

pub(crate) use embedded::{Trees, embedded, embedded_with, finely_sampled, sampled};
pub(crate) use executor::{Timer, block_on, on_a_new_thread, on_one_thread, on_workers};
pub(crate) use log::{Line, Log};
pub(crate) use oap::{Call, FakeOap, Fault, Kind};
pub(crate) use profile::{profile, profile_each, profile_undisturbed, profile_with};
pub(crate) use stopwatch::{Stopwatch, Stopwatches, stopwatches};
pub(crate) use stripped::in_a_copy_without;
pub(crate) use tree::{SCHEDULED, Times, Tree};

/// Only a hanging test waits that long.
pub(crate) const FOREVER: Duration = Duration::from_secs(30);

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// `attempt` succeeds, on a machine that may keep any thread from running for as long as what is measured lasts.
#[track_caller]
pub(crate) fn succeeds(attempt: impl Fn() -> Result<(), String>) {
    const ATTEMPTS: usize = 10;
    let mut failures = Vec::new();
    while let Err(failure) = attempt() {
        failures.push(failure);
        assert!(failures.len() < ATTEMPTS, "{}", failures.join("\n"));
    }
}

/// Lets one test at a time go on: those that change what is the process's, or measure how their threads run.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request without a body.
pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).expect("a path")
}

/// A response without a body, which tells how long it [took] since `start`.
pub(crate) fn response_since(start: Instant) -> Response<Empty<&'static [u8]>> {
    let mut response = Response::new(Empty::new());
    response.extensions_mut().insert(start.elapsed());
    response
}

pub(crate) fn took<B>(response: &Response<B>) -> Duration {
    *response.extensions().get().expect("a duration")
}
