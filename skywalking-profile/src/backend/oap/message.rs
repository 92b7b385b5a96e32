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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::config::ProfileConfig;

    fn sample() -> Sample {
        let request = Segment::new("GET:/".into(), SystemTime::now(), 50_000_000, None);
        let start_ms = request.first.start_ms;
        let span = |name: &str, from_ms, to_ms| Span::local(name.into(), start_ms + from_ms, start_ms + to_ms);
        let alone = request.lane(vec![span("audit", 0, 50)]);
        let several = request.lane(vec![span("load", 10, 20), span("load", 30, 45)]);
        let part = |segment| Part { segment, snapshots: Vec::new() };
        Sample {
            task_id: "1".to_owned(),
            main: part(request),
            lanes: vec![part(alone), part(several)],
            spans_left_out: 0,
            signatures: Vec::new(),
            is_finished: true,
            lost_events: 0,
            least_ns: 0,
        }
    }

    #[tokio::test]
    async fn lanes_are_segments_below_the_requests_span() {
        let config = ProfileConfig::new("shop").and_then(|config| config.instance("1")).unwrap();
        let oap = Oap::new(&config, "http://127.0.0.1:1".to_owned()).unwrap();
        let mut sample = sample();
        sample.renew_segment_ids();
        let [request, alone, several] = &oap.segment_objects(&sample)[..] else { panic!("not three segments") };
        let ids = |segment: &SegmentObject| -> Vec<_> {
            segment.spans.iter().map(|span| (span.span_id, span.parent_span_id, span.operation_name.clone())).collect()
        };
        assert_eq!(ids(request), [(0, -1, "GET:/".to_owned())]);
        assert_eq!(ids(alone), [(0, -1, "audit".to_owned())]);
        assert_eq!(ids(several), [(0, -1, "load ×2".to_owned()), (1, 0, "load".to_owned()), (2, 0, "load".to_owned())]);
        for lane in [alone, several] {
            assert_eq!(lane.trace_id, request.trace_id);
            assert!(lane.spans.iter().all(|span| span.span_type() == SpanType::Local));
            assert!(lane.spans[1..].iter().all(|span| span.refs.is_empty()));
            let [reference] = &lane.spans[0].refs[..] else { panic!("not one reference") };
            assert_eq!(reference.ref_type(), RefType::CrossThread);
            assert_eq!(reference.trace_id, request.trace_id);
            assert_eq!(reference.parent_trace_segment_id, request.trace_segment_id);
            let parent = (&*reference.parent_service, &*reference.parent_service_instance, &*reference.parent_endpoint);
            assert_eq!(parent, ("shop", "1", "GET:/"));
        }
    }
}
