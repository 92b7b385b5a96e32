//! A profile task from its creation to its end.

use std::time::Duration;

use crate::{
    AnalysedTree, Example, Graphql, Oap, ProfileTaskCreated, ProfileTaskCreation, ProfiledSegment, ProfiledSpan, until,
    until_ok,
};

const SOON: Duration = Duration::from_secs(30);

/// The task of a minute that the tests create, at most three samples of an endpoint.
pub fn task_of(service_id: &str, endpoint_name: &str) -> ProfileTaskCreation {
    ProfileTaskCreation {
        service_id: String::from(service_id),
        endpoint_name: String::from(endpoint_name),
        duration_min: 1,
        min_duration_threshold_ms: 0,
        dump_period_ms: 10,
        max_sampling_count: 3,
    }
}

/// A task on the OAP.
#[derive(Debug)]
pub struct StartedTask<'a> {
    graphql: &'a Graphql,
    created: ProfileTaskCreated,
}

impl<'a> StartedTask<'a> {
    /// Creates it.
    #[track_caller]
    pub fn new(oap: &'a Oap, task: &ProfileTaskCreation) -> Self {
        let created = oap.graphql().create_profile_task(task);
        let created = created.unwrap_or_else(|reason| panic!("no task for {}: {reason}", task.endpoint_name));
        Self { graphql: oap.graphql(), created }
    }

    /// Creates it and waits until the example follows requests.
    #[track_caller]
    pub fn taken_up(oap: &'a Oap, example: &Example, task: &ProfileTaskCreation) -> Self {
        let task = Self::new(oap, task);
        let delay_ms = task.wait_for_log("NOTIFIED", SOON) - task.create_time_ms();
        assert!(delay_ms <= 16_000, "notified after {delay_ms} ms");
        // The OAP logs that it has handed the task out a moment before the agent reads it.
        let is_taken_up = || example.stderr().contains("profile task begins").then_some(());
        until("the task taken up", Duration::from_secs(10), is_taken_up);
        task
    }

    /// The OAP's name for it.
    pub fn id(&self) -> &str {
        &self.created.id
    }

    /// By the OAP's clock.
    pub fn create_time_ms(&self) -> i64 {
        self.created.create_time_ms()
    }

    /// The time of the log, in milliseconds by the OAP's clock.
    #[track_caller]
    pub fn wait_for_log(&self, operation: &str, timeout: Duration) -> i64 {
        until_ok(&format!("log {operation}"), timeout, || {
            let logs = self.graphql.profile_task_logs(self.id());
            let log = logs.iter().find(|log| log.operation_type == operation);
            log.map(|log| log.operation_time_ms).ok_or_else(|| format!("{logs:?}"))
        })
    }

    /// The profiled requests' entry spans, oldest first; waits until there are so many, and panics at more.
    #[track_caller]
    pub fn profiled(&self, count: usize) -> Vec<ProfiledSpan> {
        let requests = self.requests(count, |request| request.entry_span().profiled);
        requests.iter().map(|request| request.entry_span().clone()).collect()
    }

    /// The profiled requests with all their spans, oldest first, of a task that ends with so many requests.
    #[track_caller]
    pub fn whole_requests(&self, count: usize) -> Vec<ProfiledSegment> {
        // What the agent had to report it has reported by then.
        self.wait_for_log("EXECUTION_FINISHED", Duration::from_secs(90));
        self.requests(count, |request| request.spans.iter().all(|span| span.profiled))
    }

    #[track_caller]
    fn requests(&self, count: usize, is_whole: impl Fn(&ProfiledSegment) -> bool) -> Vec<ProfiledSegment> {
        let mut requests = until_ok(&format!("{count} profiled requests"), SOON, || {
            let requests = self.graphql.profile_task_segments(self.id());
            let whole = requests.iter().filter(|request| is_whole(request)).count();
            if whole >= count { Ok(requests) } else { Err(format!("{requests:#?}")) }
        });
        assert_eq!(requests.len(), count, "{requests:#?}");
        requests.sort_by_key(|request| request.start_ms);
        requests
    }

    /// The one tree of a span, entry or not, once all of its snapshots have arrived.
    #[track_caller]
    pub fn tree(&self, span: &ProfiledSpan) -> AnalysedTree {
        until_ok("complete analysis", SOON, || {
            let ProfiledSpan { segment_id, start_time_ms, end_time_ms, .. } = span;
            let analysis = self.graphql.segments_profile_analyze(segment_id, *start_time_ms, *end_time_ms);
            match analysis.trees.as_slice() {
                [tree] if tree.root().duration_ms == end_time_ms - start_time_ms => Ok(tree.clone()),
                trees => Err(trees.iter().map(ToString::to_string).collect::<String>()),
            }
        })
    }
}
