//! Messages of the collect protocol from what the agent has to report.

use std::iter;

use skywalking_profile_proto::v3::{
    KeyStringValuePair, RefType, SegmentObject, SegmentReference, SpanLayer, SpanObject, SpanType, ThreadSnapshot,
    ThreadStack,
};

use super::Oap;
use crate::backend::{Part, Sample};
use crate::timeline::Snapshot;
use crate::trace::{Parent, Segment, Span, SpanKind};

/// `Rust` in the OAP's component-libraries.yml.
const COMPONENT_RUST: i32 = 11_000;

impl Oap {
    pub(super) fn segment_object(&self, segment: &Segment) -> SegmentObject {
        let spans = iter::once((-1, &segment.first)).chain(segment.others.iter().map(|span| (0, span)));
        let spans = (0..).zip(spans).map(|(span_id, (parent_span_id, span))| SpanObject {
            span_id,
            parent_span_id,
            ..span_object(span)
        });
        SegmentObject {
            trace_id: segment.trace_id.clone(),
            trace_segment_id: segment.segment_id.clone(),
            spans: spans.collect(),
            service: self.service.clone(),
            service_instance: self.instance.clone(),
            ..Default::default()
        }
    }

    /// The segments of all parts, each lane by a reference below the request's span.
    pub(super) fn segment_objects(&self, sample: &Sample) -> Vec<SegmentObject> {
        let request = &sample.main.segment;
        let lanes = sample.lanes.iter().map(|lane| {
            let mut object = self.segment_object(&lane.segment);
            object.spans[0].refs.push(SegmentReference {
                ref_type: RefType::CrossThread.into(),
                trace_id: request.trace_id.clone(),
                parent_trace_segment_id: request.segment_id.clone(),
                parent_span_id: 0,
                parent_service: self.service.clone(),
                parent_service_instance: self.instance.clone(),
                parent_endpoint: request.first.name.to_string(),
                ..Default::default()
            });
            object
        });
        iter::once(self.segment_object(request)).chain(lanes).collect()
    }
}

/// A span without its place in the segment.
fn span_object(span: &Span) -> SpanObject {
    let object = SpanObject {
        start_time: span.start_ms,
        end_time: span.end_ms,
        operation_name: span.name.to_string(),
        component_id: COMPONENT_RUST,
        is_error: span.is_error,
        tags: span.tags.iter().map(|(key, value)| pair(key, value)).collect(),
        ..Default::default()
    };
    match &span.kind {
        SpanKind::Entry(caller) => SpanObject {
            refs: caller.iter().map(reference).collect(),
            span_type: SpanType::Entry.into(),
            span_layer: SpanLayer::Http.into(),
            ..object
        },
        SpanKind::Local => SpanObject { span_type: SpanType::Local.into(), ..object },
    }
}

fn reference(caller: &Parent) -> SegmentReference {
    SegmentReference {
        ref_type: RefType::CrossProcess.into(),
        trace_id: caller.trace_id.clone(),
        parent_trace_segment_id: caller.segment_id.clone(),
        parent_span_id: caller.span_id,
        parent_service: caller.service.clone(),
        parent_service_instance: caller.instance.clone(),
        parent_endpoint: caller.endpoint.clone(),
        network_address_used_at_peer: caller.address.clone(),
    }
}

pub(super) fn thread_snapshot(sample: &Sample, part: &Part, snapshot: &Snapshot) -> ThreadSnapshot {
    let code_signatures = snapshot.stack.iter().map(|id| sample.signature(*id).to_string()).collect();
    ThreadSnapshot {
        task_id: sample.task_id.clone(),
        trace_segment_id: part.segment.segment_id.clone(),
        time: sample.start_ms() + snapshot.time_ms,
        sequence: snapshot.sequence,
        stack: Some(ThreadStack { code_signatures }),
    }
}

pub(super) fn pair(key: &str, value: impl AsRef<str>) -> KeyStringValuePair {
    KeyStringValuePair { key: key.to_owned(), value: value.as_ref().to_owned() }
}
