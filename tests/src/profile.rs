//! The OAP's answers about services and their profile tasks.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::AnalysedTree;

/// A service that agents have reported.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct Service {
    pub id: String,
    pub name: String,
}

impl Service {
    pub(crate) fn parse(value: &Value) -> Self {
        Self { id: text(value, "id"), name: text(value, "name") }
    }
}

/// An instance of a service.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct Instance {
    pub id: String,
    pub name: String,
    pub language: String,
    pub attributes: Vec<(String, String)>,
}

impl Instance {
    pub(crate) fn parse(value: &Value) -> Self {
        Self {
            id: text(value, "id"),
            name: text(value, "name"),
            language: text(value, "language"),
            attributes: list(value, "attributes", |pair| (text(pair, "name"), text(pair, "value"))),
        }
    }
}

/// What the UI's dialog for a new task asks for.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct ProfileTaskCreation {
    pub service_id: String,
    pub endpoint_name: String,
    pub duration_min: u32,
    pub min_duration_threshold_ms: u32,
    pub dump_period_ms: u32,
    pub max_sampling_count: u32,
}

/// A task that the OAP has accepted.
#[derive(Debug, Clone)]
pub struct ProfileTaskCreated {
    /// `<creation time>_<service id>`
    pub id: String,
}

impl ProfileTaskCreated {
    /// When the OAP created the task, by its own clock.
    pub fn create_time_ms(&self) -> i64 {
        let time = self.id.split_once('_').and_then(|(time, _)| time.parse().ok());
        time.unwrap_or_else(|| panic!("no creation time in task id {}", self.id))
    }
}

/// A task as the UI's list shows it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct ProfileTask {
    pub id: String,
    pub service_id: String,
    pub endpoint_name: String,
    pub start_time_ms: i64,
    pub duration_min: i64,
    pub min_duration_threshold_ms: i64,
    pub dump_period_ms: i64,
    pub max_sampling_count: i64,
    pub logs: Vec<TaskLog>,
}

impl ProfileTask {
    pub(crate) fn parse(value: &Value) -> Self {
        Self {
            id: text(value, "id"),
            service_id: text(value, "serviceId"),
            endpoint_name: text(value, "endpointName"),
            start_time_ms: number(value, "startTime"),
            duration_min: number(value, "duration"),
            min_duration_threshold_ms: number(value, "minDurationThreshold"),
            dump_period_ms: number(value, "dumpPeriod"),
            max_sampling_count: number(value, "maxSamplingCount"),
            logs: list(value, "logs", TaskLog::parse),
        }
    }
}

/// What an instance did about a task.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct TaskLog {
    pub instance_name: String,
    /// `NOTIFIED` or `EXECUTION_FINISHED`
    pub operation_type: String,
    /// By the OAP's clock.
    pub operation_time_ms: i64,
}

impl TaskLog {
    pub(crate) fn parse(value: &Value) -> Self {
        Self {
            instance_name: text(value, "instanceName"),
            operation_type: text(value, "operationType"),
            operation_time_ms: number(value, "operationTime"),
        }
    }
}

/// A request that a task has caught: a segment and, in its spans, those that refer to it across threads.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct ProfiledSegment {
    pub trace_id: String,
    pub instance_name: String,
    pub endpoint_names: Vec<String>,
    pub duration_ms: i64,
    pub start_ms: i64,
    pub spans: Vec<ProfiledSpan>,
}

impl ProfiledSegment {
    pub(crate) fn parse(value: &Value) -> Self {
        let start = text(value, "start");
        Self {
            trace_id: text(value, "traceId"),
            instance_name: text(value, "instanceName"),
            endpoint_names: names(value, "endpointNames"),
            duration_ms: number(value, "duration"),
            start_ms: start.parse().unwrap_or_else(|_| panic!("start is not a time: {start}")),
            spans: list(value, "spans", ProfiledSpan::parse),
        }
    }

    /// The one entry span; panics if there is none, or another.
    #[track_caller]
    pub fn entry_span(&self) -> &ProfiledSpan {
        let mut entries = self.spans.iter().filter(|span| span.span_type == "Entry");
        match (entries.next(), entries.next()) {
            (Some(entry), None) => entry,
            _ => panic!("not one entry span: {:#?}", self.spans),
        }
    }

    /// The lanes: the spans of each other segment, in their order.
    pub fn lanes(&self) -> Vec<Vec<&ProfiledSpan>> {
        let mut lanes = BTreeMap::<_, Vec<_>>::new();
        for span in self.spans.iter().filter(|span| span.segment_id != self.entry_span().segment_id) {
            lanes.entry(&span.segment_id).or_default().push(span);
        }
        lanes.values_mut().for_each(|lane| lane.sort_by_key(|span| span.span_id));
        lanes.into_values().collect()
    }
}

/// A segment as the UI's list of traces shows it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct Segment {
    pub segment_id: String,
    pub endpoint_names: Vec<String>,
}

impl Segment {
    pub(crate) fn parse(value: &Value) -> Self {
        Self { segment_id: text(value, "segmentId"), endpoint_names: names(value, "endpointNames") }
    }
}

/// A span of a caught request.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct ProfiledSpan {
    pub segment_id: String,
    pub span_id: i64,
    pub parent_span_id: i64,
    pub refs: Vec<SpanRef>,
    pub service_code: String,
    pub service_instance_name: String,
    pub start_time_ms: i64,
    pub end_time_ms: i64,
    pub endpoint_name: String,
    /// `Entry`, `Local` or `Exit`
    pub span_type: String,
    pub component: String,
    pub is_error: bool,
    pub layer: String,
    pub tags: Vec<(String, String)>,
    /// Whether the span's segment can be analysed.
    pub profiled: bool,
}

impl ProfiledSpan {
    pub(crate) fn parse(value: &Value) -> Self {
        Self {
            segment_id: text(value, "segmentId"),
            span_id: number(value, "spanId"),
            parent_span_id: number(value, "parentSpanId"),
            refs: list(value, "refs", SpanRef::parse),
            service_code: text(value, "serviceCode"),
            service_instance_name: text(value, "serviceInstanceName"),
            start_time_ms: number(value, "startTime"),
            end_time_ms: number(value, "endTime"),
            endpoint_name: text(value, "endpointName"),
            span_type: text(value, "type"),
            component: text(value, "component"),
            is_error: flag(value, "isError"),
            layer: text(value, "layer"),
            tags: list(value, "tags", |tag| (text(tag, "key"), text(tag, "value"))),
            profiled: flag(value, "profiled"),
        }
    }

    /// The value of the tag `key`.
    pub fn tag(&self, key: &str) -> Option<&str> {
        let (_, value) = self.tags.iter().find(|(name, _)| name == key)?;
        Some(value)
    }
}

/// The span under which a segment runs.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named as in the OAP's schema")]
pub struct SpanRef {
    pub trace_id: String,
    pub parent_segment_id: String,
    pub parent_span_id: i64,
    /// `CROSS_PROCESS` or `CROSS_THREAD`
    pub ref_type: String,
}

impl SpanRef {
    pub(crate) fn parse(value: &Value) -> Self {
        Self {
            trace_id: text(value, "traceId"),
            parent_segment_id: text(value, "parentSegmentId"),
            parent_span_id: number(value, "parentSpanId"),
            ref_type: text(value, "type"),
        }
    }
}

/// The OAP's analysis of a span.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// Why there is not more to see.
    pub tip: Option<String>,
    /// One for each root frame.
    pub trees: Vec<AnalysedTree>,
}

impl Analysis {
    pub(crate) fn parse(value: &Value) -> Self {
        Self { tip: optional_text(value, "tip"), trees: list(value, "trees", AnalysedTree::parse) }
    }
}

#[track_caller]
pub(crate) fn text(value: &Value, key: &str) -> String {
    optional_text(value, key).unwrap_or_else(|| panic!("no text {key} in {value}"))
}

pub(crate) fn optional_text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(String::from)
}

#[track_caller]
pub(crate) fn number(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

#[track_caller]
fn flag(value: &Value, key: &str) -> bool {
    value[key].as_bool().unwrap_or_else(|| panic!("no flag {key} in {value}"))
}

#[track_caller]
fn names(value: &Value, key: &str) -> Vec<String> {
    list(value, key, |name| String::from(name.as_str().unwrap_or_else(|| panic!("no text in {key} of {value}"))))
}

#[track_caller]
pub(crate) fn list<T>(value: &Value, key: &str, parse: impl FnMut(&Value) -> T) -> Vec<T> {
    let items = value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value}"));
    items.iter().map(parse).collect()
}
