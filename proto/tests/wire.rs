//! What goes over the wire is SkyWalking's protocol: field numbers, types and gRPC paths.

use std::error::Error;
use std::future::{Future, Ready, ready};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use prost::Message;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{http, tokio_stream};

use skywalking_profile_proto::v3::management_service_client::ManagementServiceClient;
use skywalking_profile_proto::v3::profile_task_client::ProfileTaskClient;
use skywalking_profile_proto::v3::trace_segment_report_service_client::TraceSegmentReportServiceClient;
use skywalking_profile_proto::v3::{
    Command, Commands, InstancePingPkg, InstanceProperties, KeyStringValuePair, Log, ProfileTaskCommandQuery,
    ProfileTaskFinishReport, RefType, SegmentObject, SegmentReference, SpanLayer, SpanObject, SpanType, ThreadSnapshot,
    ThreadStack,
};

#[test]
fn profile_task_commands_decode() {
    let pair = |key: &str, value: &str| KeyStringValuePair { key: key.into(), value: value.into() };
    let bytes = [
        b"\x0a\x11" as &[u8],          // commands
        b"\x0a\x01q",                  // command
        b"\x12\x04\x0a\x02k1",         // args, with a key only
        b"\x12\x06\x0a\x01k\x12\x01v", // args
        b"\x78\x01",                   // a field that a later protocol may have
    ]
    .concat();
    assert_eq!(
        Commands::decode(bytes.as_slice()).unwrap(),
        Commands { commands: vec![Command { command: "q".into(), args: vec![pair("k1", ""), pair("k", "v")] }] },
    );
}

#[test]
fn profile_messages_encode_to_the_protocol() {
    assert_encodes(
        &ProfileTaskCommandQuery { service: "s".into(), service_instance: "i".into(), last_command_time: -1 },
        &[b"\x0a\x01s", b"\x12\x01i", b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"],
    );
    assert_encodes(
        &ThreadSnapshot {
            task_id: "t".into(),
            trace_segment_id: "g".into(),
            time: 300,
            sequence: 1,
            stack: Some(ThreadStack { code_signatures: vec!["a".into(), "b".into()] }),
        },
        &[b"\x0a\x01t", b"\x12\x01g", b"\x18\xac\x02", b"\x20\x01", b"\x2a\x06\x0a\x01a\x0a\x01b"],
    );
    assert_encodes(
        &ProfileTaskFinishReport { service: "s".into(), service_instance: "i".into(), task_id: "t".into() },
        &[b"\x0a\x01s", b"\x12\x01i", b"\x1a\x01t"],
    );
}

#[test]
fn segments_encode_to_the_protocol() {
    let span = SpanObject {
        span_id: 1,
        parent_span_id: 2,
        start_time: 300,
        end_time: 301,
        refs: vec![SegmentReference {
            ref_type: RefType::CrossThread.into(),
            trace_id: "t".into(),
            parent_trace_segment_id: "g".into(),
            parent_span_id: 3,
            parent_service: "s".into(),
            parent_service_instance: "i".into(),
            parent_endpoint: "e".into(),
            network_address_used_at_peer: "a".into(),
        }],
        operation_name: "o".into(),
        peer: "p".into(),
        span_type: SpanType::Local.into(),
        span_layer: SpanLayer::Http.into(),
        component_id: 11000,
        is_error: true,
        tags: vec![KeyStringValuePair { key: "k".into(), value: "v".into() }],
        logs: vec![Log { time: 302, data: vec![KeyStringValuePair { key: "k".into(), value: "v".into() }] }],
        skip_analysis: true,
    };
    let reference: &[&[u8]] = &[
        b"\x2a\x16", // refs
        b"\x08\x01",
        b"\x12\x01t",
        b"\x1a\x01g",
        b"\x20\x03",
        b"\x2a\x01s",
        b"\x32\x01i",
        b"\x3a\x01e",
        b"\x42\x01a",
    ];
    let fields: &[&[u8]] = &[
        b"\x08\x01",
        b"\x10\x02",
        b"\x18\xac\x02",
        b"\x20\xad\x02",
        &reference.concat(),
        b"\x32\x01o",
        b"\x3a\x01p",
        b"\x40\x02",
        b"\x48\x03",
        b"\x50\xf8\x55",
        b"\x58\x01",
        b"\x62\x06\x0a\x01k\x12\x01v",
        b"\x6a\x0b\x08\xae\x02\x12\x06\x0a\x01k\x12\x01v",
        b"\x70\x01",
    ];
    assert_encodes(&span, fields);

    assert_encodes(
        &SegmentObject {
            trace_id: "t".into(),
            trace_segment_id: "g".into(),
            spans: vec![SpanObject { span_id: 1, ..SpanObject::default() }],
            service: "s".into(),
            service_instance: "i".into(),
            is_size_limited: true,
        },
        &[b"\x0a\x01t", b"\x12\x01g", b"\x1a\x02\x08\x01", b"\x22\x01s", b"\x2a\x01i", b"\x30\x01"],
    );
}

#[test]
fn instance_messages_encode_to_the_protocol() {
    assert_encodes(
        &InstanceProperties {
            service: "s".into(),
            service_instance: "i".into(),
            properties: vec![KeyStringValuePair { key: "k".into(), value: "v".into() }],
            layer: "l".into(),
        },
        &[b"\x0a\x01s", b"\x12\x01i", b"\x1a\x06\x0a\x01k\x12\x01v", b"\x22\x01l"],
    );
    assert_encodes(
        &InstancePingPkg { service: "s".into(), service_instance: "i".into(), layer: "l".into() },
        &[b"\x0a\x01s", b"\x12\x01i", b"\x1a\x01l"],
    );
}

#[test]
fn enum_values_are_those_of_the_protocol() {
    let span_types = [SpanType::Entry, SpanType::Exit, SpanType::Local];
    assert_eq!(span_types.map(i32::from), [0, 1, 2]);

    let ref_types = [RefType::CrossProcess, RefType::CrossThread];
    assert_eq!(ref_types.map(i32::from), [0, 1]);

    let span_layers = [
        SpanLayer::Unknown,
        SpanLayer::Database,
        SpanLayer::RpcFramework,
        SpanLayer::Http,
        SpanLayer::Mq,
        SpanLayer::Cache,
        SpanLayer::Faas,
    ];
    assert_eq!(span_layers.map(i32::from), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn clients_call_the_paths_of_the_protocol() {
    let mut tasks = ProfileTaskClient::new(PathAsError);
    assert_calls(
        tasks.get_profile_task_commands(ProfileTaskCommandQuery::default()),
        "/skywalking.v3.ProfileTask/getProfileTaskCommands",
    );
    assert_calls(tasks.collect_snapshot(tokio_stream::empty()), "/skywalking.v3.ProfileTask/collectSnapshot");
    assert_calls(
        tasks.report_task_finish(ProfileTaskFinishReport::default()),
        "/skywalking.v3.ProfileTask/reportTaskFinish",
    );

    let mut segments = TraceSegmentReportServiceClient::new(PathAsError);
    assert_calls(segments.collect(tokio_stream::empty()), "/skywalking.v3.TraceSegmentReportService/collect");

    let mut instances = ManagementServiceClient::new(PathAsError);
    assert_calls(
        instances.report_instance_properties(InstanceProperties::default()),
        "/skywalking.v3.ManagementService/reportInstanceProperties",
    );
    assert_calls(instances.keep_alive(InstancePingPkg::default()), "/skywalking.v3.ManagementService/keepAlive");
}

#[track_caller]
fn assert_encodes(message: &impl Message, fields: &[&[u8]]) {
    assert_eq!(message.encode_to_vec(), fields.concat());
}

#[track_caller]
fn assert_calls<T>(call: impl Future<Output = Result<T, tonic::Status>>, path: &str) {
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(status)) = pin!(call).poll(&mut cx) else {
        panic!("the call did not end with the error of its service");
    };
    assert_eq!(status.message(), path);
}

/// A transport that fails every request with its path as the error.
struct PathAsError;

impl GrpcService<Body> for PathAsError {
    type ResponseBody = Body;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Ready<Result<http::Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        ready(Err(request.uri().path().into()))
    }
}
