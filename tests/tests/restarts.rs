//! An OAP server that is killed again and again while profiled requests are reported to it: what it acknowledged is there
//! once, and what it did not is there once or counted as lost.

#[allow(dead_code, reason = "shared with the library's tests, which take other parts of it")]
#[path = "../../skywalking-profile/tests/support/log.rs"]
mod log;

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    env,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Extensions, Request, Response};
use http_body_util::Empty;
use log::{Line, Log};
use skywalking_profile::{ProfileConfig, ProfileLayer};
use skywalking_profile_tests::{
    Graphql, MortalOap, Oap, ProfileTaskCreation, ProfiledSegment, service_id, unique_service, until_ok,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    sync::watch,
    time::sleep,
};
use tower::{Layer, ServiceExt, service_fn};

const KILLS: u32 = 10;
/// The OAP lists the newest 200 segments of a task; the rest is room for those that are sent again.
const SERVICES: usize = 2;
const INSTANCES: usize = 12;
/// Of an instance: the most that the OAP allows a task.
const REQUESTS: usize = 9;

/// What the OAP has acknowledged waits in its memory to be written: in a queue that is looked at every 20 ms, and behind
/// the batch that is under way, which takes its time in a server that has just started.
const UNWRITTEN: Duration = Duration::from_secs(2);

/// What the log says of each request that the OAP has acknowledged.
const DELIVERED: &str = "a profiled request is delivered";

/// Only a failing test waits that long.
const LONG: Duration = Duration::from_secs(60);

#[test]
#[expect(clippy::print_stderr, reason = "what happened differs from run to run")]
fn what_was_acknowledged_is_there_once_whenever_the_oap_is_killed() {
    let seed = env::var("SEED").map_or_else(|_| now_ms(), |seed| seed.parse().expect("SEED is a number"));
    eprintln!("SEED={seed}");
    let mut random = Random(seed);
    let oap = MortalOap::start();
    let runtime = Runtime::new().expect("a runtime");
    let wire = Wire::to(oap.server(), &runtime);
    let mut services: Vec<_> = (0..SERVICES).map(|_| Service::start(oap.server(), &wire)).collect();
    for instance in services.iter().flat_map(|service| &service.instances) {
        instance.log.line("profile task begins", LONG);
    }

    let (kill, kills) = watch::channel(0);
    for (i, instance) in services.iter().flat_map(|service| &service.instances).enumerate() {
        // One request at some time after each kill but one.
        let rounds = (1..=KILLS).filter(|round| *round as usize % (REQUESTS + 1) != i % (REQUESTS + 1));
        let plan = rounds.map(|round| (round, random.up_to(ms(10_000)), random.up_to(ms(300)))).collect();
        runtime.spawn(instance.requests(plan, kills.clone()));
    }

    let delivered = |services: &[Service]| services.iter().map(|service| service.delivered().len()).sum::<usize>();
    // When the OAP was killed without the time to write what it had acknowledged.
    let mut surprises = Vec::new();
    thread::scope(|scope| {
        let mut starting: Option<ScopedJoinHandle<'_, Result<(), String>>> = None;
        for round in 1..=KILLS {
            let is_surprise = round % 3 == 1;
            if let Some(start) = starting.take() {
                // In the midst of what was held up, mostly before the server is quite ready; or at any time later.
                let delay = random.up_to(ms(2_500));
                let enough = delivered(&services) + 1 + random.up_to(ms(20)).as_millis() as usize;
                wait_for(LONG, || start.is_finished() || delivered(&services) >= enough);
                thread::sleep(if start.is_finished() { delay } else { delay / 100 });
                if !is_surprise {
                    wire.cut();
                    start.join().expect("no panic").unwrap_or_else(|error| panic!("{error}"));
                }
            }
            if is_surprise {
                let from = Instant::now();
                oap.kill();
                surprises.push(from - UNWRITTEN..Instant::now());
                wire.cut();
            } else {
                for service in &mut services {
                    service.until_written(oap.server().graphql(), &surprises);
                }
                oap.kill();
            }
            kill.send_replace(round);
            starting = Some(scope.spawn(|| oap.start_again()));
            wire.mend();
        }
        let start = starting.expect("a last start");
        start.join().expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    });

    let mut tally = Tally::default();
    for service in &mut services {
        service.assert_accounts(oap.server().graphql(), &surprises, &mut tally);
    }
    eprintln!("{tally:?}");
    assert_eq!(tally.delivered + tally.lost, SERVICES * INSTANCES * REQUESTS);
}

/// A service with one task that takes all requests of its instances.
struct Service {
    task: String,
    /// Segments that were seen there, with all of their snapshots.
    whole: HashSet<String>,
    instances: Vec<Instance>,
}

struct Instance {
    name: String,
    layer: ProfileLayer,
    log: Log,
}

/// What has become of the requests.
#[derive(Debug, Default)]
struct Tally {
    delivered: usize,
    delivered_and_whole: usize,
    /// Like those that are not there at all: what the OAP acknowledged right before it was killed, and never wrote.
    delivered_and_not_whole: usize,
    lost: usize,
    lost_and_there: usize,
    sent_again: usize,
}

impl Service {
    fn start(oap: &Oap, wire: &Wire) -> Self {
        let name = unique_service("restarts");
        let creation = ProfileTaskCreation {
            service_id: service_id(&name),
            endpoint_name: String::from("GET:/orders"),
            duration_min: 15,
            min_duration_threshold_ms: 0,
            dump_period_ms: 10,
            max_sampling_count: REQUESTS as u32,
        };
        let task = oap.graphql().create_profile_task(&creation).expect("a task");
        let instances = (0..INSTANCES).map(|i| Instance::start(&name, &i.to_string(), wire));
        Self { task: task.id, whole: HashSet::new(), instances: instances.collect() }
    }

    fn delivered(&self) -> HashMap<String, Instant> {
        let lines = self.instances.iter().flat_map(|instance| instance.log.lines_with(DELIVERED));
        lines.map(|line| (segment_of(&line), line.at)).collect()
    }

    /// Waits until all that was delivered is there and whole, but for what a surprise may have kept from being written.
    #[track_caller]
    fn until_written(&mut self, graphql: &Graphql, surprises: &[Range<Instant>]) {
        until_ok("delivered requests, each whole", LONG, || {
            let listed = graphql.profile_task_segments(&self.task);
            let not_yet = listed.iter().filter(|segment| !self.whole.contains(&segment.entry_span().segment_id));
            let whole: Vec<_> = not_yet.filter(|segment| is_whole(graphql, segment)).map(segment_id).collect();
            self.whole.extend(whole);
            let delivered = self.delivered();
            let is_missing = |(segment, at): &(&String, &Instant)| {
                !self.whole.contains(*segment) && !surprises.iter().any(|surprise| surprise.contains(at))
            };
            let missing: Vec<_> = delivered.iter().filter(is_missing).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("all but {missing:?}")) }
        });
    }

    #[track_caller]
    fn assert_accounts(&mut self, graphql: &Graphql, surprises: &[Range<Instant>], tally: &mut Tally) {
        let mut lost = HashSet::new();
        for instance in &self.instances {
            lost.extend(instance.lost());
            tally.sent_again += instance.log.lines_with("a profiled request is sent again").len();
        }
        let delivered = self.delivered();
        tally.delivered += delivered.len();
        tally.lost += lost.len();

        self.until_written(graphql, surprises);
        let listed = graphql.profile_task_segments(&self.task);
        assert!(listed.len() < 200, "the OAP lists no more");
        let mut requests = HashSet::new();
        for segment in &listed {
            let span = segment.entry_span();
            let url = span.tag("url").expect("a url");
            assert!(requests.insert(url), "there twice: {url}");
            let id = &span.segment_id;
            assert!(delivered.contains_key(id) || lost.contains(id), "neither delivered nor lost: {id}");
            match (lost.contains(id), self.whole.contains(id)) {
                (true, _) => tally.lost_and_there += 1,
                (false, true) => tally.delivered_and_whole += 1,
                (false, false) => tally.delivered_and_not_whole += 1,
            }
        }
    }
}

impl Instance {
    fn start(service: &str, name: &str, wire: &Wire) -> Self {
        let log = Log::of(service, name);
        let config = ProfileConfig::new(service)
            .and_then(|config| config.instance(name))
            .and_then(|config| config.backend_service(wire.address.to_string()))
            .and_then(|config| config.task_interval(Duration::from_secs(1)))
            .expect("a configuration");
        let layer = ProfileLayer::new(config).with_route(|extensions: &Extensions| extensions.get().copied());
        Self { name: String::from(name), layer, log }
    }

    /// Makes the planned requests: after which kill, how long after it, and how long.
    fn requests(
        &self,
        plan: Vec<(u32, Duration, Duration)>,
        mut kills: watch::Receiver<u32>,
    ) -> impl Future<Output = ()> + 'static {
        let (layer, name) = (self.layer.clone(), self.name.clone());
        async move {
            for (round, delay, length) in plan {
                if kills.wait_for(|kill| *kill >= round).await.is_err() {
                    return;
                }
                sleep(delay).await;
                let mut request = Request::get(format!("/orders/{name}-{round}")).body(length).expect("a path");
                request.extensions_mut().insert("/orders");
                let Ok(_) = layer.layer(service_fn(order)).oneshot(request).await;
            }
        }
    }

    /// The segments that count as lost, once the task is reported and all requests are accounted for.
    #[track_caller]
    fn lost(&self) -> Vec<String> {
        let ends = self.log.line("profile task ends: all its samples are in", LONG);
        assert_eq!((ends.number("profiled"), ends.number("no_room_to_report")), (REQUESTS, 0), "{ends}");
        let reported = self.log.line("profile task reported", LONG);
        let delivered = self.log.lines_with(DELIVERED).len();
        let lost = self.log.lines_with("a profiled request is lost");
        assert_eq!((reported.number("requests"), reported.number("lost")), (delivered, lost.len()), "{reported}");
        assert_eq!(delivered + lost.len(), REQUESTS, "{reported}");
        lost.iter().map(segment_of).collect()
    }
}

async fn order(request: Request<Duration>) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let length = request.into_body();
    sleep(length / 4).await;
    load(length).await;
    Ok(Response::new(Empty::new()))
}

async fn load(length: Duration) {
    sleep(length).await;
}

fn segment_of(line: &Line) -> String {
    String::from(line.text("segment"))
}

fn wait_for(most: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() && start.elapsed() < most {
        thread::sleep(ms(2));
    }
}

fn segment_id(segment: &ProfiledSegment) -> String {
    segment.entry_span().segment_id.clone()
}

/// Whether what the UI shows of the request is one tree, as long as the request.
fn is_whole(graphql: &Graphql, segment: &ProfiledSegment) -> bool {
    let span = segment.entry_span();
    let analysis = graphql.segments_profile_analyze(&span.segment_id, span.start_time_ms, span.end_time_ms);
    match analysis.trees.as_slice() {
        [tree] => tree.root().duration_ms == span.end_time_ms - span.start_time_ms,
        _ => false,
    }
}

/// The agents' way to the OAP. When it is cut, the connections over it break at once and others are refused.
struct Wire {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    /// Bound and not listening: nobody else gets the port.
    _reserved: TcpSocket,
}

impl Wire {
    fn to(oap: &Oap, runtime: &Runtime) -> Self {
        let _within = runtime.enter();
        let reserved = Self::socket((Ipv4Addr::LOCALHOST, 0).into());
        let address = reserved.local_addr().expect("bound");
        let oap = oap.grpc_address().parse().expect("an address");
        let whole = watch::Sender::new(true);
        runtime.spawn(Self::carry(address, oap, whole.subscribe()));
        Self { address, whole, _reserved: reserved }
    }

    fn cut(&self) {
        self.whole.send_replace(false);
        wait_for(LONG, || std::net::TcpStream::connect(self.address).is_err());
    }

    /// It is whole again once the OAP takes connections.
    fn mend(&self) {
        self.whole.send_replace(true);
    }

    async fn carry(address: SocketAddr, oap: SocketAddr, mut whole: watch::Receiver<bool>) {
        while whole.wait_for(|whole| *whole).await.is_ok() {
            if TcpStream::connect(oap).await.is_err() {
                sleep(ms(10)).await;
                continue;
            }
            let listener = Self::socket(address).listen(64).expect("the port is ours");
            let mut cut = whole.clone();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (agent, _) = accepted.expect("a connection");
                        tokio::spawn(Self::carry_one(agent, oap, whole.clone()));
                    }
                    _ = cut.wait_for(|whole| !whole) => break,
                }
            }
        }
    }

    async fn carry_one(mut agent: TcpStream, oap: SocketAddr, mut whole: watch::Receiver<bool>) {
        let Ok(mut oap) = TcpStream::connect(oap).await else { return };
        tokio::select! {
            // However it ends, both ends get to know by the drop.
            _ = copy_bidirectional(&mut agent, &mut oap) => {}
            _ = whole.wait_for(|whole| !whole) => {}
        }
    }

    fn socket(address: SocketAddr) -> TcpSocket {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Also beside the one that reserves the port.
        socket.set_reuseaddr(true).expect("a socket of ours");
        socket.bind(address).expect("a port");
        socket
    }
}

/// Numbers from a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn up_to(&mut self, most: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        most.mul_f64((bits ^ (bits >> 31)) as f64 / u64::MAX as f64)
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as u64
}
