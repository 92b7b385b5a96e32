//! The whole way: the example, a real OAP server, and what the SkyWalking UI asks it.

use std::time::Duration;

use skywalking_profile_tests::{
    AnalysedTree, Example, Graphql, Node, Oap, ProfileTaskCreated, ProfileTaskCreation, ProfiledSpan, Response,
    TOLERANCE_MS, service_id, unique_service, until, until_ok,
};

/// The function of every await in the example that is not on another of its functions.
const SLEEP: &str = "tokio::time::sleep::Sleep";
/// Polled and not seen by any sample.
const RUNNING: &str = "[running]";

#[test]
fn creates_and_lists_a_task() {
    let oap = Oap::running();
    let graphql = oap.graphql();
    let service = service_id(&unique_service("nobody"));

    let task = create_task(graphql, &service, "POST:/");
    let refused = graphql.create_profile_task(&creation(&service, "POST:/again"));
    assert_eq!(
        refused.expect_err("the service has a task"),
        "current service already has monitor task execute at this time"
    );

    let listed = until("task in the list", Duration::from_secs(10), || graphql.profile_task_list(&service, "").pop());
    assert_eq!(listed.id, task.id);
    assert_eq!(listed.service_id, service);
    assert_eq!(listed.endpoint_name, "POST:/");
    assert_eq!((listed.duration_min, listed.dump_period_ms), (1, 10));
    assert_eq!((listed.min_duration_threshold_ms, listed.max_sampling_count), (0, 3));
    assert!((listed.start_time_ms - task.create_time_ms()).abs() < 1000);

    assert!(graphql.profile_task_logs(&task.id).is_empty());
    assert!(graphql.profile_task_segments(&task.id).is_empty());
    assert!(graphql.profile_task_list(&service, "POST:/again").is_empty());
}

#[test]
fn service_and_endpoints_are_listed_before_any_task() {
    let oap = Oap::running();
    let name = unique_service("discovery");
    let example = Example::start(&name, Some(&oap));
    for path in ["/", "/diagram"] {
        assert_eq!(example.post(path).status, 200);
    }

    let minute = Duration::from_secs(60);
    let listed = until("service in the list", minute, || {
        oap.graphql().services().into_iter().find(|service| service.name == name)
    });
    assert_eq!(listed.id, service_id(&name));
    until_ok("list with both endpoints", minute, || {
        let mut endpoints = oap.graphql().find_endpoint(&listed.id, "");
        endpoints.sort();
        if endpoints == ["POST:/", "POST:/diagram"] { Ok(()) } else { Err(endpoints.join(" ")) }
    });
    until("instance in the list", minute, || oap.graphql().instances(&listed.id).pop());
}

#[test]
fn profile_task_shows_method3_to_the_millisecond() {
    profile("/", |tree, handler| {
        let method3 = tree.child(handler, "method3");
        let method2 = tree.child(method3, "method2");
        let method1 = tree.child(method2, "method1");
        assert_only_sleeps(tree, method1);
        tree.child(handler, SLEEP);
    });
}

#[test]
fn profile_task_shows_the_diagram_to_the_millisecond() {
    profile("/diagram", |tree, handler| {
        let method_a = tree.child(handler, "method_a");
        let method_b = tree.child(method_a, "method_b");
        for method in ["method_c", "method_d"] {
            assert_only_sleeps(tree, tree.child(method_b, method));
        }
    });
}

#[test]
fn task_without_requests_ends_with_its_time() {
    let oap = Oap::running();
    let name = unique_service("idle");
    let _example = Example::start(&name, Some(&oap));
    let task = create_task(oap.graphql(), &service_id(&name), "POST:/");
    let finished_ms = wait_for_log(oap.graphql(), &task, "EXECUTION_FINISHED", Duration::from_secs(90));
    let lasted_ms = finished_ms - task.create_time_ms();
    assert!((60_000..75_000).contains(&lasted_ms), "finished {lasted_ms} ms after its creation");
    assert!(oap.graphql().profile_task_segments(&task.id).is_empty());
}

#[test]
fn what_was_profiled_is_reported_before_the_service_ends() {
    let oap = Oap::running();
    let name = unique_service("ending");
    let mut example = Example::start(&name, Some(&oap));
    let task = create_task(oap.graphql(), &service_id(&name), "POST:/diagram");
    wait_for_log(oap.graphql(), &task, "NOTIFIED", Duration::from_secs(30));
    wait_until_taken_up(&example);
    example.post("/diagram");
    assert!(example.terminate().success());

    wait_for_log(oap.graphql(), &task, "EXECUTION_FINISHED", Duration::from_secs(30));
    let segment =
        until("a profiled segment", Duration::from_secs(30), || oap.graphql().profile_task_segments(&task.id).pop());
    complete_tree(oap.graphql(), segment.entry_span());
}

/// A task from its creation to its end, over three requests of `POST path`; `assert_shape` gets each tree and the
/// handler's node in it.
#[track_caller]
fn profile(path: &str, assert_shape: impl Fn(&AnalysedTree, &Node)) {
    let oap = Oap::running();
    let graphql = oap.graphql();
    let name = unique_service("profile");
    let endpoint = format!("POST:{path}");
    let example = Example::start(&name, Some(&oap));

    let task = create_task(graphql, &service_id(&name), &endpoint);
    let notified_ms = wait_for_log(graphql, &task, "NOTIFIED", Duration::from_secs(30));
    let delay_ms = notified_ms - task.create_time_ms();
    assert!(delay_ms <= 16_000, "notified after {delay_ms} ms");
    wait_until_taken_up(&example);

    let responses: Vec<_> = (0..3).map(|_| example.post(path)).collect();
    let entries = until_ok("three profiled segments", Duration::from_secs(30), || {
        let mut segments = graphql.profile_task_segments(&task.id);
        segments.sort_by_key(|segment| segment.start_ms);
        let entries: Vec<_> = segments.iter().map(|segment| segment.entry_span().clone()).collect();
        if entries.len() == 3 { Ok(entries) } else { Err(format!("{segments:#?}")) }
    });
    for (response, entry) in responses.iter().zip(&entries) {
        assert_eq!(response.status, 200);
        assert_eq!(entry.endpoint_name, endpoint);
        assert!(entry.profiled, "{entry:#?}");

        let tree = complete_tree(graphql, entry);
        assert_eq!(tree.root().signature, endpoint);
        let handler = handler(&tree);
        assert_well_formed(&tree, handler);
        assert_exact(&tree, handler, response);
        assert_shape(&tree, handler);
    }

    wait_for_log(graphql, &task, "EXECUTION_FINISHED", Duration::from_secs(90));
}

fn creation(service_id: &str, endpoint_name: &str) -> ProfileTaskCreation {
    ProfileTaskCreation {
        service_id: String::from(service_id),
        endpoint_name: String::from(endpoint_name),
        duration_min: 1,
        min_duration_threshold_ms: 0,
        dump_period_ms: 10,
        max_sampling_count: 3,
    }
}

#[track_caller]
fn create_task(graphql: &Graphql, service_id: &str, endpoint_name: &str) -> ProfileTaskCreated {
    let created = graphql.create_profile_task(&creation(service_id, endpoint_name));
    created.unwrap_or_else(|reason| panic!("no task for {endpoint_name}: {reason}"))
}

/// The time of the log, in milliseconds by the OAP's clock.
#[track_caller]
fn wait_for_log(graphql: &Graphql, task: &ProfileTaskCreated, operation: &str, timeout: Duration) -> i64 {
    until_ok(&format!("log {operation}"), timeout, || {
        let logs = graphql.profile_task_logs(&task.id);
        let log = logs.iter().find(|log| log.operation_type == operation);
        log.map(|log| log.operation_time_ms).ok_or_else(|| format!("{logs:?}"))
    })
}

/// The OAP logs that it has handed the task out a moment before the agent reads it.
#[track_caller]
fn wait_until_taken_up(example: &Example) {
    let is_taken_up = || example.stderr().contains("profile task begins").then_some(());
    until("the task taken up", Duration::from_secs(10), is_taken_up);
}

/// The one tree of a span, once all of its snapshots have arrived.
#[track_caller]
fn complete_tree(graphql: &Graphql, span: &ProfiledSpan) -> AnalysedTree {
    until_ok("complete analysis", Duration::from_secs(30), || {
        let analysis = graphql.segments_profile_analyze(&span.segment_id, span.start_time_ms, span.end_time_ms);
        match analysis.trees.as_slice() {
            [tree] if tree.root().duration_ms == span.end_time_ms - span.start_time_ms => Ok(tree.clone()),
            trees => Err(trees.iter().map(ToString::to_string).collect::<String>()),
        }
    })
}

/// The one frame below the root: a bare function of the application.
#[track_caller]
fn handler(tree: &AnalysedTree) -> &Node {
    let handlers: Vec<_> = tree.children(tree.root()).filter(|node| node.function() != RUNNING).collect();
    let [handler] = handlers.as_slice() else {
        panic!("not one handler in\n{tree}");
    };
    assert!(is_application(handler) && handler.location().is_none(), "handler in\n{tree}");
    handler
}

fn is_application(node: &Node) -> bool {
    node.function().starts_with("slow_endpoint::")
}

/// Whether the node's location is `file.rs:line`.
fn is_located(node: &Node) -> bool {
    let parts = node.location().and_then(|location| location.rsplit_once(':'));
    parts.is_some_and(|(file, line)| file.ends_with(".rs") && line.parse::<u32>().is_ok())
}

#[track_caller]
fn assert_well_formed(tree: &AnalysedTree, handler: &Node) {
    for node in tree.nodes() {
        let signature = &node.signature;
        assert!(node.self_duration_ms >= 0, "negative self time of {signature} in\n{tree}");
        if is_application(node) {
            tree.node(node.function());
            assert!(tree.children(node).next().is_some(), "{signature} awaits nothing in\n{tree}");
            assert!(signature == &handler.signature || is_located(node), "{signature} has no place in\n{tree}");
        } else if node.function() == SLEEP {
            assert!(is_located(node), "{signature} has no place in\n{tree}");
        } else if node.function() == RUNNING {
            assert!(node.duration_ms <= 1, "{signature} is too long in\n{tree}");
        } else {
            assert_eq!(signature, &tree.root().signature, "unexpected node in\n{tree}");
        }
    }
}

/// Every time that the program has measured is the tree's.
#[track_caller]
fn assert_exact(tree: &AnalysedTree, handler: &Node, response: &Response) {
    let assert_close = |node: &Node, name: &str, ms: f64| {
        let off = (node.duration_ms as f64 - ms).abs();
        assert!(off <= TOLERANCE_MS, "{name} took {ms} ms, but {} is {off:.2} ms off in\n{tree}", node.signature);
    };
    response.timing("total");
    for (name, ms) in &response.server_timing {
        match name.as_str() {
            "total" => {
                assert_close(tree.root(), name, *ms);
                assert_close(handler, name, *ms);
            }
            "sleep" => assert_close(tree.child(handler, SLEEP), name, *ms),
            function => assert_close(tree.node(function), name, *ms),
        }
    }
}

/// Below the application's last function stands what it awaits, and nothing of how.
#[track_caller]
fn assert_only_sleeps(tree: &AnalysedTree, function: &Node) {
    tree.child(function, SLEEP);
    let others = tree.children(function).filter(|node| ![SLEEP, RUNNING].contains(&node.function()));
    assert_eq!(others.count(), 0, "below {} in\n{tree}", function.signature);
}
