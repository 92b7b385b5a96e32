//! Messages of the collect protocol from what the agent has to report.

use skywalking_profile_proto::v3::{
    KeyStringValuePair, RefType, SegmentObject, SegmentReference, SpanLayer, SpanObject, SpanType, ThreadSnapshot,
    ThreadStack,
};

use super::Oap;
use crate::backend::Sample;
use crate::timeline::Snapshot;
use crate::trace::Segment;

/// `Rust` in the OAP's component-libraries.yml.
const COMPONENT_RUST: i32 = 11_000;

impl Oap {
    pub(super) fn segment_object(&self, segment: &Segment) -> SegmentObject {
        let span = SpanObject {
            span_id: 0,
            parent_span_id: -1,
            start_time: segment.start_ms,
            end_time: segment.end_ms,
            refs: segment
                .parent
                .iter()
                .map(|parent| SegmentReference {
                    ref_type: RefType::CrossProcess.into(),
                    trace_id: parent.trace_id.clone(),
                    parent_trace_segment_id: parent.segment_id.clone(),
                    parent_span_id: parent.span_id,
                    parent_service: parent.service.clone(),
                    parent_service_instance: parent.instance.clone(),
                    parent_endpoint: parent.endpoint.clone(),
                    network_address_used_at_peer: parent.address.clone(),
                })
                .collect(),
            operation_name: segment.endpoint.to_string(),
            span_type: SpanType::Entry.into(),
            span_layer: SpanLayer::Http.into(),
            component_id: COMPONENT_RUST,
            is_error: segment.is_error,
            tags: segment.tags.iter().map(|(key, value)| pair(key, value)).collect(),
            ..Default::default()
        };
        SegmentObject {
            trace_id: segment.trace_id.clone(),
            trace_segment_id: segment.segment_id.clone(),
            spans: vec![span],
            service: self.service.clone(),
            service_instance: self.instance.clone(),
            ..Default::default()
        }
    }
}

pub(super) fn thread_snapshot(sample: &Sample, snapshot: &Snapshot) -> ThreadSnapshot {
    let code_signatures = snapshot.stack.iter().map(|id| sample.signature(*id).to_string()).collect();
    ThreadSnapshot {
        task_id: sample.task_id.clone(),
        trace_segment_id: sample.segment.segment_id.clone(),
        time: sample.wall_ms + snapshot.time_ms,
        sequence: snapshot.sequence,
        stack: Some(ThreadStack { code_signatures }),
    }
}

pub(super) fn pair(key: &str, value: impl AsRef<str>) -> KeyStringValuePair {
    KeyStringValuePair { key: key.to_owned(), value: value.as_ref().to_owned() }
}
