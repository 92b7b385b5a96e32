//! A profile task on a service that has other things to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use skywalking_profile_tests::{
    Example, Oap, StartedTask, assert_exact, assert_order, assert_well_formed, service_id, task_of, unique_service,
    until, until_ok,
};

const CLIENTS: usize = 50;
/// An endpoint is reported unprofiled when it is first seen, and again after this time at the earliest.
const DISCOVERED_AGAIN: Duration = Duration::from_secs(180);

#[test]
fn under_load_trees_are_exact_and_nothing_else_is_reported() {
    let oap = Oap::running();
    let graphql = oap.graphql();
    let name = unique_service("load");
    let service = service_id(&name);
    let started = Instant::now();
    let mut example = Example::start_with(&name, Some(&oap), &[("TOKIO_WORKER_THREADS", "2")]);
    let load = example.load(CLIENTS, &[("POST", "/"), ("POST", "/diagram")]);
    let task = StartedTask::taken_up(&oap, &example, &task_of(&service, "GET:/orders/{id}"));

    let begun = load.responses();
    until("two responses for each client", Duration::from_secs(30), || {
        (load.responses() >= begun + 2 * CLIENTS).then_some(())
    });
    let before = load.responses();
    let responses: Vec<_> = (0..3).map(|_| example.get("/orders/7")).collect();
    let meanwhile = load.responses() - before;
    assert!(meanwhile >= CLIENTS, "{meanwhile} responses for {CLIENTS} clients during the profiled requests");
    // One more than the task's samples.
    assert_eq!(example.get("/orders/7").status, 200);
    let entries = task.profiled(3);
    for (response, entry) in responses.iter().zip(&entries) {
        assert_eq!(response.status, 200);
        let tree = task.tree(entry);
        assert_well_formed(&tree);
        assert_order(&tree);
        assert_exact(&tree, response);
    }
    task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90));
    load.end();
    assert!(example.terminate().success());

    let discoveries = 1 + usize::try_from(started.elapsed().as_secs() / DISCOVERED_AGAIN.as_secs()).unwrap();
    // What the example reported besides is there with the last of these, or was long before.
    let reported = until_ok("the three endpoints among the segments", Duration::from_secs(30), || {
        let mut reported = HashMap::<_, Vec<_>>::new();
        for segment in graphql.segments(&service) {
            let [endpoint] = <[String; 1]>::try_from(segment.endpoint_names).expect("one endpoint a segment");
            reported.entry(endpoint).or_default().push(segment.segment_id);
        }
        if reported.len() >= 3 { Ok(reported) } else { Err(format!("{reported:?}")) }
    });
    assert_eq!(reported.len(), 3, "{reported:?}");
    for (endpoint, segments) in &reported {
        let (profiled, discovered): (Vec<_>, Vec<_>) =
            segments.iter().partition(|&id| entries.iter().any(|entry| entry.segment_id == *id));
        let expected = if endpoint == "GET:/orders/{id}" { entries.len() } else { 0 };
        assert_eq!(profiled.len(), expected, "profiled segments of {endpoint} in {reported:?}");
        assert!(discovered.len() <= discoveries, "segments of {endpoint} besides in {reported:?}");
    }
}
