//! The layer among others: tower-http's for traces, timeouts and compression, inside and outside of it, and hyper around
//! them all.

mod support;

use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Once};
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use skywalking_profile::{ProfileLayer, ProfileTask};
use support::{FOREVER, Stopwatch, Stopwatches, Times, Tree, Trees, embedded, ms, stopwatches};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::select;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tower::util::BoxCloneService;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

/// A layer of a stack.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Profile,
    Trace,
    Timeout,
    Compression,
}

/// Outermost first.
const STACKS: [&[Part]; 11] = {
    use Part::{Compression, Profile, Timeout, Trace};
    [
        &[Trace, Profile],
        &[Profile, Trace],
        &[Timeout, Profile],
        &[Profile, Timeout],
        &[Compression, Profile],
        &[Profile, Compression],
        &[Trace, Timeout, Compression, Profile],
        &[Profile, Trace, Timeout, Compression],
        &[Compression, Timeout, Trace, Profile],
        &[Profile, Compression, Timeout, Trace],
        // As on a router and on one within it: the inner one leaves the request to the outer one.
        &[Trace, Profile, Timeout, Profile, Compression],
    ]
};

/// Those with all of them, on one side of the profile layer.
const WHOLE_STACKS: [&[Part]; 4] = [STACKS[6], STACKS[7], STACKS[8], STACKS[9]];

/// What a handler answers.
#[derive(Clone, Copy, Debug)]
enum Case {
    Whole,
    Streamed,
    Headers,
    Nothing,
    NotFound,
    Failing,
    Broken,
    /// Never.
    Hanging,
    /// With a body that never ends.
    Endless,
}

impl Case {
    fn endpoint(self) -> &'static str {
        match self {
            Self::Whole => "GET:/whole",
            Self::Streamed => "GET:/streamed",
            Self::Headers => "HEAD:/headers",
            Self::Nothing => "GET:/nothing",
            Self::NotFound => "GET:/not-found",
            Self::Failing => "GET:/failing",
            Self::Broken => "GET:/broken",
            Self::Hanging => "GET:/hanging",
            Self::Endless => "GET:/endless",
        }
    }

    fn request(self) -> Request<Empty<Bytes>> {
        let (method, path) = self.endpoint().split_once(':').expect("an endpoint");
        Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT_ENCODING, "gzip")
            .body(Empty::new())
            .expect("a request")
    }
}

#[tokio::test]
async fn a_whole_answer_is_that_of_the_stack_without_profiling() {
    answers_as_without(Case::Whole).await;
}

#[tokio::test]
async fn a_streamed_answer_is_that_of_the_stack_without_profiling() {
    answers_as_without(Case::Streamed).await;
}

#[tokio::test]
async fn an_answer_to_head_is_that_of_the_stack_without_profiling() {
    answers_as_without(Case::Headers).await;
}

#[tokio::test]
async fn an_answer_without_a_body_is_that_of_the_stack_without_profiling() {
    answers_as_without(Case::Nothing).await;
}

#[tokio::test]
async fn an_answer_that_says_no_is_that_of_the_stack_without_profiling() {
    answers_as_without(Case::NotFound).await;
}

#[tokio::test]
async fn an_error_is_that_of_the_stack_without_profiling() {
    answers_as_without(Case::Failing).await;
}

#[tokio::test]
async fn a_body_that_fails_midway_is_that_of_the_stack_without_profiling() {
    answers_as_without(Case::Broken).await;
}

/// In all stacks, whether the request is followed or not; and its tree is of the times that the handler measured.
async fn answers_as_without(case: Case) {
    let ((idle, _), (following, trees)) = (embedded(), profiling(case));
    for parts in STACKS {
        let (handler, measured) = handler(case);
        let ask = async |layer| ask(stack(parts, layer, PATIENT, &handler), case).await;
        let without = ask(None).await;
        times(&measured);
        assert_eq!(ask(Some(&idle)).await, without, "not followed, through {parts:?}");
        times(&measured);
        assert_eq!(ask(Some(&following)).await, without, "followed, through {parts:?}");
        is_as_measured(&trees.next(), &measured);
    }
}

#[tokio::test]
async fn answers_are_compressed_where_a_stack_does() {
    for parts in STACKS {
        let (layer, _trees) = embedded();
        let stack = stack(parts, Some(&layer), PATIENT, &handler(Case::Whole).0);
        let Answer { headers, body, .. } = ask(stack, Case::Whole).await.expect("an answer");
        let is_compressed = headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
        assert_eq!(is_compressed, parts.contains(&Part::Compression), "through {parts:?}");
        assert_eq!(body.len() < TEXT.len(), is_compressed, "through {parts:?}");
    }
}

#[tokio::test]
async fn a_timeout_inside_is_the_answer_that_is_profiled() {
    let (layer, trees) = profiling(Case::Hanging);
    for parts in stacks_with(Part::Profile, Part::Timeout) {
        let (handler, measured) = handler(Case::Hanging);
        times_out(stack(parts, Some(&layer), ms(40), &handler)).await;
        let tree = trees.next();
        // What the handler waited for is not what ended the request.
        let times = times(&measured);
        let is_whole = |(name, _): &(&str, Duration)| !name.starts_with("stacked::");
        agrees_with(&tree, &times.into_iter().filter(is_whole).collect::<Times>());
        tree.is_finished();
    }
}

#[tokio::test]
async fn a_timeout_inside_is_shown_as_the_timer_that_fired() {
    let (layer, trees) = profiling(Case::Hanging);
    for parts in stacks_with(Part::Profile, Part::Timeout) {
        times_out(stack(parts, Some(&layer), ms(40), &handler(Case::Hanging).0)).await;
        let tree = trees.next();
        // First the handler's, then that of the timeout, above which there is no function of the application's.
        tree.took_together(&["tokio::time::sleep::Sleep"], tree.duration());
    }
}

#[tokio::test]
async fn a_timeout_outside_ends_the_request() {
    let (layer, trees) = profiling(Case::Hanging);
    for parts in stacks_with(Part::Timeout, Part::Profile) {
        let (handler, measured) = handler(Case::Hanging);
        times_out(stack(parts, Some(&layer), ms(40), &handler)).await;
        is_as_measured(&trees.next(), &measured);
    }
}

async fn times_out(stack: Stack) {
    let response = stack.oneshot(Case::Hanging.request()).await.expect("a response");
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

fn stacks_with(outer: Part, inner: Part) -> impl Iterator<Item = &'static [Part]> {
    STACKS.into_iter().filter(move |parts| {
        let position = |part| parts.iter().position(|other| *other == part);
        position(outer).zip(position(inner)).is_some_and(|(outer, inner)| outer < inner)
    })
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_answer_ends_the_request() {
    let (layer, trees) = profiling(Case::Hanging);
    for parts in STACKS {
        let (handler, measured) = handler(Case::Hanging);
        select! {
            response = stack(parts, Some(&layer), PATIENT, &handler).oneshot(Case::Hanging.request()) => {
                panic!("{:?}", response.map(drop))
            }
            () = for_a_while(&handler.waiting) => {}
        }
        is_as_measured(&trees.next(), &measured);
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_bodys_end_ends_the_request() {
    let (layer, trees) = profiling(Case::Endless);
    for parts in STACKS {
        let (handler, measured) = handler(Case::Endless);
        let response =
            stack(parts, Some(&layer), PATIENT, &handler).oneshot(Case::Endless.request()).await.expect("a response");
        select! {
            body = response.into_body().collect() => panic!("{:?}", body.map(drop)),
            () = for_a_while(&handler.waiting) => {}
        }
        is_as_measured(&trees.next(), &measured);
    }
}

/// Until the request waits in vain, and some time of its wait.
async fn for_a_while(waiting: &Notify) {
    waiting.notified().await;
    sleep(ms(20)).await;
}

#[tokio::test]
async fn layers_fit_by_their_types() {
    let ((outside, trees_outside), (inside, trees_inside)) = (profiling(Case::Whole), profiling(Case::Whole));
    let service = ServiceBuilder::new()
        .layer(outside.clone())
        .layer(TraceLayer::new_for_http())
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, PATIENT))
        .layer(CompressionLayer::new())
        .layer(inside.clone())
        .service(handler(Case::Whole).0.service());
    let response = service.oneshot(Case::Whole.request()).await.unwrap();
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
    response.into_body().collect().await.unwrap();
    trees_outside.next().is_finished();
    trees_inside.next().is_finished();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_closed_while_the_handler_waits_ends_the_request() {
    let (layer, trees) = profiling(Case::Hanging);
    for parts in WHOLE_STACKS {
        let (handler, measured) = handler(Case::Hanging);
        let mut client = connected_to(stack(parts, Some(&layer), PATIENT, &handler)).await;
        asks(&mut client, Case::Hanging).await;
        for_a_while(&handler.waiting).await;
        drop(client);
        is_as_measured(&trees.next(), &measured);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_closed_while_the_body_streams_ends_the_request() {
    let (layer, trees) = profiling(Case::Endless);
    for parts in WHOLE_STACKS {
        let (handler, measured) = handler(Case::Endless);
        let mut client = connected_to(stack(parts, Some(&layer), PATIENT, &handler)).await;
        asks(&mut client, Case::Endless).await;
        assert_eq!(client.read_u8().await.unwrap(), b'H');
        for_a_while(&handler.waiting).await;
        drop(client);
        is_as_measured(&trees.next(), &measured);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_a_server_has_sent_is_a_finished_request() {
    for case in [Case::Whole, Case::Streamed, Case::Headers, Case::Nothing] {
        let (layer, trees) = profiling(case);
        for parts in WHOLE_STACKS {
            let (handler, measured) = handler(case);
            let mut client = connected_to(stack(parts, Some(&layer), PATIENT, &handler)).await;
            asks(&mut client, case).await;
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&answer));
            is_as_measured(&trees.next(), &measured);
        }
    }
}

async fn asks(client: &mut TcpStream, case: Case) {
    let (method, path) = case.endpoint().split_once(':').expect("an endpoint");
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).await.expect("a connection");
}

/// A client of a server that serves one connection.
async fn connected_to(stack: Stack) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound"));
    let (client, server) = timeout(FOREVER, async { tokio::join!(client, listener.accept()) }).await.expect("in time");
    let (server, _) = server.expect("a connection");
    let serve = move |request: Request<Incoming>| stack.clone().oneshot(request.map(|_| Empty::new()));
    let serving = http1::Builder::new().serve_connection(TokioIo::new(server), hyper::service::service_fn(serve));
    // Its end is the client's affair.
    tokio::spawn(serving.map(drop));
    client.expect("a listener")
}

type Body = UnsyncBoxBody<Bytes, BoxError>;
type Stack = BoxCloneService<Request<Empty<Bytes>>, Response<Body>, BoxError>;

/// Longer than any answer takes that comes at all.
const PATIENT: Duration = FOREVER;

/// A layer that follows every request of the case.
fn profiling(case: Case) -> (ProfileLayer, Trees) {
    let (layer, trees) = embedded();
    layer.profile(ProfileTask::new(case.endpoint()).samples(1_000)).expect("an active layer");
    (layer, trees)
}

/// The handler in its layers; without those for profiles if there is no such `layer`. Measures itself from the outside.
fn stack(parts: &[Part], layer: Option<&ProfileLayer>, patience: Duration, handler: &Handler) -> Stack {
    let stack = parts.iter().rfold(handler.clone().service(), |service, part| match (part, layer) {
        (Part::Profile, Some(layer)) => boxed(layer.layer(service)),
        (Part::Profile, None) => service,
        (Part::Trace, _) => boxed(traced().layer(service)),
        (Part::Timeout, _) => {
            boxed(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, patience).layer(service))
        }
        (Part::Compression, _) => boxed(CompressionLayer::new().layer(service)),
    });
    let stopwatches = handler.stopwatches.clone();
    let measured = service_fn(move |request| {
        let (stack, stopwatch) = (stack.clone(), stopwatches.start("outside"));
        async {
            let response = stack.oneshot(request).await?;
            // Dropped after the body.
            let and_stop = move |error| (error, &stopwatch).0;
            Ok::<_, BoxError>(response.map(|body| body.map_err(and_stop)))
        }
    });
    boxed(measured)
}

fn boxed<S, B>(service: S) -> Stack
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>, Error = BoxError, Future: Send> + Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    service.map_response(|response| response.map(|body| body.map_err(Into::into).boxed_unsync())).boxed_clone()
}

/// With somebody who takes the traces.
fn traced() -> TraceLayer<tower_http::classify::SharedClassifier<tower_http::classify::ServerErrorsAsFailures>> {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
            .with_writer(std::io::sink)
            .init();
    });
    TraceLayer::new_for_http()
}

/// Finished, and each node is of the time that the handler measured.
#[track_caller]
fn is_as_measured(tree: &Tree, measured: &Receiver<(&'static str, Duration)>) {
    agrees_with(tree, &times(measured));
    tree.is_finished();
}

/// The request may end a little later than the handler does, but not after what is around it.
#[track_caller]
fn agrees_with(tree: &Tree, times: &[(&'static str, Duration)]) {
    let [inside @ .., (_, around)] = times else { panic!("nothing measured") };
    let whole = inside.iter().find(|(name, _)| name.contains(":/")).expect("the whole").1;
    tree.agrees_within(&inside.to_vec(), around.saturating_sub(whole));
}

/// What was measured of the next request. What is around it is dropped last, maybe after its tree has come.
#[track_caller]
fn times(measured: &Receiver<(&'static str, Duration)>) -> Times {
    let mut times = Times::new();
    while times.last().is_none_or(|(name, _)| *name != "outside") {
        times.push(measured.recv_timeout(FOREVER).expect("an end"));
    }
    times
}

/// What a client gets.
#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    is_end_stream: bool,
    size: (u64, Option<u64>),
    body: Vec<u8>,
    /// Of the body.
    error: Option<String>,
}

/// To the case's request. As servers do, leaves alone the body of what answers to HEAD.
async fn ask(stack: Stack, case: Case) -> Result<Answer, String> {
    let request = case.request();
    let is_head = request.method() == Method::HEAD;
    let response = stack.oneshot(request).await.map_err(|error| error.to_string())?;
    let (http::response::Parts { status, mut headers, .. }, mut stream) = response.into_parts();
    headers.remove(DATE);
    let (is_end_stream, size) = (stream.is_end_stream(), (stream.size_hint().lower(), stream.size_hint().upper()));
    let (mut body, mut error) = (Vec::new(), None);
    while !is_head
        && error.is_none()
        && let Some(frame) = stream.frame().await
    {
        match frame {
            Ok(frame) => body.extend(frame.into_data().expect("no trailers")),
            Err(failure) => error = Some(failure.to_string()),
        }
    }
    Ok(Answer { status, headers, is_end_stream, size, body, error })
}

/// The innermost service.
#[derive(Clone, Debug)]
struct Handler {
    case: Case,
    stopwatches: Stopwatches,
    /// Told when it waits in vain.
    waiting: Arc<Notify>,
}

/// A handler, and what it measures.
fn handler(case: Case) -> (Handler, Receiver<(&'static str, Duration)>) {
    let (stopwatches, measured) = stopwatches();
    (Handler { case, stopwatches, waiting: Arc::default() }, measured)
}

impl Handler {
    fn service(self) -> Stack {
        service_fn(move |_| answer(self.clone())).boxed_clone()
    }
}

/// Measures itself, its chunks, and the whole request.
async fn answer(Handler { case, stopwatches, waiting }: Handler) -> Result<Response<Body>, BoxError> {
    let whole = stopwatches.start(case.endpoint());
    let _stopwatch = stopwatches.start("stacked::answer");
    sleep(ms(10)).await;
    let response = Response::builder().header(CONTENT_TYPE, "text/plain").header(ETAG, "\"7\"");
    let full = |text: &'static str| Full::from(text).map_err(Into::into).boxed_unsync();
    let empty = Empty::new().map_err(Into::into).boxed_unsync();
    Ok(match case {
        Case::Whole => response.body(full(TEXT))?,
        Case::Streamed => response.body(streamed(vec![Ok(TEXT), Ok(""), Ok(TEXT)], stopwatches, whole))?,
        Case::Headers => response.header(CONTENT_LENGTH, TEXT.len()).body(empty)?,
        Case::Nothing => response.status(StatusCode::NO_CONTENT).body(empty)?,
        Case::NotFound => response.status(StatusCode::NOT_FOUND).body(full(TEXT))?,
        Case::Failing => return Err("no orders".into()),
        Case::Broken => response.body(streamed(vec![Ok(TEXT), Ok(TEXT), Err("broken")], stopwatches, whole))?,
        Case::Hanging => {
            wait_in_vain(waiting, stopwatches).await;
            unreachable!("nobody notifies")
        }
        Case::Endless => {
            let first = stream::once(chunk(Ok(TEXT), stopwatches.clone()));
            response.body(framed(first.chain(stream::once(chunk_in_vain(waiting, stopwatches, whole)))))?
        }
    })
}

/// The whole ends with the last chunk.
fn streamed(chunks: Vec<Chunk>, stopwatches: Stopwatches, whole: Stopwatch) -> Body {
    let last = chunks.len() - 1;
    let mut whole = Some(whole);
    framed(stream::iter(chunks).enumerate().then(move |(i, text)| {
        let whole = whole.take_if(|_| i == last);
        // No function of this file's may stand between the layer and the chunk.
        chunk(text, stopwatches.clone()).inspect(move |_| drop(whole))
    }))
}

type Chunk = Result<&'static str, &'static str>;

async fn chunk(text: Chunk, stopwatches: Stopwatches) -> Chunk {
    let _stopwatch = stopwatches.start("stacked::chunk");
    sleep(ms(10)).await;
    text
}

async fn chunk_in_vain(waiting: Arc<Notify>, stopwatches: Stopwatches, _whole: Stopwatch) -> Chunk {
    wait_in_vain(waiting, stopwatches).await;
    unreachable!("nobody notifies")
}

async fn wait_in_vain(waiting: Arc<Notify>, stopwatches: Stopwatches) {
    let _stopwatch = stopwatches.start("stacked::wait_in_vain");
    waiting.notify_one();
    Notify::new().notified().await;
}

fn framed(chunks: impl Stream<Item = Chunk> + Send + 'static) -> Body {
    let frames = chunks.map(|chunk| chunk.map(|text| Frame::data(Bytes::from(text))).map_err(Into::into));
    StreamBody::new(frames).boxed_unsync()
}

/// Worth its compression.
const TEXT: &str = "An order is an order is an order is an order is an order is an order is an order is an order.";
