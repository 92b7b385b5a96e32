//! A SkyWalking OAP over gRPC.
//!
//! Three loops side by side: the instance's heartbeat, the poll for tasks, and the reports, one after the other. A report
//! goes out in short client streams: the OAP acknowledges a stream as a whole when it ends. What could not be sent at all
//! is tried again; what may have arrived is not, since the OAP's JDBC storages insert a repeated snapshot twice.

use std::cell::Cell;
use std::collections::HashSet;
use std::error::Error;
use std::net::{IpAddr, UdpSocket};
use std::process;
use std::time::Duration;

use skywalking_profile_proto::v3::management_service_client::ManagementServiceClient;
use skywalking_profile_proto::v3::profile_task_client::ProfileTaskClient;
use skywalking_profile_proto::v3::trace_segment_report_service_client::TraceSegmentReportServiceClient;
use skywalking_profile_proto::v3::{
    InstancePingPkg, InstanceProperties, KeyStringValuePair, ProfileTaskCommandQuery, ProfileTaskFinishReport, RefType,
    SegmentObject, SegmentReference, SpanLayer, SpanObject, SpanType, ThreadSnapshot, ThreadStack,
};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::command::TaskCommand;
use super::{Backend, Port, Report, Sample};
use crate::TARGET;
use crate::config::ProfileConfig;
use crate::task::ProfileTask;
use crate::timeline::Snapshot;
use crate::trace::{Segment, new_id};

const CONNECTING: Duration = Duration::from_secs(5);
const ANSWERING: Duration = Duration::from_secs(30);
/// The interval of the Java agent's heartbeat, `collector.heartbeat_period`.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Every so many heartbeats the properties are sent again, `collector.properties_report_period_factor` there.
const PROPERTIES_EVERY: u32 = 10;
/// Snapshots in one acknowledged stream: some 500 KB at most.
const BATCH: usize = 1_000;
/// `Rust` in the OAP's component-libraries.yml.
const COMPONENT_RUST: i32 = 11_000;

/// The backend of a layer with an OAP's address.
#[derive(Debug)]
pub(crate) struct Oap {
    channel: Channel,
    address: String,
    service: String,
    instance: String,
    task_interval: Duration,
    /// Whether the last call went through; `None` before the first.
    connected: Cell<Option<bool>>,
}

impl Oap {
    /// Connects when first used. To be called within the agent's runtime.
    pub(crate) fn new(config: &ProfileConfig, address: String) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(address.clone())?.connect_timeout(CONNECTING).timeout(ANSWERING);
        Ok(Self {
            channel: endpoint.connect_lazy(),
            instance: config.instance.clone().unwrap_or_else(|| default_instance(&address)),
            address,
            service: config.service.clone(),
            task_interval: config.task_interval,
            connected: Cell::new(None),
        })
    }

    async fn keep_alive(&self) {
        let mut client = ManagementServiceClient::new(self.channel.clone());
        let mut backoff = Backoff::new();
        // The instance is unknown until its properties have arrived.
        while self.judge(client.report_instance_properties(self.properties()).await).is_err() {
            sleep(backoff.next()).await;
        }
        for beat in 1u32.. {
            sleep(HEARTBEAT).await;
            // A heartbeat that fails is made up for by the next one.
            let _ = if beat % PROPERTIES_EVERY == 0 {
                self.judge(client.report_instance_properties(self.properties()).await)
            } else {
                let (service, service_instance) = self.names();
                self.judge(client.keep_alive(InstancePingPkg { service, service_instance, ..Default::default() }).await)
            };
        }
    }

    /// Hands on new tasks. Ends if the OAP has no profiling, or if nobody wants tasks any more.
    async fn poll_tasks(&self, tasks: Sender<ProfileTask>) {
        let mut client = ProfileTaskClient::new(self.channel.clone());
        let mut known = HashSet::new();
        let mut last_command_time = -1;
        loop {
            let (service, service_instance) = self.names();
            let query = ProfileTaskCommandQuery { service, service_instance, last_command_time };
            match self.judge(client.get_profile_task_commands(query).await) {
                Ok(commands) => {
                    for TaskCommand { task_id, create_time, task } in
                        commands.commands.iter().filter_map(TaskCommand::of)
                    {
                        last_command_time = last_command_time.max(create_time);
                        if !known.insert(task_id.clone()) {
                            continue;
                        }
                        match task {
                            Ok(task) => {
                                if tasks.send(task).await.is_err() {
                                    return;
                                }
                            }
                            Err(error) => {
                                warn!(target: TARGET, task = task_id, %error, "refused a profile task");
                                self.finish(&task_id).await;
                            }
                        }
                    }
                }
                Err(status) if status.code() == Code::Unimplemented => {
                    warn!(target: TARGET, oap = self.address, "the OAP has no profile receiver: nothing can be profiled");
                    return;
                }
                Err(_) => {}
            }
            sleep(self.task_interval).await;
        }
    }

    async fn deliver(&self, report: Report) {
        match report {
            Report::Discovery(segment) => self.send_segment(&segment).await,
            Report::Sample(sample) => {
                self.send_segment(&sample.segment).await;
                for batch in sample.snapshots.chunks(BATCH) {
                    self.send_snapshots(&sample, batch).await;
                }
            }
            Report::Finish(task_id) => self.finish(&task_id).await,
        }
    }

    async fn send_segment(&self, segment: &Segment) {
        self.until_sent("a trace segment", async || {
            let stream = tokio_stream::once(self.segment_object(segment));
            TraceSegmentReportServiceClient::new(self.channel.clone()).collect(stream).await
        })
        .await;
    }

    async fn send_snapshots(&self, sample: &Sample, batch: &[Snapshot]) {
        self.until_sent("thread snapshots", async || {
            let snapshots: Vec<_> = batch.iter().map(|snapshot| thread_snapshot(sample, snapshot)).collect();
            ProfileTaskClient::new(self.channel.clone()).collect_snapshot(tokio_stream::iter(snapshots)).await
        })
        .await;
    }

    async fn finish(&self, task_id: &str) {
        self.until_sent("a task's end", async || {
            let (service, service_instance) = self.names();
            let report = ProfileTaskFinishReport { service, service_instance, task_id: task_id.to_owned() };
            ProfileTaskClient::new(self.channel.clone()).report_task_finish(report).await
        })
        .await;
    }

    /// Calls until the OAP could be reached; then the answer decides, and a failed call is a loss.
    async fn until_sent<T>(&self, what: &str, mut call: impl AsyncFnMut() -> Result<tonic::Response<T>, Status>) {
        let mut backoff = Backoff::new();
        loop {
            match self.judge(call().await) {
                Err(status) if is_unsent(&status) => sleep(backoff.next()).await,
                Err(status) => {
                    warn!(target: TARGET, oap = self.address, %status, "{what} may be lost");
                    return;
                }
                Ok(_) => return,
            }
        }
    }

    /// Says once when the OAP goes away and once when it is back.
    fn judge<T>(&self, answer: Result<tonic::Response<T>, Status>) -> Result<T, Status> {
        let connected = !answer.as_ref().is_err_and(|status| !matches!(status.code(), Code::Unimplemented));
        if self.connected.replace(Some(connected)) != Some(connected) {
            match &answer {
                Ok(_) => info!(target: TARGET, oap = self.address, "connected to the OAP"),
                Err(status) => {
                    warn!(target: TARGET, oap = self.address, error = %reason(status), "the OAP does not answer; trying on")
                }
            }
        }
        if let Err(status) = &answer {
            debug!(target: TARGET, oap = self.address, %status, "a call failed");
        }
        answer.map(tonic::Response::into_inner)
    }

    fn names(&self) -> (String, String) {
        (self.service.clone(), self.instance.clone())
    }

    fn properties(&self) -> InstanceProperties {
        let (service, service_instance) = self.names();
        let mut properties = vec![
            pair("language", "rust"),
            pair("OS Name", std::env::consts::OS),
            pair("hostname", gethostname::gethostname().to_string_lossy()),
            pair("Process No.", process::id().to_string()),
            pair("agent", concat!("skywalking-profile ", env!("CARGO_PKG_VERSION"))),
        ];
        properties.extend(own_address(&self.address).map(|address| pair("ipv4", address.to_string())));
        InstanceProperties { service, service_instance, properties, ..Default::default() }
    }

    fn segment_object(&self, segment: &Segment) -> SegmentObject {
        let span = SpanObject {
            span_id: 0,
            parent_span_id: -1,
            start_time: segment.start_ms,
            end_time: segment.end_ms,
            refs: segment
                .parent
                .iter()
                .map(|parent| SegmentReference {
                    ref_type: RefType::CrossProcess.into(),
                    trace_id: parent.trace_id.clone(),
                    parent_trace_segment_id: parent.segment_id.clone(),
                    parent_span_id: parent.span_id,
                    parent_service: parent.service.clone(),
                    parent_service_instance: parent.instance.clone(),
                    parent_endpoint: parent.endpoint.clone(),
                    network_address_used_at_peer: parent.address.clone(),
                })
                .collect(),
            operation_name: segment.endpoint.to_string(),
            span_type: SpanType::Entry.into(),
            span_layer: SpanLayer::Http.into(),
            component_id: COMPONENT_RUST,
            is_error: segment.is_error,
            tags: segment.tags.iter().map(|(key, value)| pair(key, value)).collect(),
            ..Default::default()
        };
        SegmentObject {
            trace_id: segment.trace_id.clone(),
            trace_segment_id: segment.segment_id.clone(),
            spans: vec![span],
            service: self.service.clone(),
            service_instance: self.instance.clone(),
            ..Default::default()
        }
    }
}

impl Backend for Oap {
    fn description(&self) -> String {
        format!("reports to the OAP at {} as {} / {}", self.address, self.service, self.instance)
    }

    async fn run(self, mut port: Port) {
        let reporting = async {
            while let Some(report) = port.reports.recv().await {
                self.deliver(report).await;
            }
        };
        tokio::select! {
            () = reporting => {}
            ((), ()) = async { tokio::join!(self.keep_alive(), self.poll_tasks(port.tasks)) } => {}
        }
    }
}

fn thread_snapshot(sample: &Sample, snapshot: &Snapshot) -> ThreadSnapshot {
    let code_signatures = snapshot.stack.iter().map(|id| sample.signature(*id).to_string()).collect();
    ThreadSnapshot {
        task_id: sample.task_id.clone(),
        trace_segment_id: sample.segment.segment_id.clone(),
        time: sample.wall_ms + snapshot.time_ms,
        sequence: snapshot.sequence,
        stack: Some(ThreadStack { code_signatures }),
    }
}

fn pair(key: &str, value: impl AsRef<str>) -> KeyStringValuePair {
    KeyStringValuePair { key: key.to_owned(), value: value.as_ref().to_owned() }
}

/// Whether the call never left this process: there was no connection to send it on.
fn is_unsent(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<ConnectError>())
}

/// The innermost cause says what happened ("Connection refused"), the status itself often only "transport error".
fn reason(status: &Status) -> String {
    causes(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

/// `<uuid>@<ipv4>`, the Java agent's default.
fn default_instance(oap: &str) -> String {
    let address = own_address(oap).map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    format!("{}@{address}", new_id())
}

/// This host's address on the way to the OAP. Connecting a UDP socket asks the routing table and sends nothing.
fn own_address(oap: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(oap.trim_start_matches("http://").trim_end_matches('/')).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
