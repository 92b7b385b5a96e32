//! The OAP's GraphQL API, asked what the SkyWalking UI asks.

use serde_json::{Value, json};
use ureq::Agent;

use crate::{
    http,
    profile::{
        Analysis, Instance, ProfileTask, ProfileTaskCreated, ProfileTaskCreation, ProfiledSegment, Segment, Service,
        TaskLog, list, optional_text, text,
    },
};

/// A client of one OAP server.
#[derive(Debug, Clone)]
pub struct Graphql {
    agent: Agent,
    url: String,
}

impl Graphql {
    /// A client of the server whose API is at `url`.
    pub fn new(url: &str) -> Self {
        Self { agent: http::agent(), url: String::from(url) }
    }

    /// The server's version.
    pub fn version(&self) -> String {
        self.try_version().unwrap_or_else(|error| panic!("no OAP answers: {error}"))
    }

    pub(crate) fn try_version(&self) -> Result<String, String> {
        self.try_ask("query queryOAPVersion { version }", &json!({})).map(|data| text(&data, "version"))
    }

    /// The services that agents have reported.
    pub fn services(&self) -> Vec<Service> {
        let data = self.ask(
            "query queryServices($layer: String!) {
                listServices(layer: $layer) { id name group layers normal }
            }",
            &json!({ "layer": "GENERAL" }),
        );
        list(&data, "listServices", Service::parse)
    }

    /// The instances of a service, of all times.
    pub fn instances(&self, service_id: &str) -> Vec<Instance> {
        let data = self.ask(
            "query queryInstances($serviceId: ID!, $duration: Duration!) {
                listInstances(duration: $duration, serviceId: $serviceId) {
                    id name language instanceUUID attributes { name value }
                }
            }",
            &json!({
                "serviceId": service_id,
                "duration": { "start": "2000-01-01", "end": "2100-01-01", "step": "DAY" },
            }),
        );
        list(&data, "listInstances", Instance::parse)
    }

    /// The names of a service's endpoints that contain `keyword`.
    pub fn find_endpoint(&self, service_id: &str, keyword: &str) -> Vec<String> {
        let data = self.ask(
            "query queryEndpoints($serviceId: ID!, $keyword: String!) {
                findEndpoint(serviceId: $serviceId, keyword: $keyword, limit: 20) { id name }
            }",
            &json!({ "serviceId": service_id, "keyword": keyword }),
        );
        list(&data, "findEndpoint", |endpoint| text(endpoint, "name"))
    }

    /// The segments that a service has reported, profiled or not, newest first, at most a thousand.
    pub fn segments(&self, service_id: &str) -> Vec<Segment> {
        let data = self.ask(
            "query queryTraces($condition: TraceQueryCondition) {
                queryBasicTraces(condition: $condition) { traces { segmentId endpointNames } }
            }",
            &json!({
                "condition": {
                    "serviceId": service_id,
                    "queryDuration": { "start": "2000-01-01", "end": "2100-01-01", "step": "DAY" },
                    "traceState": "ALL",
                    "queryOrder": "BY_START_TIME",
                    "paging": { "pageNum": 1, "pageSize": 1000 },
                },
            }),
        );
        list(&data["queryBasicTraces"], "traces", Segment::parse)
    }

    /// Creates a profile task that starts now.
    ///
    /// # Errors
    ///
    /// The server's reason for refusing the task.
    pub fn create_profile_task(&self, task: &ProfileTaskCreation) -> Result<ProfileTaskCreated, String> {
        let data = self.ask(
            "mutation createProfileTask($creationRequest: ProfileTaskCreationRequest) {
                createProfileTask(creationRequest: $creationRequest) { id errorReason }
            }",
            &json!({
                "creationRequest": {
                    "serviceId": task.service_id,
                    "endpointName": task.endpoint_name,
                    "duration": task.duration_min,
                    "minDurationThreshold": task.min_duration_threshold_ms,
                    "dumpPeriod": task.dump_period_ms,
                    "maxSamplingCount": task.max_sampling_count,
                },
            }),
        );
        let created = &data["createProfileTask"];
        match optional_text(created, "errorReason") {
            Some(reason) => Err(reason),
            None => Ok(ProfileTaskCreated { id: text(created, "id") }),
        }
    }

    /// The tasks of a service, newest first; of one endpoint, or with an empty name of all.
    pub fn profile_task_list(&self, service_id: &str, endpoint_name: &str) -> Vec<ProfileTask> {
        let data = self.ask(
            "query getProfileTaskList($endpointName: String, $serviceId: ID) {
                getProfileTaskList(endpointName: $endpointName, serviceId: $serviceId) {
                    serviceId endpointName startTime duration minDurationThreshold dumpPeriod maxSamplingCount id
                    logs { id instanceId instanceName operationType operationTime }
                }
            }",
            &json!({ "serviceId": service_id, "endpointName": endpoint_name }),
        );
        list(&data, "getProfileTaskList", ProfileTask::parse)
    }

    /// What instances have done about a task.
    pub fn profile_task_logs(&self, task_id: &str) -> Vec<TaskLog> {
        let data = self.ask(
            "query profileTaskLogs($taskID: String) {
                getProfileTaskLogs(taskID: $taskID) { id instanceId instanceName operationTime operationType }
            }",
            &json!({ "taskID": task_id }),
        );
        list(&data, "getProfileTaskLogs", TaskLog::parse)
    }

    /// The requests that a task has caught, each with the spans of all its segments.
    pub fn profile_task_segments(&self, task_id: &str) -> Vec<ProfiledSegment> {
        let data = self.ask(
            "query getProfileTaskSegmentList($taskID: ID!) {
                getProfileTaskSegments(taskID: $taskID) {
                    traceId instanceId instanceName endpointNames duration start
                    spans {
                        spanId parentSpanId segmentId refs { traceId parentSegmentId parentSpanId type }
                        serviceCode serviceInstanceName startTime endTime endpointName type peer component isError layer
                        tags { key value } logs { time data { key value } } profiled
                    }
                }
            }",
            &json!({ "taskID": task_id }),
        );
        list(&data, "getProfileTaskSegments", ProfiledSegment::parse)
    }

    /// The analysis of one segment between two times, as for the span that has them.
    pub fn segments_profile_analyze(&self, segment_id: &str, start_ms: i64, end_ms: i64) -> Analysis {
        let data = self.ask(
            "query getProfileAnalyze($queries: [SegmentProfileAnalyzeQuery!]!) {
                getSegmentsProfileAnalyze(queries: $queries) {
                    tip
                    trees { elements { id parentId codeSignature duration durationChildExcluded count } }
                }
            }",
            &json!({
                "queries": [{ "segmentId": segment_id, "timeRange": { "start": start_ms, "end": end_ms } }],
            }),
        );
        Analysis::parse(&data["getSegmentsProfileAnalyze"])
    }

    #[track_caller]
    fn ask(&self, query: &str, variables: &Value) -> Value {
        self.try_ask(query, variables).unwrap_or_else(|error| panic!("{error}, asked: {query} {variables}"))
    }

    fn try_ask(&self, query: &str, variables: &Value) -> Result<Value, String> {
        let request = json!({ "query": query, "variables": variables }).to_string();
        let answer = self
            .agent
            .post(&self.url)
            .content_type("application/json")
            .send(request)
            .and_then(|response| response.into_body().read_to_string())
            .map_err(|error| format!("{}: {error}", self.url))?;
        let mut answer: Value = serde_json::from_str(&answer).map_err(|error| format!("{error}: {answer}"))?;
        match answer.get("errors") {
            Some(errors) => Err(errors.to_string()),
            None => Ok(answer["data"].take()),
        }
    }
}

/// The OAP's id of a service with this name, also before any agent has reported it: the name in base64, and `.1` for
/// one that agents report.
pub fn service_id(name: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut id = String::new();
    for bytes in name.as_bytes().chunks(3) {
        let group = bytes.iter().zip([16, 8, 0]).fold(0, |group, (&byte, shift)| group | usize::from(byte) << shift);
        for (digit, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            id.push(if digit <= bytes.len() { char::from(DIGITS[group >> shift & 63]) } else { '=' });
        }
    }
    id + ".1"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_id_is_the_padded_name() {
        let ids = ["a", "ab", "abc", "abcd"].map(service_id);
        assert_eq!(ids, ["YQ==.1", "YWI=.1", "YWJj.1", "YWJjZA==.1"]);
    }
}
