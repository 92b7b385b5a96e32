//! Support of the end-to-end tests: a real OAP server, the queries that the SkyWalking UI puts to it, and the example
//! `slow-endpoint` as a child process. Everything panics with what it expected when that does not come.

#![forbid(unsafe_code)]
#![expect(clippy::missing_panics_doc, reason = "these are test helpers: to panic is how all of them fail")]

mod client;
mod example;
mod expect;
mod graphql;
mod http;
mod oap;
mod profile;
mod task;
mod tree;
mod wait;

use std::{
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

pub use client::{Arriving, Begun, Load, Response};
pub use example::Example;
pub use expect::{
    RUNNING, SCHEDULED, SLEEP, assert_exact, assert_exact_of, assert_order, assert_well_formed, assert_well_named,
};
pub use graphql::{Graphql, service_id};
pub use oap::{MortalOap, Oap};
pub use profile::{
    Analysis, Instance, ProfileTask, ProfileTaskCreated, ProfileTaskCreation, ProfiledSegment, ProfiledSpan, Segment,
    Service, SpanRef, TaskLog,
};
pub use task::{StartedTask, task_of};
pub use tree::{AnalysedTree, Node};
pub use wait::{tried_again, until, until_ok};

/// Between a tree and the clock of the program itself: two roundings and what the clock does not cover.
pub const TOLERANCE_MS: f64 = 2.0;

/// A service name that no test, of this run or an earlier one, has used: the OAP allows a service one task at a time.
pub fn unique_service(prefix: &str) -> String {
    static SERVICES: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let number = SERVICES.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{}-{number}", now.as_millis(), process::id())
}
