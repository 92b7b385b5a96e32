//! Requests that compute, block, wait for a worker or hang, on a real OAP.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use skywalking_profile_tests::{
    AnalysedTree, Example, Node, Oap, ProfileTaskCreation, RUNNING, Response, SCHEDULED, SLEEP, StartedTask,
    TOLERANCE_MS, assert_well_named, service_id, task_of, tried_again, unique_service,
};

/// The most that the OAP allows a task.
const REQUESTS: u32 = 9;
/// What a request does while it is polled is seen every 2 ms, on each of its ends.
const BETWEEN_SAMPLES_MS: f64 = 5.0;

#[test]
fn functions_that_compute_show_their_times() {
    tried_again(|| {
        let profiled = profile("/cpu");
        let (mut render, mut compress) = (Comparison::default(), Comparison::default());
        for (response, tree) in &profiled {
            let cpu = tree.child(tree.root(), "cpu");
            let outer = tree.child(cpu, "render");
            let inner = tree.child(outer, "compress");
            let waits = tree.nodes().iter().filter(|node| node.signature.starts_with("tokio::"));
            assert_eq!(waits.count(), 0, "waits in\n{tree}");
            render.add(own_ms(tree, outer), response.timing("render") - response.timing("compress"));
            compress.add(inner.duration_ms, response.timing("compress"));
        }
        for comparison in [render, compress] {
            assert!(
                comparison.off_ms().abs() <= 0.05 * comparison.program_ms,
                "{comparison:?} in\n{}",
                trees(&profiled)
            );
        }
    });
}

#[test]
fn computing_between_waits_shows_beside_them() {
    tried_again(|| {
        let profiled = profile("/chunks");
        let (mut waits, mut computing, mut named) =
            (Comparison::default(), Comparison::default(), Comparison::default());
        for (response, tree) in &profiled {
            let chunks = tree.child(tree.root(), "chunks");
            let sleep = tree.child(chunks, SLEEP);
            assert_near(tree, sleep, response.timing("sleep"), BETWEEN_SAMPLES_MS);
            waits.add(sleep.duration_ms, response.timing("sleep"));
            let digest = tree.child(chunks, "digest").duration_ms;
            // Polls that fell between two samples.
            let unseen: i64 = tree.nodes().iter().filter(|node| node.is(RUNNING)).map(|node| node.duration_ms).sum();
            computing.add(digest + unseen, response.timing("digest"));
            named.add(digest, response.timing("digest"));
        }
        for comparison in [waits, computing] {
            let mean_off_ms = comparison.off_ms() / f64::from(REQUESTS);
            assert!(mean_off_ms.abs() <= TOLERANCE_MS, "{comparison:?} in\n{}", trees(&profiled));
        }
        assert!(named.tree_ms >= 0.9 * named.program_ms, "{named:?} in\n{}", trees(&profiled));
    });
}

#[test]
fn blocking_calls_show_below_their_callers_and_are_not_interrupted() {
    tried_again(|| {
        for (response, tree) in &profile("/blocking") {
            let read: serde_json::Value = serde_json::from_str(&response.body).unwrap();
            // As the platform calls a read's timeout; anything else ended it before.
            assert!(["WouldBlock", "TimedOut"].iter().any(|kind| read["read"] == *kind), "{response:?}");

            let blocking = tree.child(tree.root(), "blocking");
            // A read is `recv` for the compiler, which keeps one of equal functions, whatever its name.
            for (caller, call) in [("sleep_blocking", "std::thread::functions::sleep"), ("read_blocking", "std::")] {
                let caller_node = tree.child(blocking, caller);
                let is_call = |node: &&Node| node.function().starts_with(call);
                let calls: Vec<_> = tree.children(caller_node).filter(is_call).collect();
                let [node] = calls[..] else { panic!("{} of {call} below {caller} in\n{tree}", calls.len()) };
                assert_near(tree, node, response.timing(caller), BETWEEN_SAMPLES_MS);
            }
        }
    });
}

#[test]
fn a_request_that_is_ready_and_not_polled_waits_for_a_worker() {
    tried_again(|| {
        for (response, tree) in &profile("/starved") {
            let starved = tree.child(tree.root(), "starved");
            let await_turn = tree.child(starved, "await_turn");
            let turn = tree.child(await_turn, "tokio::sync::oneshot::Receiver");
            assert_near(tree, tree.child(turn, SCHEDULED), response.timing("scheduled"), BETWEEN_SAMPLES_MS);
            assert_near(tree, await_turn, response.timing("await_turn"), TOLERANCE_MS);
        }
    });
}

#[test]
fn a_request_that_hangs_shows_what_it_waits_for() {
    let oap = Oap::running();
    let name = unique_service("hang");
    let example = Example::start(&name, Some(&oap));
    let task = StartedTask::taken_up(&oap, &example, &task_of(&service_id(&name), "GET:/hang"));
    let _hanging = example.begin("GET", "/hang");

    task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90));
    let entries = task.profiled(1);
    assert_eq!(entries[0].tag("profile.unfinished"), Some("true"), "{:?}", entries[0].tags);
    let tree = task.tree(&entries[0]);
    assert_well_named(&tree);
    let await_lock = tree.child(tree.child(tree.root(), "hang"), "await_lock");
    let lock = tree.child(await_lock, "tokio::sync::mutex::Mutex::lock");
    let rest = tree.root().duration_ms - lock.duration_ms;
    assert!(rest <= 10, "{rest} ms without {} in\n{tree}", lock.signature);
}

/// The responses of a task's requests of `GET path`, each with its tree.
#[track_caller]
fn profile(path: &str) -> Vec<(Response, AnalysedTree)> {
    /// Where two tests compute at a time, each waits for a processor.
    static COMPUTING: Mutex<()> = Mutex::new(());

    let oap = Oap::running();
    let name = unique_service("running");
    let endpoint = format!("GET:{path}");
    let example = Example::start(&name, Some(&oap));
    let task = ProfileTaskCreation { max_sampling_count: REQUESTS, ..task_of(&service_id(&name), &endpoint) };
    let task = StartedTask::taken_up(&oap, &example, &task);

    let alone = COMPUTING.lock().unwrap_or_else(PoisonError::into_inner);
    let responses: Vec<_> = (0..REQUESTS).map(|_| example.get(path)).collect();
    drop(alone);
    let entries = task.profiled(responses.len());
    let trees = responses.into_iter().zip(&entries).map(|(response, entry)| {
        assert_eq!(response.status, 200);
        let tree = task.tree(entry);
        assert_eq!(tree.root().signature, endpoint);
        assert_well_named(&tree);
        (response, tree)
    });
    trees.collect()
}

/// Milliseconds of a function over all requests, by its nodes and by the program.
#[derive(Debug, Default)]
struct Comparison {
    tree_ms: f64,
    program_ms: f64,
}

impl Comparison {
    fn add(&mut self, tree_ms: i64, program_ms: f64) {
        self.tree_ms += tree_ms as f64;
        self.program_ms += program_ms;
    }

    fn off_ms(&self) -> f64 {
        self.tree_ms - self.program_ms
    }
}

#[track_caller]
fn assert_near(tree: &AnalysedTree, node: &Node, program_ms: f64, most_ms: f64) {
    let off = node.duration_ms as f64 - program_ms;
    assert!(off.abs() <= most_ms, "{} took {program_ms} ms in\n{tree}", node.signature);
}

/// The function's self time and that of the library that it calls: its clock, now and then.
fn own_ms(tree: &AnalysedTree, node: &Node) -> i64 {
    let called = tree.children(node).filter(|child| child.function().starts_with("std::"));
    node.self_duration_ms + called.map(|child| child.duration_ms).sum::<i64>()
}

fn trees(profiled: &[(Response, AnalysedTree)]) -> String {
    profiled.iter().map(|(response, tree)| format!("{:?}\n{tree}", response.server_timing)).collect()
}
