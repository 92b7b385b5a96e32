//! The whole way: the example, a real OAP server, and what the SkyWalking UI asks it.

use std::time::Duration;

use skywalking_profile_tests::{
    AnalysedTree, Example, MortalOap, Node, Oap, RUNNING, SLEEP, StartedTask, assert_exact, assert_well_formed,
    service_id, task_of, unique_service, until, until_ok,
};

#[test]
fn creates_and_lists_a_task() {
    let oap = Oap::running();
    let graphql = oap.graphql();
    let service = service_id(&unique_service("nobody"));

    let task = StartedTask::new(&oap, &task_of(&service, "POST:/"));
    let refused = graphql.create_profile_task(&task_of(&service, "POST:/again"));
    assert_eq!(
        refused.expect_err("the service has a task"),
        "current service already has monitor task execute at this time"
    );

    let listed = until("task in the list", Duration::from_secs(10), || graphql.profile_task_list(&service, "").pop());
    assert_eq!(listed.id, task.id());
    assert_eq!(listed.service_id, service);
    assert_eq!(listed.endpoint_name, "POST:/");
    assert_eq!((listed.duration_min, listed.dump_period_ms), (1, 10));
    assert_eq!((listed.min_duration_threshold_ms, listed.max_sampling_count), (0, 3));
    assert!((listed.start_time_ms - task.create_time_ms()).abs() < 1000);

    assert!(graphql.profile_task_logs(task.id()).is_empty());
    assert!(graphql.profile_task_segments(task.id()).is_empty());
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
    assert_eq!(example.get("/orders/7").status, 200);

    let minute = Duration::from_secs(60);
    let listed = until("service in the list", minute, || {
        oap.graphql().services().into_iter().find(|service| service.name == name)
    });
    assert_eq!(listed.id, service_id(&name));
    until_ok("list with all endpoints", minute, || {
        let mut endpoints = oap.graphql().find_endpoint(&listed.id, "");
        endpoints.sort();
        if endpoints == ["GET:/orders/{id}", "POST:/", "POST:/diagram"] { Ok(()) } else { Err(endpoints.join(" ")) }
    });
    until("instance in the list", minute, || oap.graphql().instances(&listed.id).pop());
}

#[test]
fn profile_task_shows_method3_to_the_millisecond() {
    profile("/", |tree| {
        let handler = tree.child(tree.root(), "song");
        let method3 = tree.child(handler, "method3");
        let method2 = tree.child(method3, "method2");
        let method1 = tree.child(method2, "method1");
        assert_only_sleeps(tree, method1);
        tree.child(handler, SLEEP);
    });
}

#[test]
fn profile_task_shows_the_diagram_to_the_millisecond() {
    profile("/diagram", |tree| {
        let handler = tree.child(tree.root(), "diagram");
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
    let task = StartedTask::new(&oap, &task_of(&service_id(&name), "POST:/"));
    let lasted_ms = task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90)) - task.create_time_ms();
    assert!((60_000..75_000).contains(&lasted_ms), "finished {lasted_ms} ms after its creation");
    assert!(oap.graphql().profile_task_segments(task.id()).is_empty());
}

#[test]
fn what_was_profiled_is_reported_before_the_service_ends() {
    let oap = Oap::running();
    let name = unique_service("ending");
    let mut example = Example::start(&name, Some(&oap));
    let task = StartedTask::taken_up(&oap, &example, &task_of(&service_id(&name), "POST:/diagram"));
    example.post("/diagram");
    assert!(example.terminate().success());

    task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(30));
    task.profiled(1).iter().for_each(|entry| drop(task.tree(entry)));
}

#[test]
fn an_oap_without_profile_receiver_is_told_of_once_and_gets_all_else() {
    let oap = MortalOap::start_with(&[("SW_RECEIVER_PROFILE", "-")]);
    let graphql = oap.server().graphql();
    let name = unique_service("unprofiled");
    let example = Example::start(&name, Some(oap.server()));
    let told = "nothing can be profiled: the OAP has no profile receiver";
    until("word of what is missing", Duration::from_secs(30), || example.stderr().contains(told).then_some(()));
    assert_eq!(example.post("/diagram").status, 200);

    until("instance in the list", Duration::from_secs(60), || graphql.instances(&service_id(&name)).pop());
    until_ok("endpoint in the list", Duration::from_secs(60), || {
        let endpoints = graphql.find_endpoint(&service_id(&name), "");
        if endpoints == ["POST:/diagram"] { Ok(()) } else { Err(endpoints.join(" ")) }
    });
    let stderr = example.stderr();
    assert_eq!(stderr.matches("WARN").count(), 1, "{stderr}");
}

/// A task from its creation to its end, over three requests of `POST path`; `assert_shape` gets each tree.
#[track_caller]
fn profile(path: &str, assert_shape: impl Fn(&AnalysedTree)) {
    let oap = Oap::running();
    let name = unique_service("profile");
    let endpoint = format!("POST:{path}");
    let example = Example::start(&name, Some(&oap));
    let task = StartedTask::taken_up(&oap, &example, &task_of(&service_id(&name), &endpoint));

    let responses: Vec<_> = (0..3).map(|_| example.post(path)).collect();
    for (response, entry) in responses.iter().zip(&task.profiled(3)) {
        assert_eq!(response.status, 200);
        assert_eq!(entry.endpoint_name, endpoint);

        let tree = task.tree(entry);
        assert_eq!(tree.root().signature, endpoint);
        assert_well_formed(&tree);
        assert_runs_little(&tree);
        assert_exact(&tree, response);
        assert_shape(&tree);
    }

    task.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90));
}

/// What the endpoints compute is nothing to speak of; a thread that has to wait for a processor in between takes longer.
#[track_caller]
fn assert_runs_little(tree: &AnalysedTree) {
    for node in tree.nodes().iter().filter(|node| node.function() == RUNNING) {
        assert!(10 * node.duration_ms <= tree.root().duration_ms, "{} is too long in\n{tree}", node.signature);
    }
}

/// Below the application's last function stands what it awaits, and nothing of how.
#[track_caller]
fn assert_only_sleeps(tree: &AnalysedTree, function: &Node) {
    tree.child(function, SLEEP);
    let others = tree.children(function).filter(|node| ![SLEEP, RUNNING].contains(&node.function()));
    assert_eq!(others.count(), 0, "below {} in\n{tree}", function.signature);
}
