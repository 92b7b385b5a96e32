//! The queue of reports, bounded by the memory that they hold.
//!
//! An OAP may be away for long: what does not fit is refused, and the agent counts it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Report;

/// Some hundreds of profiled requests, thousands of short ones.
const ROOM: usize = 32 * 1024 * 1024;

/// The agent's end.
#[derive(Debug)]
pub(crate) struct Spool {
    reports: UnboundedSender<Spooled>,
    held: Arc<Held>,
}

/// The backend's end.
#[derive(Debug)]
pub(crate) struct Reports(UnboundedReceiver<Spooled>);

/// A report that takes up room until it is dropped.
#[derive(Debug)]
pub(crate) struct Spooled {
    report: Report,
    weight: usize,
    held: Arc<Held>,
}

/// What the spool holds, the report that is being delivered included.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: AtomicUsize,
    samples: AtomicUsize,
}

pub(crate) fn spool() -> (Spool, Reports) {
    let (reports, receiver) = unbounded_channel();
    (Spool { reports, held: Arc::default() }, Reports(receiver))
}

impl Spool {
    /// Whether the report is in. The end of a task always is: it is small, and its samples are waiting for it.
    #[must_use]
    pub(crate) fn put(&self, report: Report) -> bool {
        let weight = report.weight();
        let room = match &report {
            // Samples must not find the spool full of endpoints; those are reported again before long.
            Report::Discovery(_) => ROOM / 2,
            Report::Sample(_) => ROOM,
            Report::Finish(_) => usize::MAX,
        };
        if self.held.bytes.load(Ordering::Relaxed).saturating_add(weight) > room {
            return false;
        }
        self.reports.send(Spooled::new(report, weight, Arc::clone(&self.held))).is_ok()
    }

    /// A view of what it holds, for when it has been closed.
    pub(crate) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }
}

impl Reports {
    /// `None` once the agent has dropped its end and all reports are out.
    pub(crate) async fn next(&mut self) -> Option<Spooled> {
        self.0.recv().await
    }
}

impl Held {
    /// Profiled requests that have not been delivered.
    pub(crate) fn samples(&self) -> usize {
        self.samples.load(Ordering::Relaxed)
    }

    fn add(&self, weight: usize, samples: usize) {
        self.bytes.fetch_add(weight, Ordering::Relaxed);
        self.samples.fetch_add(samples, Ordering::Relaxed);
    }

    fn remove(&self, weight: usize, samples: usize) {
        self.bytes.fetch_sub(weight, Ordering::Relaxed);
        self.samples.fetch_sub(samples, Ordering::Relaxed);
    }
}

impl Spooled {
    fn new(report: Report, weight: usize, held: Arc<Held>) -> Self {
        let spooled = Self { report, weight, held };
        spooled.held.add(weight, spooled.samples());
        spooled
    }

    fn samples(&self) -> usize {
        usize::from(matches!(self.report, Report::Sample(_)))
    }
}

impl Deref for Spooled {
    type Target = Report;

    fn deref(&self) -> &Report {
        &self.report
    }
}

impl DerefMut for Spooled {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.report
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.held.remove(self.weight, self.samples());
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::backend::{Part, Sample};
    use crate::trace::Segment;

    fn segment() -> Segment {
        Segment::new("GET:/".into(), SystemTime::now(), 1, None)
    }

    fn sample() -> Report {
        let signature = "x".repeat(ROOM / 10);
        Report::Sample(Box::new(Sample {
            task_id: "1".to_owned(),
            main: Part { segment: segment(), snapshots: Vec::new() },
            lanes: Vec::new(),
            spans_left_out: 0,
            signatures: vec![signature.into()],
            is_finished: true,
            lost_events: 0,
            least_ns: 0,
        }))
    }

    #[test]
    fn what_waits_is_bounded_by_its_memory() {
        let (spool, mut reports) = spool();
        let discovery = || Report::Discovery(Box::new(segment()));
        assert!(spool.put(discovery()));
        let fitted = (0..20).filter(|_| spool.put(sample())).count();
        assert_eq!((fitted, spool.held().samples()), (9, 9));
        assert!(!spool.put(discovery()), "samples come first");
        assert!(spool.put(Report::Finish("1".to_owned())), "a task's end is always told");

        let next = &mut || reports.0.try_recv().unwrap();
        assert!(matches!(*next(), Report::Discovery(_)));
        let delivered = next();
        assert!(!spool.put(sample()), "what is being delivered still takes up its room");
        drop(delivered);
        assert!(spool.put(sample()));
    }
}
