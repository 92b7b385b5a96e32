//! A request from the call of the service to the end of its body, and all the other ways in which it ends.

mod support;

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Instant;

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use skywalking_profile::{Profile, ProfileConfig, ProfileLayer, ProfileTask, ResponseBody, ResponseFuture};
use support::{Stopwatches, Times, Tree, Trees, embedded, embedded_with, get, ms, response_since, stopwatches, took};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service, ServiceExt, service_fn};

#[tokio::test]
async fn a_body_is_part_of_its_request() {
    let (layer, trees) = profiling();
    let (stopwatches, measured) = stopwatches();
    let service = layer.layer(service_fn(move |_| answer(stopwatches.clone())));
    let body = service.oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "three chunks ".repeat(3));
    let times: Times = measured.iter().collect();

    let tree = trees.next();
    tree.has_shape(&[
        "GET:/",
        "  requests::answer",
        "    tokio::time::sleep::Sleep",
        "  requests::chunk",
        "    tokio::time::sleep::Sleep",
    ]);
    tree.agrees_with(&times);
    tree.lasted(times.iter().map(|(_, took)| *took).sum());
    tree.is_finished();
}

async fn answer(stopwatches: Stopwatches) -> Result<Response<StreamedBody<Infallible>>, Infallible> {
    let _stopwatch = stopwatches.start("requests::answer");
    sleep(ms(10)).await;
    Ok(Response::new(streamed(stream::iter(0..3).then(move |_| chunk(stopwatches.clone())))))
}

async fn chunk(stopwatches: Stopwatches) -> Result<&'static str, Infallible> {
    let _stopwatch = stopwatches.start("requests::chunk");
    sleep(ms(15)).await;
    Ok("three chunks ")
}

type StreamedBody<E> = UnsyncBoxBody<&'static [u8], E>;

fn streamed<E>(chunks: impl futures_util::Stream<Item = Result<&'static str, E>> + Send + 'static) -> StreamedBody<E> {
    StreamBody::new(chunks.map(|chunk| chunk.map(|chunk| Frame::data(chunk.as_bytes())))).boxed_unsync()
}

#[tokio::test]
async fn a_client_that_takes_its_time_is_waited_for() {
    let (layer, trees) = profiling();
    let service =
        layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::new("an order".as_bytes())))));
    let body = service.oneshot(get("/")).await.unwrap().into_body();
    let start = Instant::now();
    sleep(ms(20)).await;
    body.collect().await.unwrap();
    let took = start.elapsed();
    let tree = trees.next();
    tree.has_shape(&["GET:/", "  [waiting for the client]"]);
    tree.took("[waiting for the client]", took);
}

#[tokio::test]
async fn a_body_at_its_end_ends_the_request_at_once() {
    let (layer, trees) = profiling();
    let service = layer.layer(service_fn(sleep_once));
    let response = service.oneshot(get("/")).await;
    trees.next().has_shape(&["GET:/", "  requests::sleep_once", "    tokio::time::sleep::Sleep"]);
    drop(response);
}

async fn sleep_once(_: Request<()>) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let start = Instant::now();
    sleep(ms(10)).await;
    Ok(response_since(start))
}

#[tokio::test]
async fn the_last_frame_of_a_body_that_knows_its_length_ends_the_request() {
    let (layer, trees) = profiling();
    let service =
        layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(Full::new("an order".as_bytes())))));
    let mut body = service.oneshot(get("/")).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    // Servers do not ask such a body again.
    trees.next().is_finished();
}

#[tokio::test]
async fn trailers_end_the_request() {
    let (layer, trees) = profiling();
    let service = layer.layer(service_fn(async |_| {
        let body = Full::new("an order".as_bytes()).with_trailers(ready(Some(Ok::<_, Infallible>(trailers()))));
        Ok::<_, Infallible>(Response::new(body))
    }));
    let mut body = service.oneshot(get("/")).await.unwrap().into_body();
    while !body.frame().await.unwrap().unwrap().is_trailers() {}
    // Nor this one.
    trees.next().is_finished();
}

#[tokio::test]
async fn a_body_is_passed_on_frame_by_frame_with_its_hints() {
    passes_on(Empty::<&[u8]>::new).await;
    passes_on(|| Full::new("an order".as_bytes())).await;
    passes_on(|| Full::new("".as_bytes())).await;
    passes_on(|| streamed::<Infallible>(stream::iter(["an", "", "order"]).map(Ok))).await;
    passes_on(|| streamed(stream::iter([Ok("an"), Err("accident")]))).await;
    passes_on(|| Full::new("an order".as_bytes()).with_trailers(ready(Some(Ok(trailers()))))).await;
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, "7".parse().expect("a value"))])
}

/// Whether the request is followed or not.
async fn passes_on<B>(body: impl Fn() -> B + Copy)
where
    B: Body<Data = &'static [u8], Error: PartialEq + Debug> + Unpin,
{
    let (idle, _) = embedded();
    let (following, trees) = profiling();
    for layer in [idle, following] {
        let service = layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(body()))));
        let mut outer = service.oneshot(get("/")).await.expect("infallible").into_body();
        let mut inner = body();
        loop {
            assert_eq!(outer.is_end_stream(), inner.is_end_stream());
            assert_eq!(outer.size_hint().lower(), inner.size_hint().lower());
            assert_eq!(outer.size_hint().upper(), inner.size_hint().upper());
            match (outer.frame().await, inner.frame().await) {
                (Some(Ok(outer)), Some(Ok(inner))) => {
                    assert_eq!(outer.data_ref(), inner.data_ref());
                    assert_eq!(outer.trailers_ref(), inner.trailers_ref());
                }
                (Some(Err(outer)), Some(Err(inner))) => assert_eq!(outer, inner),
                (None, None) => break,
                (outer, inner) => panic!("{outer:?} for {inner:?}"),
            }
        }
    }
    trees.next().is_finished();
}

#[tokio::test]
async fn a_request_dropped_before_its_response_shows_what_it_waited_for() {
    let (layer, trees) = profiling();
    let (stopwatches, measured) = stopwatches();
    let service = layer.layer(service_fn(move |_| answer_in_vain(stopwatches.clone())));
    assert!(timeout(ms(20), service.oneshot(get("/"))).await.is_err());
    let times: Times = measured.iter().collect();

    let tree = trees.next();
    tree.has_shape(&["GET:/", "  requests::answer_in_vain", "    tokio::sync::oneshot::Receiver"]);
    tree.agrees_with(&times);
    tree.lasted(times[0].1);
    tree.is_finished();
}

async fn answer_in_vain(stopwatches: Stopwatches) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let _stopwatch = stopwatches.start("requests::answer_in_vain");
    let (_sender, receiver) = oneshot::channel::<()>();
    receiver.await.expect("never");
    Ok(Response::new(Empty::new()))
}

#[tokio::test]
async fn a_request_dropped_before_its_first_poll_shows_that_it_waited_for_it() {
    let (layer, trees) = profiling();
    let request = layer.layer(service_fn(sleep_once)).call(get("/"));
    thread::sleep(ms(10));
    drop(request);
    trees.next().has_shape(&["GET:/", "  [waiting for the first poll]"]);
}

#[tokio::test]
async fn a_request_dropped_within_its_body_shows_what_it_waited_for() {
    let (layer, trees) = profiling();
    let (stopwatches, measured) = stopwatches();
    let service = layer.layer(service_fn(move |_| answer_in_part(stopwatches.clone())));
    let mut body = service.oneshot(get("/")).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert!(timeout(ms(20), body.frame()).await.is_err());
    drop(body);
    let times: Times = measured.iter().collect();

    let tree = trees.next();
    tree.has_shape(&[
        "GET:/",
        "  requests::chunk",
        "    tokio::time::sleep::Sleep",
        "  requests::chunk_in_vain",
        "    tokio::sync::oneshot::Receiver",
    ]);
    tree.agrees_with(&times);
    tree.is_finished();
}

async fn answer_in_part(stopwatches: Stopwatches) -> Result<Response<StreamedBody<Infallible>>, Infallible> {
    let chunks = stream::once(chunk(stopwatches.clone())).chain(stream::once(chunk_in_vain(stopwatches)));
    Ok(Response::new(streamed(chunks)))
}

async fn chunk_in_vain(stopwatches: Stopwatches) -> Result<&'static str, Infallible> {
    let _stopwatch = stopwatches.start("requests::chunk_in_vain");
    let (_sender, receiver) = oneshot::channel::<()>();
    receiver.await.expect("never");
    Ok("")
}

#[tokio::test]
async fn an_error_passes_through_and_ends_the_request() {
    let (layer, trees) = profiling();
    let service = layer.layer(service_fn(fail));
    assert_eq!(service.oneshot(get("/")).await.unwrap_err(), "no orders");
    trees.next().has_shape(&["GET:/", "  requests::fail", "    tokio::time::sleep::Sleep"]);
}

async fn fail(_: Request<()>) -> Result<Response<Empty<&'static [u8]>>, &'static str> {
    sleep(ms(10)).await;
    Err("no orders")
}

#[tokio::test]
async fn an_error_of_the_body_passes_through_and_ends_the_request() {
    let (layer, trees) = profiling();
    let broken =
        async |_| Ok::<_, Infallible>(Response::new(streamed(stream::iter([Err("broken")]).chain(stream::pending()))));
    let mut body = layer.layer(service_fn(broken)).oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap_err(), "broken");
    trees.next().is_finished();
    drop(body);
}

#[tokio::test]
async fn a_panic_passes_through_and_ends_the_request() {
    let (layer, trees) = profiling();
    let late = layer.layer(service_fn(panic_late));
    assert_eq!(panic_of(AssertUnwindSafe(late.oneshot(get("/"))).catch_unwind().await), "no orders");
    trees.next().has_shape(&["GET:/", "  requests::panic_late", "    tokio::time::sleep::Sleep"]);
    is_followed_as_ever(&layer, &trees).await;
}

async fn panic_late(_: Request<()>) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    sleep(ms(10)).await;
    panic!("no orders")
}

#[tokio::test]
async fn a_panic_of_the_call_itself_ends_the_request() {
    let (layer, trees) = profiling();
    let mut early = layer.layer(service_fn(|_| -> Ready<Result<Response<Empty<&[u8]>>, Infallible>> { panic!("no") }));
    assert_eq!(panic_of(catch_unwind(AssertUnwindSafe(|| early.call(get("/"))))), "no");
    trees.next().has_shape(&["GET:/"]);
    is_followed_as_ever(&layer, &trees).await;
}

#[tokio::test]
async fn a_panic_of_the_body_ends_the_request() {
    let (layer, trees) = profiling();
    let chunks = || stream::once(async { panic!("no chunks") });
    let service =
        layer.layer(service_fn(async |_| Ok::<_, Infallible>(Response::new(streamed::<Infallible>(chunks())))));
    let body = service.oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(panic_of(AssertUnwindSafe(body.collect()).catch_unwind().await), "no chunks");
    trees.next().has_shape(&["GET:/"]);
    is_followed_as_ever(&layer, &trees).await;
}

#[track_caller]
fn panic_of<T>(caught: thread::Result<T>) -> &'static str {
    caught.err().expect("a panic").downcast_ref::<&str>().expect("a message")
}

async fn is_followed_as_ever(layer: &ProfileLayer, trees: &Trees) {
    layer.layer(service_fn(sleep_once)).oneshot(get("/")).await.expect("infallible");
    trees.next().has_shape(&["GET:/", "  requests::sleep_once", "    tokio::time::sleep::Sleep"]);
}

#[tokio::test]
async fn of_nested_layers_the_inner_one_sees_what_is_awaited() {
    let ((outer, outer_trees), (inner, inner_trees)) = (profiling(), profiling());
    let service = outer.layer(inner.layer(service_fn(sleep_once)));
    let took = took(&service.oneshot(get("/")).await.unwrap());

    let tree = inner_trees.next();
    tree.has_shape(&["GET:/", "  requests::sleep_once", "    tokio::time::sleep::Sleep"]);
    tree.took("tokio::time::sleep::Sleep", took);
    let tree = outer_trees.next();
    tree.has_shape(&["GET:/", "  [pending]"]);
    tree.took("[pending]", took);
}

#[tokio::test]
async fn through_a_layer_without_a_task_an_outer_one_sees_what_is_awaited() {
    let ((outer, trees), (inner, _)) = (profiling(), embedded());
    is_followed_as_ever(&outer, &trees).await;
    outer.layer(inner.layer(service_fn(sleep_once))).oneshot(get("/")).await.unwrap();
    trees.next().has_shape(&["GET:/", "  requests::sleep_once", "    tokio::time::sleep::Sleep"]);
}

#[tokio::test]
async fn a_long_call_and_a_long_poll_are_running() {
    let (layer, trees) = profiling();
    let service = layer.layer(service_fn(|_| {
        let start = Instant::now();
        thread::sleep(ms(10));
        async move {
            thread::sleep(ms(10));
            Ok::<_, Infallible>(response_since(start))
        }
    }));
    let took = took(&service.oneshot(get("/")).await.unwrap());
    trees.next().took("[running]", took);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_once_have_a_tree_each() {
    let (layer, trees) = profiling();
    let service = layer.layer(service_fn(sleep_as_long_as_asked));
    let requests = (1..=20).map(|i| tokio::spawn(service.clone().oneshot(get(&format!("/?{}", 10 * i)))));
    let mut measured: Vec<_> =
        join_all(requests).await.iter().map(|done| took(done.as_ref().unwrap().as_ref().unwrap())).collect();
    measured.sort();
    let mut trees: Vec<_> = measured.iter().map(|_| trees.next()).collect();
    trees.sort_by_key(Tree::duration);
    for (tree, took) in trees.iter().zip(measured) {
        tree.has_shape(&["GET:/", "  requests::sleep_as_long_as_asked", "    tokio::time::sleep::Sleep"]);
        tree.lasted(took);
    }
}

async fn sleep_as_long_as_asked(request: Request<()>) -> Result<Response<Empty<&'static [u8]>>, Infallible> {
    let start = Instant::now();
    sleep(ms(request.uri().query().expect("a query").parse().expect("milliseconds"))).await;
    Ok(response_since(start))
}

#[test]
fn what_is_wrapped_stays_send_sync_and_unpin() {
    fn stays<T: Send + Sync + Unpin>() {}
    stays::<ProfileLayer>();
    stays::<Profile<()>>();
    stays::<ResponseFuture<Ready<()>>>();
    stays::<ResponseBody<Empty<&[u8]>>>();
}

/// A layer that follows every request of `GET:/`.
/// Without samples of what runs: what a panic prints may take long enough for some.
fn profiling() -> (ProfileLayer, Trees) {
    let (layer, trees) = embedded_with(ProfileConfig::new("test").expect("a name").running_samples(false));
    layer.profile(ProfileTask::new("GET:/").samples(1_000)).expect("an active layer");
    (layer, trees)
}
