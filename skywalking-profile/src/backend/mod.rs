//! Where profile tasks come from and profiles go to: a SkyWalking OAP, or this process itself.
//!
//! A backend is a future that runs on the agent's thread until the agent drops its end of the [`Port`] and all reports are
//! delivered. It never holds up the agent: what does not fit into its [`Spool`] is dropped there, and counted.

mod embedded;
mod oap;
mod spool;

pub(crate) use embedded::Embedded;
pub(crate) use oap::Oap;
pub(crate) use spool::{Reports, Spool, spool};

use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use crate::task::ProfileTask;
use crate::timeline::{SignatureId, Snapshot};
use crate::trace::Segment;

/// A source of profile tasks and a sink of reports.
pub(crate) trait Backend {
    /// What the agent says at its start: "reports to …".
    fn description(&self) -> String;

    /// Runs until the port's reports end.
    async fn run(self, port: Port);
}

/// A backend's side of the agent.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) news: Sender<News>,
    pub(crate) reports: Reports,
}

/// What a backend has to tell.
#[derive(Debug)]
pub(crate) enum News {
    Task(ProfileTask),
    /// The endpoint could not be reported: it is to be discovered again.
    Undiscovered(Arc<str>),
}

/// What the agent has to tell.
#[derive(Debug)]
pub(crate) enum Report {
    /// An unprofiled request, for its endpoint's sake.
    Discovery(Box<Segment>),
    Sample(Box<Sample>),
    /// The profile task of this id has ended. Follows its samples.
    Finish(String),
}

impl Report {
    /// The memory that it holds, about, in bytes.
    fn weight(&self) -> usize {
        /// A segment with its tags.
        const SEGMENT: usize = 1_000;
        match self {
            Self::Discovery(_) => SEGMENT,
            Self::Sample(sample) => SEGMENT + sample.weight(),
            Self::Finish(_) => 0,
        }
    }
}

/// One profiled request.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) task_id: String,
    pub(crate) segment: Segment,
    /// The wall clock's whole millisecond that the snapshots' times are relative to.
    pub(crate) wall_ms: i64,
    pub(crate) snapshots: Vec<Snapshot>,
    /// The code signatures by their ids.
    pub(crate) signatures: Vec<Arc<str>>,
    pub(crate) is_finished: bool,
    /// Its waits and polls that are missing, since the agent could not keep up.
    pub(crate) lost_events: u64,
    /// Shorter waits, in nanoseconds, are not shown alone.
    pub(crate) least_ns: u64,
}

impl Sample {
    /// Stacks are shared; those of neighbours differ as a rule, and few others do.
    fn weight(&self) -> usize {
        let stacks = self.snapshots.chunk_by(|one, next| Arc::ptr_eq(&one.stack, &next.stack));
        let stacks = stacks.map(|row| size_of_val(&*row[0].stack)).sum::<usize>();
        let signatures = self.signatures.iter().map(|signature| signature.len()).sum::<usize>();
        size_of_val(&*self.snapshots) + stacks + signatures
    }

    pub(crate) fn signature(&self, id: SignatureId) -> Arc<str> {
        Arc::clone(&self.signatures[id.0 as usize])
    }
}
