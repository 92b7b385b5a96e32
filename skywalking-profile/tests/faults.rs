//! An OAP that is away, breaks off, refuses, commands nonsense or is none at all: what the agent makes of it, and what it
//! says.

mod support;

use std::collections::HashSet;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::Empty;
use skywalking_profile::{ProfileConfig, ProfileLayer};
use skywalking_profile_proto::v3::{RefType, SegmentObject, ThreadSnapshot};
use support::{Call, FOREVER, FakeOap, Fault, Kind, Log, block_on, get, ms, on_one_thread};
use tokio::time::sleep;
use tonic::Code;
use tower::{Layer, ServiceExt, service_fn};
use tracing::Level;

const TROUBLE: &str = "the OAP does not answer; trying on";

#[test]
fn an_oap_that_comes_up_late_gets_what_is_profiled_then() {
    let oap = FakeOap::down();
    let agent = Agent::start("late", &oap.address());
    agent.log.line(TROUBLE, FOREVER);
    oap.hand_out("task", &[("MaxSamplingCount", "3")]);
    oap.come_up();
    agent.begins("task");
    for _ in 0..3 {
        agent.request();
    }
    agent.is_reported(&oap, "task", 3, 0);
    assert_eq!(shown(&oap).len(), 3);
    oap.until("properties", |calls| calls.iter().any(|call| matches!(call, Call::Properties(_))).then_some(()));
    assert_eq!(agent.warnings(), [TROUBLE]);
    agent.log.line("connected to the OAP", FOREVER);
}

#[test]
fn a_request_whose_snapshots_break_off_is_sent_again_as_another_segment() {
    let oap = FakeOap::up();
    let agent = Agent::start("snapshots", &oap.address());
    let faults = [
        Fault::BreaksOff,
        Fault::Unanswered,
        Fault::Refused(Code::Unavailable),
        Fault::Refused(Code::Internal),
        Fault::Refused(Code::Cancelled),
    ];
    oap.fail(Kind::Snapshots, &faults);
    oap.hand_out("task", &[]);
    agent.begins("task");
    agent.request();
    agent.is_reported(&oap, "task", 1, 0);

    let tries = oap.snapshots();
    assert_eq!(tries.len(), faults.len() + 1);
    assert_eq!(tries[0].len(), 1);
    let tried: HashSet<_> = tries.iter().map(|snapshots| &snapshots[0].trace_segment_id).collect();
    assert_eq!(tried.len(), tries.len());
    let [segment] = &shown(&oap)[..] else { panic!("not one segment") };
    assert_eq!(segment.trace_segment_id, tries[faults.len()][0].trace_segment_id);
}

#[test]
fn what_a_request_did_meanwhile_is_sent_with_it_and_anew_with_it() {
    let oap = FakeOap::up();
    let agent = Agent::start("meanwhile", &oap.address());
    oap.fail(Kind::Snapshots, &[Fault::Unanswered]);
    oap.hand_out("task", &[]);
    agent.begins("task");
    let service = agent.layer.layer(service_fn(audited_order));
    let Ok(_) = on_one_thread(service.oneshot(get("/")).boxed());
    agent.is_reported(&oap, "task", 1, 0);

    let [request] = &shown(&oap)[..] else { panic!("not one request") };
    let streams = oap.calls().into_iter().filter_map(|call| match call {
        Call::Segments(segments) if segments.contains(request) => Some(segments),
        _ => None,
    });
    let [segments] = &streams.collect::<Vec<_>>()[..] else { panic!("not one stream of segments") };
    let [_, lane] = &segments[..] else { panic!("not one lane: {segments:#?}") };
    let [reference] = &lane.spans[0].refs[..] else { panic!("not one reference: {lane:#?}") };
    assert_eq!(lane.trace_id, request.trace_id);
    assert_eq!(reference.ref_type(), RefType::CrossThread);
    assert_eq!(reference.parent_trace_segment_id, request.trace_segment_id);
    is_whole(lane, &oap.snapshots().concat());

    let ids = |snapshots: &Vec<ThreadSnapshot>| -> HashSet<_> {
        snapshots.iter().map(|snapshot| snapshot.trace_segment_id.clone()).collect()
    };
    let [first, second] = &oap.snapshots().iter().map(ids).collect::<Vec<_>>()[..] else { panic!("not two tries") };
    assert!(first.len() == 2 && first.is_disjoint(second), "{first:?} {second:?}");
    assert_eq!(*second, HashSet::from([request.trace_segment_id.clone(), lane.trace_segment_id.clone()]));
}

#[test]
fn a_segment_that_may_have_arrived_is_not_repeated_but_counted_as_lost() {
    let oap = FakeOap::up();
    let agent = Agent::start("segments", &oap.address());
    let faults = [Fault::BreaksOff, Fault::Unanswered, Fault::Refused(Code::Unavailable)];
    oap.fail(Kind::Segments, &faults);
    oap.hand_out("task", &[("MaxSamplingCount", "4")]);
    agent.begins("task");
    for _ in 0..4 {
        agent.request();
    }
    agent.is_reported(&oap, "task", 1, 3);

    let segments = shown(&oap);
    assert_eq!(segments.len(), 4);
    let lost = agent.log.lines_with("a profiled request is lost");
    let lost: Vec<_> = lost.iter().map(|line| line.text("segment")).collect();
    let arrived: Vec<_> = segments.iter().map(|segment| segment.trace_segment_id.as_str()).collect();
    assert_eq!(lost, arrived[..3]);
}

#[test]
fn snapshots_that_an_oap_may_have_forgotten_are_sent_again() {
    let oap = FakeOap::up();
    let agent = Agent::start("forgotten", &oap.address());
    oap.fail(Kind::Snapshots, &[Fault::LastOne]);
    oap.hand_out("task", &[]);
    agent.begins("task");
    agent.request();
    agent.log.line(TROUBLE, FOREVER);
    oap.come_up();
    agent.is_reported(&oap, "task", 1, 0);

    let tries = oap.snapshots();
    assert_eq!(tries.len(), 2);
    let [segment] = &shown(&oap)[..] else { panic!("not one segment") };
    assert_eq!(segment.trace_segment_id, tries[1][0].trace_segment_id);
    assert_ne!(segment.trace_segment_id, tries[0][0].trace_segment_id);
}

#[test]
fn a_finish_that_fails_is_told_again() {
    let oap = FakeOap::up();
    let agent = Agent::start("finish", &oap.address());
    let faults =
        [Fault::Refused(Code::Unavailable), Fault::BreaksOff, Fault::Unanswered, Fault::Refused(Code::Unknown)];
    oap.fail(Kind::Finish, &faults);
    oap.hand_out("task", &[]);
    agent.begins("task");
    agent.request();
    agent.is_reported(&oap, "task", 1, 0);
    let tries = faults.len() + 1;
    oap.until("last finish", |calls| (finishes(calls, "task") == tries).then_some(()));
    assert_eq!(shown(&oap).len(), 1);
}

#[test]
fn an_oap_that_falls_silent_holds_up_nothing_and_what_has_no_room_is_counted() {
    // As many as the agent's queue takes; together more than fit in 32 MiB, a kilobyte at least each.
    const SAMPLES: usize = 4_000;
    let tasks = ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8"];
    let oap = FakeOap::up();
    let agent = Agent::start("silent", &oap.address());
    for path in tasks {
        oap.hand_out(path, &[("EndpointName", &format!("GET:{path}")), ("MaxSamplingCount", &SAMPLES.to_string())]);
    }
    for path in tasks {
        agent.begins(path);
    }
    oap.fall_silent();

    let mut slowest = Duration::ZERO;
    let mut no_room = 0;
    for path in tasks {
        for _ in 0..SAMPLES {
            let start = Instant::now();
            agent.quick_request(path);
            slowest = slowest.max(start.elapsed());
        }
        let ends = agent.log.line_of(path, "profile task ends: all its samples are in", FOREVER);
        assert_eq!(ends.number("profiled"), SAMPLES, "{ends}");
        no_room += ends.number("no_room_to_report");
    }
    assert!(slowest < ms(500), "a request took {slowest:?}");

    let start = Instant::now();
    block_on(agent.layer.shutdown());
    assert!(start.elapsed() < ms(5_500), "the shutdown took {:?}", start.elapsed());
    let left =
        agent.log.line("the OAP could not be told everything before the layer shut down", FOREVER).number("lost");
    assert!(no_room > 0);
    assert_eq!(left + no_room, tasks.len() * SAMPLES);
    assert!(left * 1_000 <= 32 * 1024 * 1024, "the spool holds {left}");
    agent.quick_request("/");
}

#[test]
fn an_oap_without_profile_receiver_is_told_of_once_and_gets_all_else() {
    let oap = FakeOap::up();
    oap.lose_profile_receiver();
    let agent = Agent::start("unimplemented", &oap.address());
    let said = "nothing can be profiled: the OAP has no profile receiver";
    agent.log.line(said, FOREVER);
    agent.request();
    oap.until("segment of the discovered endpoint", |calls| {
        calls.iter().any(|call| matches!(call, Call::Segments(segments) if !segments.is_empty())).then_some(())
    });
    oap.until("properties", |calls| calls.iter().any(|call| matches!(call, Call::Properties(_))).then_some(()));
    assert_eq!(agent.warnings().len(), 1, "{}", agent.log);
    let start = Instant::now();
    block_on(agent.layer.shutdown());
    assert!(start.elapsed() < ms(1_000), "the shutdown took {:?}", start.elapsed());
}

#[test]
fn commands_that_cannot_be_carried_out_are_refused_and_the_next_good_task_is_carried_out() {
    const HUGE: &str = "99999999999999999999999999";
    let oap = FakeOap::up();
    oap.hand_out_command("PprofTaskQuery");
    oap.hand_out("without id", &[("TaskId", "")]);
    let bad: &[(&str, &str, &str)] = &[
        ("Duration", "", "Duration is missing"),
        ("Duration", "five", "Duration is `five`"),
        ("Duration", "0", "Duration is `0`"),
        ("Duration", "16", "Duration is `16`"),
        ("Duration", HUGE, "Duration is `9999"),
        ("DumpPeriod", "", "DumpPeriod is missing"),
        ("DumpPeriod", "0", "DumpPeriod is `0`"),
        ("DumpPeriod", "9.5", "DumpPeriod is `9.5`"),
        ("DumpPeriod", HUGE, "DumpPeriod is `9999"),
        ("MaxSamplingCount", "", "MaxSamplingCount is missing"),
        ("MaxSamplingCount", "0", "MaxSamplingCount is `0`"),
        ("MaxSamplingCount", "-1", "MaxSamplingCount is `-1`"),
        ("MaxSamplingCount", HUGE, "MaxSamplingCount is `9999"),
        ("MinDurationThreshold", "", "MinDurationThreshold is missing"),
        ("MinDurationThreshold", "-1", "MinDurationThreshold is `-1`"),
        ("MinDurationThreshold", "0x10", "MinDurationThreshold is `0x10`"),
        ("MinDurationThreshold", "18446744073709551615", "MinDurationThreshold is `1844"),
        ("StartTime", "", "StartTime is missing"),
        ("StartTime", "now", "StartTime is `now`"),
        ("StartTime", "9223372036854775807", "StartTime is `9223"),
        ("EndpointName", "", "EndpointName is missing"),
        ("EndpointName", "  ", "EndpointName is `  `"),
    ];
    let task = |i: usize| format!("bad-{i}");
    for (i, (argument, value, _)) in bad.iter().enumerate() {
        oap.hand_out(&task(i), &[(argument, value)]);
    }
    // Good but for the time of its creation, without which it is handed out at each poll.
    oap.hand_out("bad-without-time", &[("Duration", "0"), ("CreateTime", "")]);
    // As if it were the last that there will ever be.
    oap.hand_out("over", &[("StartTime", "0"), ("CreateTime", "9223372036854775807")]);
    let agent = Agent::start("commands", &oap.address());

    for (i, (_, _, says)) in bad.iter().enumerate() {
        let refused = agent.log.line_of(&task(i), "refused a profile task", FOREVER);
        assert!(refused.level == Level::WARN && refused.text("error").starts_with(says), "{refused}");
        oap.until_finished(&task(i));
    }
    agent.log.line_of("over", "a profile task arrived after its end", FOREVER);
    oap.until_finished("over");

    oap.hand_out("good", &[("MaxSamplingCount", "2"), ("DumpPeriod", " 20 ")]);
    agent.begins("good");
    agent.request();
    agent.request();
    agent.is_reported(&oap, "good", 2, 0);
    assert_eq!(shown(&oap).len(), 2);

    // Polls go on with what has no time; each is told and finished once all the same.
    let polls = |calls: &[Call]| calls.iter().filter(|call| matches!(call, Call::Poll(_))).count();
    let before = polls(&oap.calls());
    oap.until("two more polls", |calls| (polls(calls) >= before + 2).then_some(()));
    for task in (0..bad.len()).map(task).chain(["bad-without-time".to_owned(), "over".to_owned()]) {
        assert_eq!(finishes(&oap.calls(), &task), 1, "{task}");
    }
    let passed_over = agent.log.lines_with("passed over a command of the OAP");
    let errors: Vec<_> = passed_over.iter().map(|line| line.text("error")).collect();
    assert_eq!(errors, ["`PprofTaskQuery` is no command of this agent's", "TaskId is missing"]);
    assert_eq!(agent.warnings().len(), bad.len() + 4, "{}", agent.log);
}

#[test]
fn the_greatest_numbers_of_a_task_do_no_harm() {
    let oap = FakeOap::up();
    let most_ms = (u64::MAX / 1_000_000).to_string();
    let latest_ms = (i64::MAX / 1_000_000).to_string();
    let agent = Agent::start("numbers", &oap.address());
    oap.hand_out("count", &[("MaxSamplingCount", "18446744073709551615"), ("EndpointName", "GET:/count")]);
    oap.hand_out("threshold", &[("MinDurationThreshold", &most_ms), ("EndpointName", "GET:/threshold")]);
    oap.hand_out("start", &[("StartTime", &latest_ms), ("EndpointName", "GET:/start")]);
    oap.hand_out("period", &[("DumpPeriod", &most_ms), ("Duration", "15")]);
    agent.begins("count");
    agent.begins("threshold");
    agent.begins("period");
    agent.log.line_of("start", "a profile task begins in", FOREVER);
    for path in ["/count", "/threshold", "/start", "/"] {
        agent.request_of(path);
    }
    agent.is_reported(&oap, "period", 1, 0);
    block_on(agent.layer.shutdown());
    agent.is_reported(&oap, "count", 1, 0);
    agent.is_reported(&oap, "threshold", 0, 0);
    oap.until_finished("start");
    let mut endpoints: Vec<_> =
        shown(&oap).into_iter().map(|mut segment| segment.spans.remove(0).operation_name).collect();
    endpoints.sort();
    assert_eq!(endpoints, ["GET:/", "GET:/count"]);
}

#[test]
fn a_web_server_is_no_oap() {
    let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\nconnection: close\r\n\r\nnot found";
    is_no_oap("web server", answer);
}

#[test]
fn noise_is_no_oap() {
    let noise: Vec<u8> = (0..4_096u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    is_no_oap("noise", &noise);
}

#[test]
fn a_server_that_hangs_up_is_no_oap() {
    is_no_oap("hangs up", b"");
}

/// Says so once, and holds up neither requests nor the shutdown.
#[track_caller]
fn is_no_oap(name: &str, answer: &[u8]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let agent = Agent::start(name, &address);
    // The first for the properties and the first poll, the others for what is tried again.
    for _ in 0..4 {
        let (mut connection, _) = listener.accept().expect("a connection");
        connection.read_exact(&mut [0; 16]).expect("an HTTP/2 preface");
        // Whether the agent still listens is its own business.
        let _ = connection.write_all(answer);
        agent.quick_request("/");
    }
    let warnings = agent.warnings();
    assert_eq!(warnings.len(), 1, "{}", agent.log);
    assert!(warnings[0].ends_with("; trying on"), "{}", agent.log);
    drop(listener);
    let start = Instant::now();
    block_on(agent.layer.shutdown());
    assert!(start.elapsed() < ms(5_500), "the shutdown took {:?}", start.elapsed());
    assert_eq!(agent.warnings().len(), 1, "{}", agent.log);
}

struct Agent {
    layer: ProfileLayer,
    log: Log,
}

impl Agent {
    fn start(name: &str, oap: &str) -> Self {
        let log = Log::of(name, "1");
        let config = ProfileConfig::new(name)
            .and_then(|config| config.instance("1"))
            .and_then(|config| config.backend_service(oap))
            .and_then(|config| config.task_interval(Duration::from_secs(1)))
            .expect("a configuration");
        Self { layer: ProfileLayer::new(config), log }
    }

    /// Waits until the task takes requests.
    #[track_caller]
    fn begins(&self, task: &str) {
        self.log.line_of(task, "profile task begins", FOREVER);
    }

    /// The task's end is told, after so many requests were delivered and so many lost.
    #[track_caller]
    fn is_reported(&self, oap: &FakeOap, task: &str, delivered: usize, lost: usize) {
        oap.until_finished(task);
        let reported = self.log.line_of(task, "profile task reported", FOREVER);
        assert_eq!((reported.number("requests"), reported.number("lost")), (delivered, lost), "{}", self.log);
    }

    fn warnings(&self) -> Vec<String> {
        let lines = self.log.lines().into_iter();
        lines.filter(|line| line.level <= Level::WARN).map(|line| line.message).collect()
    }

    fn request(&self) {
        self.request_of("/");
    }

    /// A request of some snapshots.
    fn request_of(&self, path: &str) {
        let service = self.layer.layer(service_fn(order));
        let Ok(_) = on_one_thread(service.oneshot(get(path)).boxed());
    }

    fn quick_request(&self, path: &str) {
        let answer = async |_| Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()));
        let Ok(_) = block_on(self.layer.layer(service_fn(answer)).oneshot(get(path)));
    }
}

async fn order(_: Request<()>) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    sleep(ms(60)).await;
    Ok(Response::new(Empty::new()))
}

/// With another task beside.
async fn audited_order(request: Request<()>) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let audit = skywalking_profile::spawn(sleep(ms(30)));
    let answer = order(request).await;
    audit.await.expect("a task that ends");
    answer
}

/// How often the task's end was told.
fn finishes(calls: &[Call], task: &str) -> usize {
    calls.iter().filter(|call| call.is_finish_of(task)).count()
}

/// The profiled requests that the OAP has got, each once and with all of its snapshots.
#[track_caller]
fn shown(oap: &FakeOap) -> Vec<SegmentObject> {
    let mut segments = oap.segments();
    // Those that only tell of an endpoint are others.
    segments.retain(|segment| segment.spans[0].tags.iter().any(|tag| tag.key == "profile.polls"));
    let snapshots: Vec<_> = oap.snapshots().into_iter().flatten().collect();
    let traces: HashSet<_> = segments.iter().map(|segment| &segment.trace_id).collect();
    assert_eq!(traces.len(), segments.len(), "a request is there twice");
    for segment in &segments {
        is_whole(segment, &snapshots);
    }
    segments
}

/// The snapshots of the segment's one span are among these, from its start to its end.
#[track_caller]
fn is_whole(segment: &SegmentObject, snapshots: &[ThreadSnapshot]) {
    let [span] = segment.spans.as_slice() else { panic!("{segment:#?}") };
    let its: Vec<&ThreadSnapshot> =
        snapshots.iter().filter(|snapshot| snapshot.trace_segment_id == segment.trace_segment_id).collect();
    let times = its.first().zip(its.last()).map(|(first, last)| (first.time, last.time));
    assert_eq!(times, Some((span.start_time, span.end_time)), "not all of its time is there: {its:#?}");
    for (i, snapshot) in its.iter().enumerate() {
        assert_eq!(snapshot.sequence as usize, i, "{its:#?}");
    }
}
