//! Requests that do several things at once, on a real OAP: what they waited for to the end shows in their own tree, the
//! rest in spans beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use skywalking_profile_tests::{
    AnalysedTree, Example, Node, Oap, ProfileTaskCreation, ProfiledSegment, ProfiledSpan, Response, SLEEP, StartedTask,
    TOLERANCE_MS, assert_exact_of, assert_well_named, service_id, task_of, tried_again, unique_service, until,
};

const REQUESTS: usize = 3;
/// What blocks is seen every 2 ms, on each of its ends.
const BETWEEN_SAMPLES_MS: f64 = 5.0;
/// Lanes that a request has by default.
const MOST_LANES: usize = 5;

const JOIN_HANDLE: &str = "tokio::runtime::task::join::JoinHandle";
const TIMEOUT: &str = "tokio::time::timeout::Timeout";
const LOCK: &str = "tokio::sync::mutex::Mutex::lock";

#[test]
fn the_last_arm_of_a_join_is_what_the_request_waited_for() {
    tried_again(|| {
        for (response, request) in &profile("/join") {
            let tree = &request.tree;
            let join = tree.child(tree.root(), "join");
            for function in ["load_order", "price_order"] {
                assert_only_awaits(tree, tree.child(join, function), SLEEP);
                assert_exact_of(tree, response, function);
            }
            assert_exact_of(tree, response, "join");
            assert_exact_of(tree, response, "total");
            request.assert_shows_nothing_of("load_customer");

            let [customer] = &request.beside[..] else { panic!("not one span beside {request}") };
            customer.assert_shows("slow_endpoint::join::load_customer", SLEEP);
            customer.assert_lasted(response.timing("load_customer"), TOLERANCE_MS);
            assert_eq!(customer.span.tag("profile.cancelled"), None, "{request}");
        }
    });
}

#[test]
fn what_loses_a_select_is_not_shown() {
    tried_again(|| {
        for (response, request) in &profile("/select") {
            assert_eq!(response.body, r#"{"winner":"ask_near"}"#);
            let tree = &request.tree;
            let winner = tree.child(tree.child(tree.root(), "select"), "ask_near");
            assert_only_awaits(tree, winner, SLEEP);
            for function in ["ask_near", "select", "total"] {
                assert_exact_of(tree, response, function);
            }
            request.assert_shows_nothing_of("ask_far");
            assert!(request.beside.is_empty(), "{request}");
        }
    });
}

#[test]
fn what_a_timeout_gave_up_is_a_span_of_its_own() {
    tried_again(|| {
        for (response, request) in &profile("/timeout") {
            let tree = &request.tree;
            let timeout = tree.child(tree.root(), "timeout");
            let in_time = tree.child(tree.child(timeout, "be_patient"), "answer_soon");
            assert_only_awaits(tree, in_time, SLEEP);
            assert_only_awaits(tree, tree.child(timeout, "lose_patience"), TIMEOUT);
            for function in ["answer_soon", "be_patient", "lose_patience", "timeout", "total"] {
                assert_exact_of(tree, response, function);
            }
            request.assert_shows_nothing_of("answer_late");

            let [late] = &request.beside[..] else { panic!("not one span beside {request}") };
            late.assert_shows("slow_endpoint::timeout::answer_late", SLEEP);
            // It lasted as long as it was waited for.
            late.assert_lasted(response.timing("lose_patience"), TOLERANCE_MS);
            assert_eq!(late.span.tag("profile.cancelled"), Some("true"), "{request}");
        }
    });
}

#[test]
fn other_tasks_are_spans_and_show_below_the_waits_for_them() {
    tried_again(|| {
        for (response, request) in &profile("/spawn") {
            let tree = &request.tree;
            let spawn = tree.child(tree.root(), "spawn");
            assert_exact_of(tree, response, "spawn");
            assert_exact_of(tree, response, "total");
            for (function, wait) in [("reserve_stock", "stock.await"), ("charge_card", "card.await")] {
                let node = tree.node(function);
                assert_only_awaits(tree, node, SLEEP);
                // In that time only: it may have begun before.
                assert_near(tree, function, response.timing(wait), TOLERANCE_MS);
                let awaited = tree.parent(node).unwrap_or_else(|| panic!("{function} below nothing in\n{tree}"));
                assert!(awaited.is(JOIN_HANDLE), "{function} below {} in\n{tree}", awaited.signature);
                assert!(tree.children(spawn).any(|child| child.signature == awaited.signature), "{tree}");
            }
            // It had ended when it was waited for.
            request.assert_shows_nothing_of("print_invoice");

            assert_eq!(request.beside.len(), 3, "spans beside {request}");
            for (function, awaited, tolerance_ms) in [
                ("reserve_stock", SLEEP, TOLERANCE_MS),
                ("charge_card", SLEEP, TOLERANCE_MS),
                ("print_invoice", "std::thread::functions::sleep", BETWEEN_SAMPLES_MS),
            ] {
                let child = request.beside(function);
                child.assert_shows(&format!("slow_endpoint::spawn::{function}"), awaited);
                child.assert_lasted(response.timing(function), tolerance_ms);
            }
        }
    });
}

#[test]
fn many_futures_of_a_stream_share_lanes_and_those_left_out_are_counted() {
    tried_again(|| {
        for (response, request) in &profile("/fanout") {
            let tree = &request.tree;
            for function in ["fanout", "total"] {
                assert_exact_of(tree, response, function);
            }
            let collect =
                tree.child(tree.child(tree.root(), "fanout"), "futures_util::stream::stream::collect::Collect");
            let fetch = tree.child(collect, "fetch");
            assert_only_awaits(tree, fetch, SLEEP);
            // All but what the stream itself takes between two rounds of fetches.
            let (fetch_ms, fanout_ms) = (fetch.duration_ms as f64, response.timing("fanout"));
            let expected = 0.9 * fanout_ms..=fanout_ms + TOLERANCE_MS;
            assert!(expected.contains(&fetch_ms), "fanout took {fanout_ms} ms in\n{tree}");

            let fetches =
                || response.server_timing.iter().filter(|(function, _)| function == "fetch").map(|(_, ms)| *ms);
            let shortest_ms = fetches().fold(f64::INFINITY, f64::min) - TOLERANCE_MS;
            let longest_ms = fetches().fold(0.0, f64::max) + TOLERANCE_MS;
            for beside in &request.beside {
                beside.assert_shows("slow_endpoint::fanout::fetch", SLEEP);
                let ms = beside.tree.node("fetch").duration_ms as f64;
                assert!(
                    (shortest_ms..=longest_ms).contains(&ms),
                    "fetches took {:?} in {beside}",
                    Vec::from_iter(fetches())
                );
            }

            let lanes: BTreeSet<_> = request.beside.iter().map(|beside| &beside.span.segment_id).collect();
            assert_eq!(lanes.len(), MOST_LANES, "lanes of {request}");
            assert!(request.beside.len() > MOST_LANES, "no lane is shared in {request}");
            let left_out = request.entry.tag("profile.spans_left_out").and_then(|count| count.parse::<usize>().ok());
            assert_eq!(left_out, Some(fetches().count() - request.beside.len()), "{request}");
        }
    });
}

#[test]
fn a_request_whose_client_has_gone_shows_all_that_was_pending() {
    tried_again(|| {
        let oap = Oap::running();
        let name = unique_service("cancelled");
        let example = Example::start(&name, Some(&oap));
        let task = ProfileTaskCreation { max_sampling_count: 1, ..task_of(&service_id(&name), "GET:/cancel") };
        let task = StartedTask::taken_up(&oap, &example, &task);

        example.give_up("GET", "/cancel", Duration::from_millis(50));
        let lasted_ms: f64 = until("word of the request's end", Duration::from_secs(10), || {
            let stdout = example.stdout();
            let lasted = stdout.lines().find_map(|line| line.strip_prefix("GET:/cancel given up after "))?;
            lasted.strip_suffix(" ms")?.parse().ok()
        });

        let request = &Request::of(&task, &task.whole_requests(1)[0]);
        assert_well_named(&request.tree);
        assert_eq!(request.entry.tag("profile.cancelled"), Some("true"), "{request}");
        assert_near(&request.tree, "cancel", lasted_ms, TOLERANCE_MS);
        // Nothing had come of either, so that both may be beside.
        for (function, awaited) in [("query_ledger", SLEEP), ("await_lock", LOCK)] {
            if request.tree.nodes().iter().any(|node| node.is(function)) {
                assert_only_awaits(&request.tree, request.tree.node(function), awaited);
                assert_near(&request.tree, function, lasted_ms, TOLERANCE_MS);
            } else {
                let pending = request.beside(function);
                pending.assert_shows(&format!("slow_endpoint::cancel::{function}"), awaited);
                pending.assert_lasted(lasted_ms, TOLERANCE_MS);
                assert_eq!(pending.span.tag("profile.cancelled"), Some("true"), "{request}");
            }
        }
    });
}

/// The responses of a task's requests of `GET path`, each with what the OAP shows of it.
#[track_caller]
fn profile(path: &str) -> Vec<(Response, Request)> {
    let oap = Oap::running();
    let name = unique_service("concurrent");
    let endpoint = format!("GET:{path}");
    let example = Example::start(&name, Some(&oap));
    let task = StartedTask::taken_up(&oap, &example, &task_of(&service_id(&name), &endpoint));

    let responses: Vec<_> = (0..REQUESTS).map(|_| example.get(path)).collect();
    let requests = task.whole_requests(REQUESTS);
    let requests = responses.into_iter().zip(&requests).map(|(response, request)| {
        assert_eq!(response.status, 200);
        let request = Request::of(&task, request);
        assert_eq!(request.tree.root().signature, endpoint);
        assert_well_named(&request.tree);
        (response, request)
    });
    requests.collect()
}

/// A request as the OAP shows it.
#[derive(Debug)]
struct Request {
    entry: ProfiledSpan,
    tree: AnalysedTree,
    /// But for those that cover a lane.
    beside: Vec<Beside>,
}

/// A span of another segment than the request's, analysed alone.
#[derive(Debug)]
struct Beside {
    span: ProfiledSpan,
    tree: AnalysedTree,
}

impl Request {
    #[track_caller]
    fn of(task: &StartedTask<'_>, request: &ProfiledSegment) -> Self {
        let entry = request.entry_span();
        let tree = task.tree(entry);
        let mut beside = Vec::new();
        for lane in request.lanes() {
            assert_lane(entry, &lane);
            let spans = if lane.len() == 1 { &lane[..] } else { &lane[1..] };
            beside.extend(spans.iter().map(|&span| {
                let tree = task.tree(span);
                assert_eq!(tree.root().signature, entry.endpoint_name, "{}", span.endpoint_name);
                Beside { span: span.clone(), tree }
            }));
        }
        Self { entry: entry.clone(), tree, beside }
    }

    /// The only span of this function.
    #[track_caller]
    fn beside(&self, function: &str) -> &Beside {
        let named = |beside: &&Beside| beside.span.endpoint_name.rsplit("::").next() == Some(function);
        let spans: Vec<_> = self.beside.iter().filter(named).collect();
        let [beside] = spans[..] else { panic!("{} spans of {function} beside {self}", spans.len()) };
        beside
    }

    /// In its own tree.
    #[track_caller]
    fn assert_shows_nothing_of(&self, function: &str) {
        assert!(!self.tree.nodes().iter().any(|node| node.is(function)), "{function} in {self}");
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "the request {:?}\n{}", self.entry.tags, self.tree)?;
        self.beside.iter().try_for_each(|beside| beside.fmt(f))
    }
}

impl Beside {
    /// It has this name, and shows the function and what that awaits or calls.
    #[track_caller]
    fn assert_shows(&self, function: &str, awaited: &str) {
        assert_eq!(self.span.endpoint_name, function, "the name of {self}");
        assert_only_awaits(&self.tree, self.tree.node(function), awaited);
    }

    /// Its function took this long, but for what it ran for and what it waited for a thread before: little.
    #[track_caller]
    fn assert_lasted(&self, program_ms: f64, most_off_ms: f64) {
        let least = self.tree.node(&self.span.endpoint_name).duration_ms as f64;
        let most = self.tree.root().duration_ms as f64;
        let expected = least - most_off_ms..=most + most_off_ms;
        assert!(expected.contains(&program_ms), "it took {program_ms} ms in {self}");
        let notes = self.tree.children(self.tree.root()).filter(|child| child.signature.starts_with('['));
        let waited: i64 = notes.map(|note| note.duration_ms).sum();
        assert!(most - least - waited as f64 <= most / 10.0, "little of its function in {self}");
    }
}

impl std::fmt::Display for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ProfiledSpan { segment_id, span_id, endpoint_name, start_time_ms, end_time_ms, tags, .. } = &self.span;
        writeln!(f, "span {span_id} of {segment_id}, {start_time_ms} to {end_time_ms}: {endpoint_name} {tags:?}")?;
        self.tree.fmt(f)
    }
}

/// The spans of another segment of the request: one, or several one after the other below one that covers them.
#[track_caller]
fn assert_lane(entry: &ProfiledSpan, lane: &[&ProfiledSpan]) {
    for span in lane {
        assert_eq!(span.span_type, "Local", "{lane:#?}");
        let times = [entry.start_time_ms, span.start_time_ms, span.end_time_ms, entry.end_time_ms];
        assert!(times.is_sorted(), "longer than {entry:#?} in {lane:#?}");
    }
    let (first, others) = lane.split_first().expect("a segment has spans");
    let [parent] = &first.refs[..] else { panic!("not one ref in {lane:#?}") };
    assert_eq!((first.span_id, first.parent_span_id), (0, -1), "{lane:#?}");
    assert_eq!(parent.ref_type, "CROSS_THREAD", "{lane:#?}");
    assert_eq!((&parent.parent_segment_id, parent.parent_span_id), (&entry.segment_id, entry.span_id), "{lane:#?}");
    let (Some(earliest), Some(latest)) = (others.first(), others.last()) else { return };

    assert!(others.len() > 1, "one span and its cover: {lane:#?}");
    let covered = (earliest.start_time_ms, latest.end_time_ms);
    assert_eq!((first.start_time_ms, first.end_time_ms), covered, "{lane:#?}");
    for (span, number) in others.iter().zip(1..) {
        assert_eq!((span.span_id, span.parent_span_id, span.refs.len()), (number, 0, 0), "{lane:#?}");
    }
    for pair in others.windows(2) {
        assert!(pair[0].end_time_ms <= pair[1].start_time_ms, "at a time: {pair:#?}");
    }
    if others.iter().all(|span| span.endpoint_name == earliest.endpoint_name) {
        assert_eq!(first.endpoint_name, format!("{} ×{}", earliest.endpoint_name, others.len()));
    }
}

/// Nothing else stands below the function, but for the time in which its request was ready or polled.
#[track_caller]
fn assert_only_awaits(tree: &AnalysedTree, function: &Node, awaited: &str) {
    tree.child(function, awaited);
    let others = tree.children(function).filter(|node| !node.is(awaited) && !node.function().starts_with('['));
    assert_eq!(others.count(), 0, "below {} in\n{tree}", function.signature);
}

#[track_caller]
fn assert_near(tree: &AnalysedTree, function: &str, program_ms: f64, most_ms: f64) {
    let off = tree.node(function).duration_ms as f64 - program_ms;
    assert!(off.abs() <= most_ms, "{function} took {program_ms} ms in\n{tree}");
}
