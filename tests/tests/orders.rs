//! An order on a real OAP: sockets, an HTTP client and a streamed body instead of timers.

use std::time::Duration;

use skywalking_profile_tests::{
    Example, Oap, ProfileTaskCreation, StartedTask, TOLERANCE_MS, assert_exact, assert_order, assert_well_formed,
    service_id, task_of, unique_service,
};

const ENDPOINT: &str = "GET:/orders/{id}";

#[test]
fn profile_task_shows_an_order_to_the_end_of_its_body() {
    let oap = Oap::running();
    let name = unique_service("orders");
    let example = Example::start(&name, Some(&oap));
    let task = StartedTask::taken_up(&oap, &example, &task_of(&service_id(&name), ENDPOINT));

    let responses = ["/orders/7", "/orders/8", "/orders/9?items=2"].map(|path| example.get(path));
    for (response, entry) in responses.iter().zip(&task.profiled(3)) {
        assert_eq!(response.status, 200);
        assert_eq!(entry.endpoint_name, ENDPOINT);
        let tree = task.tree(entry);
        assert_well_formed(&tree);
        assert_order(&tree);
        assert_exact(&tree, response);
    }
    task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90));
}

#[test]
fn requests_below_the_threshold_are_not_profiled() {
    let oap = Oap::running();
    let name = unique_service("threshold");
    let example = Example::start(&name, Some(&oap));
    let task = ProfileTaskCreation { min_duration_threshold_ms: 900, ..task_of(&service_id(&name), ENDPOINT) };
    let task = StartedTask::taken_up(&oap, &example, &task);

    // Of 1,510 and 190 ms.
    let (mut slow, mut fast) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        fast.push(example.get("/orders/7?items=2"));
        slow.push(example.get("/orders/7?items=35"));
    }
    fast.push(example.get("/orders/7?items=2"));
    for response in &fast {
        assert!(response.timing("total") < 900.0, "too slow for this test: {response:?}");
    }

    for (response, entry) in slow.iter().zip(&task.profiled(3)) {
        let tree = task.tree(entry);
        assert_well_formed(&tree);
        // What was before it passed the threshold as well.
        assert_order(&tree);
        assert_exact(&tree, response);
    }
    task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90));
    task.profiled(3);
}

#[test]
fn a_request_ends_when_its_client_goes_away() {
    let oap = Oap::running();
    let name = unique_service("gone");
    let example = Example::start(&name, Some(&oap));
    let task = ProfileTaskCreation { max_sampling_count: 1, ..task_of(&service_id(&name), ENDPOINT) };
    let task = StartedTask::taken_up(&oap, &example, &task);

    // Its body would take a second.
    let response = example.open("GET", "/orders/7?items=50").leave();
    for entry in &task.profiled(1) {
        let tree = task.tree(entry);
        assert_well_formed(&tree);
        for (function, ms) in &response.server_timing {
            let off = (tree.node(function).duration_ms as f64 - ms).abs();
            assert!(off <= TOLERANCE_MS, "{function} took {ms} ms in\n{tree}");
        }
        let order = tree.node("order").duration_ms;
        assert!(tree.root().duration_ms < order + 900, "the client had gone after {order} ms in\n{tree}");
    }
    task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90));
}
