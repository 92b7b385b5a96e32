//! A SkyWalking OAP over gRPC.
//!
//! Three loops side by side: the instance's heartbeat, the poll for tasks, and the reports, one after the other. A report
//! goes out in short client streams: the OAP acknowledges a stream as a whole when it ends. What could not be sent at all
//! is tried again; what may have arrived is not, since the OAP's JDBC storages insert a repeated snapshot twice.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use std::{mem, process};

use skywalking_profile_proto::v3::management_service_client::ManagementServiceClient;
use skywalking_profile_proto::v3::profile_task_client::ProfileTaskClient;
use skywalking_profile_proto::v3::trace_segment_report_service_client::TraceSegmentReportServiceClient;
use skywalking_profile_proto::v3::{
    Commands, InstancePingPkg, InstanceProperties, KeyStringValuePair, ProfileTaskCommandQuery,
    ProfileTaskFinishReport, RefType, SegmentObject, SegmentReference, SpanLayer, SpanObject, SpanType, ThreadSnapshot,
    ThreadStack,
};
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Status, TimeoutExpired};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::command::TaskCommand;
use super::{Backend, News, Port, Report, Sample};
use crate::TARGET;
use crate::config::ProfileConfig;
use crate::timeline::Snapshot;
use crate::trace::{Segment, new_id};

const CONNECTING: Duration = Duration::from_secs(5);
const ANSWERING: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long an OAP without a profile receiver is left alone.
const UNIMPLEMENTED_AGAIN: Duration = Duration::from_secs(300);
const FINISH_TRIES: u32 = 5;
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
    endpoint: Endpoint,
    channel: RefCell<Channel>,
    address: String,
    service: String,
    instance: String,
    task_interval: Duration,
    /// Whether the last call went through; `None` before the first.
    connected: Cell<Option<bool>>,
    /// Endpoints whose segments were not sent, for want of a connection.
    missed: RefCell<HashSet<Arc<str>>>,
}

impl Oap {
    /// Connects when first used. To be called within the agent's runtime.
    pub(crate) fn new(config: &ProfileConfig, address: String) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(address.clone())?
            .connect_timeout(CONNECTING)
            .timeout(ANSWERING)
            .tcp_keepalive(Some(KEEPALIVE));
        Ok(Self {
            channel: RefCell::new(endpoint.connect_lazy()),
            endpoint,
            instance: config.instance.clone().unwrap_or_else(|| default_instance(&address)),
            address,
            service: config.service.clone(),
            task_interval: config.task_interval,
            connected: Cell::new(None),
            missed: RefCell::default(),
        })
    }

    async fn keep_alive(&self) {
        let mut backoff = Backoff::new();
        // The instance is unknown until its properties have arrived.
        while !self.send_properties().await {
            sleep(backoff.next()).await;
        }
        for beat in 1u32.. {
            sleep(HEARTBEAT).await;
            // A heartbeat that fails is made up for by the next one.
            if beat % PROPERTIES_EVERY == 0 {
                self.send_properties().await;
            } else {
                let (service, service_instance) = self.names();
                let ping = InstancePingPkg { service, service_instance, ..Default::default() };
                let _ = self.judge(ManagementServiceClient::new(self.channel()).keep_alive(ping).await);
            }
        }
    }

    async fn send_properties(&self) -> bool {
        let mut client = ManagementServiceClient::new(self.channel());
        self.judge(client.report_instance_properties(self.properties()).await).is_ok()
    }

    /// Hands on new tasks. Ends if nobody wants them any more.
    async fn poll_tasks(&self, news: Sender<News>) {
        let mut known = HashSet::new();
        let mut last_command_time = -1;
        let mut told_of_missing_receiver = false;
        loop {
            let (service, service_instance) = self.names();
            let query = ProfileTaskCommandQuery { service, service_instance, last_command_time };
            let mut client = ProfileTaskClient::new(self.channel());
            match self.judge(client.get_profile_task_commands(query).await) {
                Ok(commands) => {
                    told_of_missing_receiver = false;
                    for TaskCommand { task_id, create_time, task } in
                        commands.commands.iter().filter_map(TaskCommand::of)
                    {
                        last_command_time = last_command_time.max(create_time);
                        if !known.insert(task_id.clone()) {
                            continue;
                        }
                        match task {
                            Ok(task) => {
                                if news.send(News::Task(task)).await.is_err() {
                                    return;
                                }
                            }
                            Err(error) => {
                                warn!(target: TARGET, task = task_id, %error, "refused a profile task");
                                self.finish(&task_id).await;
                            }
                        }
                    }
                    for endpoint in self.missed.take() {
                        if news.send(News::Undiscovered(endpoint)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(status) if status.code() == Code::Unimplemented => {
                    if !mem::replace(&mut told_of_missing_receiver, true) {
                        warn!(
                            target: TARGET,
                            oap = self.address,
                            "nothing can be profiled: the OAP has no profile receiver (or a proxy before it no route to it)"
                        );
                    }
                    sleep(UNIMPLEMENTED_AGAIN).await;
                }
                Err(_) => {}
            }
            sleep(self.task_interval).await;
        }
    }

    async fn deliver(&self, report: Report) {
        match report {
            Report::Discovery(segment) => {
                // Not worth a queue: the endpoint is discovered again when the OAP is back.
                if self.connected.get() == Some(false) || self.judge(self.send_segment(&segment).await).is_err() {
                    self.missed.borrow_mut().insert(Arc::clone(&segment.endpoint));
                }
            }
            Report::Sample(sample) => {
                if let Err(status) = self.send_sample(&sample).await {
                    warn!(
                        target: TARGET,
                        task = sample.task_id,
                        segment = sample.segment.segment_id,
                        error = %reason(&status),
                        "a profiled request did not arrive whole"
                    );
                }
            }
            Report::Finish(task_id) => self.finish(&task_id).await,
        }
    }

    /// Segment first: without it the OAP does not list the snapshots. Stops at the first loss, since snapshots with a gap in
    /// their sequence would show wrong times.
    async fn send_sample(&self, sample: &Sample) -> Result<(), Status> {
        self.until_sent(async || self.send_segment(&sample.segment).await).await?;
        for batch in sample.snapshots.chunks(BATCH) {
            self.until_sent(async || {
                let snapshots: Vec<_> = batch.iter().map(|snapshot| thread_snapshot(sample, snapshot)).collect();
                ProfileTaskClient::new(self.channel()).collect_snapshot(tokio_stream::iter(snapshots)).await
            })
            .await?;
        }
        Ok(())
    }

    async fn send_segment(&self, segment: &Segment) -> Result<tonic::Response<Commands>, Status> {
        let stream = tokio_stream::once(self.segment_object(segment));
        TraceSegmentReportServiceClient::new(self.channel()).collect(stream).await
    }

    /// Told twice, it does no harm: a failure is tried again whatever it was, but not forever.
    async fn finish(&self, task_id: &str) {
        let mut backoff = Backoff::new();
        for _ in 0..FINISH_TRIES {
            let told = self.until_sent(async || {
                let (service, service_instance) = self.names();
                let report = ProfileTaskFinishReport { service, service_instance, task_id: task_id.to_owned() };
                ProfileTaskClient::new(self.channel()).report_task_finish(report).await
            });
            match told.await {
                Ok(_) => return,
                Err(status) => debug!(target: TARGET, task = task_id, %status, "a task's end was not told"),
            }
            sleep(backoff.next()).await;
        }
        warn!(target: TARGET, task = task_id, "the OAP could not be told that a profile task has ended");
    }

    /// Calls until the OAP could be reached; then its answer holds. What may have arrived is not sent again.
    async fn until_sent<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, Status> {
        let mut backoff = Backoff::new();
        loop {
            match self.judge(call().await) {
                Err(status) if is_unsent(&status) => sleep(backoff.next()).await,
                answer => return answer,
            }
        }
    }

    fn channel(&self) -> Channel {
        self.channel.borrow().clone()
    }

    /// Says once when the OAP goes away and once when it is back.
    fn judge<T>(&self, answer: Result<tonic::Response<T>, Status>) -> Result<T, Status> {
        match &answer {
            Ok(_) => {
                if self.connected.replace(Some(true)) != Some(true) {
                    info!(target: TARGET, oap = self.address, "connected to the OAP");
                }
            }
            // The connection is fine; what is missing concerns the caller.
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => {
                if self.connected.replace(Some(false)) != Some(false) {
                    warn!(target: TARGET, oap = self.address, error = %reason(status), "{}; trying on", trouble(status));
                }
                if is_timeout(status) {
                    // The connection may be half open, and would go on to swallow calls.
                    *self.channel.borrow_mut() = self.endpoint.connect_lazy();
                }
            }
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
            ((), ()) = async { tokio::join!(self.keep_alive(), self.poll_tasks(port.news)) } => {}
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

fn is_timeout(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || causes(status).any(|cause| cause.is::<TimeoutExpired>())
}

/// What a failed call means to whoever reads the log.
fn trouble(status: &Status) -> &'static str {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => "the OAP refuses this agent; it may want a token",
        _ if is_unsent(status) || is_timeout(status) || status.code() == Code::Unavailable => "the OAP does not answer",
        _ => "no OAP seems to answer there; its gRPC port is 11800 by default",
    }
}

/// The innermost cause says what happened ("Connection refused"), the status itself often only "transport error".
fn reason(status: &Status) -> String {
    let said = causes(status).last().map_or_else(|| status.message().to_owned(), ToString::to_string);
    if said.is_empty() { status.code().description().to_owned() } else { said }
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
///
/// An OAP that is known by name is taken to be on the way of all else: a look-up would hold up the agent.
fn own_address(oap: &str) -> Option<IpAddr> {
    const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9); // RFC 5737's TEST-NET-1
    let oap = oap.trim_start_matches("http://").trim_end_matches('/').parse().unwrap_or(ELSEWHERE);
    let any: IpAddr = if oap.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(oap).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
