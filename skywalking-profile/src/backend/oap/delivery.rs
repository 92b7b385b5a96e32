//! The reports, one after the other, each in acknowledged streams.
//!
//! The OAP acknowledges a client stream as a whole, when it ends, and stores it a moment later, if it lives that long. A
//! stream that breaks before may have arrived or not, and its JDBC storages insert a repeated record twice. So a profiled
//! request goes out snapshots first, and then its segments in one stream, which alone make them visible: whatever breaks
//! before that is all sent anew under other segment ids, and is never seen twice. Only when the segments have left this
//! process is nothing repeated; if their stream breaks, the request is counted as lost, though it may have arrived.

use std::collections::HashMap;
use std::sync::Arc;

use skywalking_profile_proto::v3::profile_task_client::ProfileTaskClient;
use skywalking_profile_proto::v3::trace_segment_report_service_client::TraceSegmentReportServiceClient;
use skywalking_profile_proto::v3::{ProfileTaskFinishReport, SegmentObject};
use tonic::Status;
use tracing::{debug, info, warn};

use super::Oap;
use super::backoff::Backoff;
use super::connection::{is_unsent, reason};
use super::message::thread_snapshot;
use crate::TARGET;
use crate::backend::{Report, Reports, Sample};
use crate::trace::Segment;

/// Tries of one report that reach the OAP and fail: with back-off some two minutes.
const TRIES: u32 = 10;
/// Snapshots in one acknowledged stream: some 500 KB at most.
const BATCH: usize = 1_000;

/// What has become of a task's samples.
#[derive(Debug, Default)]
struct Delivered {
    requests: u64,
    snapshots: usize,
    lost: u64,
}

impl Oap {
    /// Delivers until the reports end.
    pub(super) async fn deliver(&self, mut reports: Reports) {
        let mut delivered = HashMap::<String, Delivered>::new();
        while let Some(mut report) = reports.next().await {
            match &mut *report {
                Report::Discovery(segment) => self.discover(segment).await,
                Report::Sample(sample) => {
                    let sent = self.send_sample(sample).await;
                    let of_task = delivered.entry(sample.task_id.clone()).or_default();
                    let (task, segment) = (&sample.task_id, &sample.main.segment.segment_id);
                    match sent {
                        Ok(()) => {
                            of_task.requests += 1;
                            of_task.snapshots += sample.parts().map(|part| part.snapshots.len()).sum::<usize>();
                            debug!(target: TARGET, task, segment, "a profiled request is delivered");
                        }
                        Err(status) => {
                            of_task.lost += 1;
                            warn!(target: TARGET, task, segment, error = %reason(&status), "a profiled request is lost");
                        }
                    }
                }
                Report::Finish(task_id) => {
                    let Delivered { requests, snapshots, lost } = delivered.remove(task_id).unwrap_or_default();
                    info!(target: TARGET, task = task_id.as_str(), requests, snapshots, lost, "profile task reported");
                    self.finish(task_id).await;
                }
            }
        }
    }

    /// Not worth a queue: the endpoint is discovered again when the OAP is back.
    async fn discover(&self, segment: &Segment) {
        let is_sent =
            !self.connection.is_broken() && self.send_segments(vec![self.segment_object(segment)]).await.is_ok();
        if !is_sent {
            self.missed.borrow_mut().insert(Arc::clone(&segment.first.name));
        }
    }

    async fn send_sample(&self, sample: &mut Sample) -> Result<(), Status> {
        let mut backoff = Backoff::new();
        let mut failed = 0;
        loop {
            let status = match self.send_snapshots(sample).await {
                Ok(()) => match self.send_segments(self.segment_objects(sample)).await {
                    // The OAP has gone since it acknowledged the snapshots, and may not have stored them.
                    Err(status) if is_unsent(&status) => status,
                    sent => return sent,
                },
                Err(status) => status,
            };
            // What arrived of it stays without a segment, which nobody sees.
            sample.renew_segment_ids();
            failed += u32::from(!is_unsent(&status));
            if failed == TRIES {
                return Err(status);
            }
            debug!(target: TARGET, task = sample.task_id, error = %reason(&status), "a profiled request is sent again");
            self.connection.rest(&mut backoff).await;
        }
    }

    async fn send_snapshots(&self, sample: &Sample) -> Result<(), Status> {
        let snapshots = sample.parts().flat_map(|part| part.snapshots.iter().map(move |snapshot| (part, snapshot)));
        let mut messages = snapshots.map(|(part, snapshot)| thread_snapshot(sample, part, snapshot)).peekable();
        while messages.peek().is_some() {
            let batch: Vec<_> = messages.by_ref().take(BATCH).collect();
            let stream = tokio_stream::iter(batch);
            self.connection
                .call(async |channel| ProfileTaskClient::new(channel).collect_snapshot(stream).await)
                .await?;
        }
        Ok(())
    }

    async fn send_segments(&self, segments: Vec<SegmentObject>) -> Result<(), Status> {
        let stream = tokio_stream::iter(segments);
        let sent =
            self.connection.call(async |channel| TraceSegmentReportServiceClient::new(channel).collect(stream).await);
        sent.await.map(drop)
    }

    /// Told twice, it does no harm.
    pub(super) async fn finish(&self, task_id: &str) {
        let mut backoff = Backoff::new();
        let mut failed = 0;
        while failed < TRIES {
            let (service, service_instance) = self.names();
            let report = ProfileTaskFinishReport { service, service_instance, task_id: task_id.to_owned() };
            let told =
                self.connection.call(async |channel| ProfileTaskClient::new(channel).report_task_finish(report).await);
            let Err(status) = told.await else { return };
            debug!(target: TARGET, task = task_id, error = %reason(&status), "a task's end is told again");
            failed += u32::from(!is_unsent(&status));
            self.connection.rest(&mut backoff).await;
        }
        warn!(target: TARGET, task = task_id, "the OAP could not be told that a profile task has ended");
    }
}
