//! An OAP for faults that a real one cannot be made to show: a gRPC server that records its calls and fails as told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use skywalking_profile_proto::v3::{
    Command, Commands, InstancePingPkg, InstanceProperties, KeyStringValuePair, ProfileTaskCommandQuery,
    ProfileTaskFinishReport, SegmentObject, ThreadSnapshot,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use super::FOREVER;

type HttpRequest = http::Request<Incoming>;
type HttpResponse = http::Response<Body>;

/// Ends with its drop.
pub(crate) struct FakeOap {
    address: SocketAddr,
    state: Arc<State>,
    runtime: Option<Runtime>,
    /// Bound and not listening: while the server is down, connections are refused and nobody else gets the port.
    _reserved: TcpSocket,
}

/// A call that arrived, with the whole of its stream if it was not to break before.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Properties(InstanceProperties),
    Ping(InstancePingPkg),
    Poll(ProfileTaskCommandQuery),
    Snapshots(Vec<ThreadSnapshot>),
    Segments(Vec<SegmentObject>),
    Finish(ProfileTaskFinishReport),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Instance,
    Poll,
    Snapshots,
    Segments,
    Finish,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks after the first message.
    BreaksOff,
    /// Everything arrives, and the connection breaks before that is said.
    Unanswered,
    Refused(Code),
    /// It is answered, and the server takes no more.
    LastOne,
}

#[derive(Default)]
struct State {
    now: Mutex<Now>,
    changed: Condvar,
    /// Whether it accepts connections.
    listens: watch::Sender<bool>,
    goes_down: Notify,
}

#[derive(Default)]
struct Now {
    calls: Vec<Call>,
    /// Each for one call.
    faults: VecDeque<(Kind, Fault)>,
    commands: Vec<Command>,
    is_silent: bool,
    without_profile_receiver: bool,
}

impl FakeOap {
    /// One that answers.
    pub(crate) fn up() -> Self {
        let oap = Self::down();
        oap.come_up();
        oap
    }

    /// One that refuses connections.
    pub(crate) fn down() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let reserved = socket((Ipv4Addr::LOCALHOST, 0).into());
        let address = reserved.local_addr().expect("bound");
        Self { address, state: Arc::default(), runtime: Some(runtime), _reserved: reserved }
    }

    pub(crate) fn come_up(&self) {
        let runtime = self.runtime.as_ref().expect("until the drop");
        let _within = runtime.enter();
        let listener = socket(self.address).listen(64).expect("the port is ours");
        self.state.listens.send_replace(true);
        let state = Arc::clone(&self.state);
        runtime.spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted.expect("a connection");
                        tokio::spawn(serve(stream, Arc::clone(&state)));
                    }
                    () = state.goes_down.notified() => break,
                }
            }
            drop(listener);
            state.listens.send_replace(false);
        });
    }

    /// From now on calls are taken and never answered.
    pub(crate) fn fall_silent(&self) {
        self.state.now().is_silent = true;
    }

    /// From now on no calls of profiling are implemented.
    pub(crate) fn lose_profile_receiver(&self) {
        self.state.now().without_profile_receiver = true;
    }

    /// The next calls of this kind fail, one after the other.
    pub(crate) fn fail(&self, kind: Kind, faults: &[Fault]) {
        self.state.now().faults.extend(faults.iter().map(|fault| (kind, *fault)));
    }

    /// Hands out a profile task, `arguments` replacing what a good one has; an empty one is left out.
    pub(crate) fn hand_out(&self, task: &str, arguments: &[(&str, &str)]) {
        let mut now = self.state.now();
        let now_ms = std::time::UNIX_EPOCH.elapsed().expect("past 1970").as_millis();
        let started = now_ms.to_string();
        // No two at the same time.
        let created = (now_ms + now.commands.len() as u128).to_string();
        let mut all = vec![
            ("SerialNumber", task),
            ("TaskId", task),
            ("EndpointName", "GET:/"),
            ("Duration", "5"),
            ("MinDurationThreshold", "0"),
            ("DumpPeriod", "10"),
            ("MaxSamplingCount", "1"),
            ("StartTime", &started),
            ("CreateTime", &created),
        ];
        for (key, value) in arguments {
            all.retain(|(other, _)| other != key);
            all.extend((!value.is_empty()).then_some((*key, *value)));
        }
        let pair = |(key, value): (&str, &str)| KeyStringValuePair { key: key.to_owned(), value: value.to_owned() };
        now.commands
            .push(Command { command: "ProfileTaskQuery".to_owned(), args: all.into_iter().map(pair).collect() });
    }

    pub(crate) fn hand_out_command(&self, command: &str) {
        self.state.now().commands.push(Command { command: command.to_owned(), args: Vec::new() });
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.now().calls.clone()
    }

    /// Waits for what `find` finds among the calls.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, find: impl Fn(&[Call]) -> Option<T>) -> T {
        let start = Instant::now();
        let mut now = self.state.now();
        loop {
            if let Some(found) = find(&now.calls) {
                return found;
            }
            let left = FOREVER.saturating_sub(start.elapsed());
            if left.is_zero() {
                let calls = now.calls.clone();
                drop(now);
                panic!("no {what} among {calls:#?}");
            }
            now = self.state.changed.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The streams of snapshots that arrived, broken ones with what came before.
    pub(crate) fn snapshots(&self) -> Vec<Vec<ThreadSnapshot>> {
        let streams = self.calls().into_iter().filter_map(|call| match call {
            Call::Snapshots(snapshots) => Some(snapshots),
            _ => None,
        });
        streams.collect()
    }

    /// The segments that arrived, in however many streams.
    pub(crate) fn segments(&self) -> Vec<SegmentObject> {
        let streams = self.calls().into_iter().filter_map(|call| match call {
            Call::Segments(segments) => Some(segments),
            _ => None,
        });
        streams.flatten().collect()
    }

    #[track_caller]
    pub(crate) fn until_finished(&self, task: &str) {
        self.until(&format!("end of {task}"), |calls| calls.iter().any(|call| call.is_finish_of(task)).then_some(()));
    }
}

impl Drop for FakeOap {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl fmt::Debug for FakeOap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeOap").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Call {
    pub(crate) fn is_finish_of(&self, task: &str) -> bool {
        matches!(self, Self::Finish(report) if report.task_id == task)
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Properties(_) | Self::Ping(_) => Kind::Instance,
            Self::Poll(_) => Kind::Poll,
            Self::Snapshots(_) => Kind::Snapshots,
            Self::Segments(_) => Kind::Segments,
            Self::Finish(_) => Kind::Finish,
        }
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self, kind: Kind) -> Option<Fault> {
        let mut now = self.now();
        let i = now.faults.iter().position(|(other, _)| *other == kind)?;
        now.faults.remove(i).map(|(_, fault)| fault)
    }

    fn note(&self, call: Call) {
        self.now().calls.push(call);
        self.changed.notify_all();
    }
}

/// One connection.
#[derive(Clone)]
struct Connection {
    state: Arc<State>,
    health: watch::Sender<Health>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// The agent is told to make no more calls on it.
    Closing,
    Broken,
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let connection = Connection { state, health: watch::Sender::new(Health::Good) };
    let (mut closing, mut broken) = (connection.health.subscribe(), connection.health.subscribe());
    let service = service_fn(move |request| {
        let connection = connection.clone();
        async move { Ok::<_, Infallible>(connection.answer(request).await) }
    });
    let mut served = pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // How it ends is the agent's business.
        _ = &mut served => return,
        _ = broken.wait_for(|health| *health == Health::Broken) => return,
        _ = closing.wait_for(|health| *health == Health::Closing) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

impl Connection {
    async fn answer(self, request: HttpRequest) -> HttpResponse {
        let path = request.uri().path().trim_start_matches("/skywalking.v3.").to_owned();
        if path.starts_with("ProfileTask/") && self.state.now().without_profile_receiver {
            return Status::unimplemented("Method not found").into_http();
        }
        match path.as_str() {
            "ManagementService/reportInstanceProperties" => self.unary(request, Call::Properties).await,
            "ManagementService/keepAlive" => self.unary(request, Call::Ping).await,
            "ProfileTask/getProfileTaskCommands" => self.unary(request, Call::Poll).await,
            "ProfileTask/collectSnapshot" => self.stream(request, Kind::Snapshots, Call::Snapshots).await,
            "TraceSegmentReportService/collect" => self.stream(request, Kind::Segments, Call::Segments).await,
            "ProfileTask/reportTaskFinish" => self.unary(request, Call::Finish).await,
            other => panic!("the agent calls {other}"),
        }
    }

    async fn unary<M>(self, request: HttpRequest, call: fn(M) -> Call) -> HttpResponse
    where
        M: prost::Message + Default + 'static,
    {
        let take = tower::service_fn(|message: tonic::Request<M>| async {
            let call = call(message.into_inner());
            let fault = self.state.next_fault(call.kind());
            self.take(call, fault).await
        });
        Grpc::new(ProstCodec::<Commands, M>::default()).unary(take, request).await
    }

    async fn stream<M>(self, request: HttpRequest, kind: Kind, call: fn(Vec<M>) -> Call) -> HttpResponse
    where
        M: prost::Message + Default + 'static,
    {
        let take = tower::service_fn(|messages: tonic::Request<Streaming<M>>| async {
            let fault = self.state.next_fault(kind);
            let mut messages = messages.into_inner();
            let mut received = Vec::new();
            while let Some(message) = messages.message().await? {
                received.push(message);
                if fault == Some(Fault::BreaksOff) {
                    break;
                }
            }
            self.take(call(received), fault).await
        });
        Grpc::new(ProstCodec::<Commands, M>::default()).client_streaming(take, request).await
    }

    async fn take(&self, call: Call, fault: Option<Fault>) -> Result<tonic::Response<Commands>, Status> {
        let commands = match &call {
            Call::Poll(query) => self.state.now().commands_since(query.last_command_time),
            _ => Vec::new(),
        };
        let is_silent = self.state.now().is_silent;
        self.state.note(call);
        match fault {
            _ if is_silent => pending().await,
            None => {}
            Some(Fault::BreaksOff | Fault::Unanswered) => {
                self.health.send_replace(Health::Broken);
                pending().await
            }
            Some(Fault::Refused(code)) => return Err(Status::new(code, "the test's own")),
            Some(Fault::LastOne) => {
                self.state.goes_down.notify_one();
                let mut listens = self.state.listens.subscribe();
                listens.wait_for(|listens| !listens).await.expect("the server holds the sender");
                self.health.send_replace(Health::Closing);
                // Until the connection has been told, and will say so before it answers.
                yield_now().await;
            }
        }
        Ok(tonic::Response::new(Commands { commands }))
    }
}

impl Now {
    /// As the OAP chooses them: what has no such time is always handed out.
    fn commands_since(&self, last_command_time: i64) -> Vec<Command> {
        let created = |command: &Command| {
            let argument = command.args.iter().find(|pair| pair.key == "CreateTime")?;
            argument.value.parse::<i64>().ok()
        };
        let is_due = |command: &&Command| created(command).is_none_or(|created| created > last_command_time);
        self.commands.iter().filter(is_due).cloned().collect()
    }
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Also beside the one that reserves the port.
    socket.set_reuseaddr(true).expect("a socket of ours");
    socket.bind(address).expect("a port");
    socket
}
