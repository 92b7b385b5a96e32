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

use std::iter;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use crate::task::ProfileTask;
use crate::timeline::{SignatureId, Snapshot};
use crate::trace::{Segment, new_id};

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
        match self {
            Self::Discovery(segment) => segment.weight(),
            Self::Sample(sample) => sample.weight(),
            Self::Finish(_) => 0,
        }
    }
}

/// One profiled request.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) task_id: String,
    pub(crate) main: Part,
    /// What it did beside.
    pub(crate) lanes: Vec<Part>,
    /// What it did beside that was too short for the lanes: so many spans.
    pub(crate) spans_left_out: u64,
    /// The code signatures of all parts by their ids.
    pub(crate) signatures: Vec<Arc<str>>,
    pub(crate) is_finished: bool,
    /// Its waits and polls that are missing, since the agent could not keep up.
    pub(crate) lost_events: u64,
    /// Shorter waits, in nanoseconds, are not shown alone.
    pub(crate) least_ns: u64,
}

/// A segment and its snapshots.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: Segment,
    /// Their times are relative to the start of the request's span.
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Sample {
    /// The request's own part comes first.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        iter::once(&self.main).chain(&self.lanes)
    }

    /// When the request's span began, in milliseconds since the Unix epoch.
    pub(crate) fn start_ms(&self) -> i64 {
        self.main.segment.first.start_ms
    }

    /// Makes it one that the OAP does not know.
    pub(crate) fn renew_segment_ids(&mut self) {
        for part in iter::once(&mut self.main).chain(&mut self.lanes) {
            part.segment.segment_id = new_id();
        }
    }

    fn weight(&self) -> usize {
        let signatures = self.signatures.iter().map(|signature| signature.len()).sum::<usize>();
        self.parts().map(Part::weight).sum::<usize>() + signatures
    }

    pub(crate) fn signature(&self, id: SignatureId) -> Arc<str> {
        Arc::clone(&self.signatures[id.0 as usize])
    }
}

impl Part {
    /// Stacks are shared; those of neighbours differ as a rule, and few others do.
    fn weight(&self) -> usize {
        let stacks = self.snapshots.chunk_by(|one, next| Arc::ptr_eq(&one.stack, &next.stack));
        let stacks = stacks.map(|row| size_of_val(&*row[0].stack)).sum::<usize>();
        self.segment.weight() + size_of_val(&*self.snapshots) + stacks
    }
}
