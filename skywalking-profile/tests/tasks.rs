//! Profile tasks from code: which requests they take, when they end, and that neither their end nor the agent's holds up a
//! request.

mod support;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Empty;
use skywalking_profile::{ProfileConfig, ProfileLayer, ProfileTask};
use support::{FOREVER, Tree, block_on, embedded, get, ms, response_since, took};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};

type Answer = Result<Response<Empty<&'static [u8]>>, Infallible>;

#[tokio::test]
async fn a_task_ends_with_its_samples() {
    let (layer, trees) = embedded();
    for samples in [2, 1] {
        layer.profile(ProfileTask::new("GET:/").samples(samples)).unwrap();
        for _ in 0..5 {
            layer.layer(service_fn(order)).oneshot(get("/")).await.unwrap();
        }
        for _ in 0..samples {
            trees.next().is_finished();
        }
        assert!(!is_followed(&layer, get("/")));
    }
    layer.shutdown().await;
    trees.no_more();
}

#[test]
fn a_task_ends_with_its_samples_however_early_they_come() {
    // The agent may hear of the request before it hears of the task.
    for _ in 0..100 {
        let (layer, trees) = embedded();
        // Every request is followed while the task is in force, since it may be above the threshold.
        layer.profile(ProfileTask::new("GET:/").min_duration_threshold(Duration::from_nanos(1))).unwrap();
        assert!(is_followed(&layer, get("/")));
        trees.next().is_finished();
        let start = Instant::now();
        while is_followed(&layer, get("/")) {
            assert!(start.elapsed() < ms(5_000), "the task goes on");
            thread::yield_now();
        }
    }
}

#[tokio::test]
async fn requests_above_the_threshold_are_kept_whole() {
    let (layer, trees) = embedded();
    layer.profile(ProfileTask::new("GET:/").samples(2).min_duration_threshold(ms(40))).unwrap();
    let mut slow = Vec::new();
    for _ in 0..3 {
        layer.layer(service_fn(order)).oneshot(get("/")).await.unwrap();
        slow.push(took(&layer.layer(service_fn(slow_order)).oneshot(get("/")).await.unwrap()));
    }
    for took in &slow[..2] {
        let tree = trees.next();
        tree.has_shape(&[
            "GET:/",
            "  tasks::slow_order",
            "    tasks::load",
            "      tokio::time::sleep::Sleep",
            "    tokio::time::sleep::Sleep",
        ]);
        tree.lasted(*took);
    }
    layer.shutdown().await;
    trees.no_more();
}

async fn order(_: Request<()>) -> Answer {
    load().await;
    Ok(Response::default())
}

async fn slow_order(_: Request<()>) -> Answer {
    let start = Instant::now();
    load().await;
    sleep(ms(50)).await;
    Ok(response_since(start))
}

async fn load() {
    sleep(ms(5)).await;
}

#[test]
fn other_endpoints_are_not_followed() {
    let (layer, _trees) = embedded();
    layer.profile(ProfileTask::new("GET:/orders").samples(10)).unwrap();
    for other in ["/", "/orders/", "/orders/7", "/order", "/Orders"] {
        assert!(!is_followed(&layer, get(other)), "{other}");
    }
    assert!(!is_followed(&layer, Request::post("/orders").body(()).unwrap()));
    assert!(is_followed(&layer, get("/orders")));
    assert!(is_followed(&layer, get("/orders?page=2")));
}

#[test]
fn tasks_of_several_endpoints_are_in_force_at_once() {
    let (layer, trees) = embedded();
    layer.profile(ProfileTask::new("GET:/a")).unwrap();
    layer.profile(ProfileTask::new("GET:/b")).unwrap();
    for path in ["/b", "/a"] {
        assert!(is_followed(&layer, get(path)));
        trees.next().has_shape(&[&format!("GET:{path}")]);
    }
}

#[test]
fn a_task_that_cannot_be_carried_out_is_refused() {
    let (layer, _trees) = embedded();
    let task = || ProfileTask::new("GET:/");
    is_refused(&layer, ProfileTask::new(" "), "the endpoint name is empty");
    is_refused(&layer, task().samples(0), "the max sampling count is 0");
    is_refused(&layer, task().dump_period(Duration::from_micros(999)), "the dump period is less than 1 ms");
    is_refused(&layer, task().duration(Duration::ZERO), "the duration is 0");
    assert!(!is_followed(&layer, get("/")));
}

#[test]
fn a_layer_that_cannot_profile_refuses_tasks() {
    let config = || ProfileConfig::new("test").unwrap();
    let task = || ProfileTask::new("GET:/");

    let inactive = ProfileLayer::new(config().active(false));
    is_refused(&inactive, task(), "the layer is inactive or shut down");

    let reporting = ProfileLayer::new(config().backend_service("127.0.0.1:1").unwrap());
    is_refused(&reporting, task(), "the layer reports to an OAP, whose UI alone makes profile tasks");

    let inactive = ProfileLayer::new(config().active(false).backend_service("127.0.0.1:1").unwrap());
    is_refused(&inactive, task(), "the layer reports to an OAP, whose UI alone makes profile tasks");

    // More than once: the agent's thread may take its time to end.
    for _ in 0..100 {
        let (layer, _trees) = embedded();
        block_on(layer.shutdown());
        is_refused(&layer, task(), "the layer is inactive or shut down");
        assert!(!is_followed(&layer, get("/")));
    }
}

#[test]
fn a_task_whose_time_is_over_shows_what_a_request_waits_for() {
    let (layer, trees) = embedded();
    let before = Instant::now();
    layer.profile(ProfileTask::new("GET:/").samples(2).duration(ms(50))).unwrap();
    let lead = before.elapsed();
    let (request, answer) = waiting(&layer);

    let tree = trees.next();
    is_of_waiting(&tree);
    assert!((ms(49) - lead..=before.elapsed()).contains(&tree.duration()), "{tree}");

    assert!(!is_followed(&layer, get("/")));
    is_answered(request, answer);
    block_on(layer.shutdown());
    trees.no_more();
}

#[test]
fn a_shutdown_shows_what_a_request_waits_for() {
    let (layer, trees) = embedded();
    layer.profile(ProfileTask::new("GET:/").samples(2)).unwrap();
    let (request, answer) = waiting(&layer);
    lasts_at_most(ms(1_000), || block_on(layer.shutdown()));
    is_of_waiting(&trees.next());

    assert!(!is_followed(&layer, get("/")));
    is_answered(request, answer);
    trees.no_more();
}

#[test]
fn dropping_the_last_layer_shows_what_a_request_waits_for() {
    let (layer, trees) = embedded();
    layer.profile(ProfileTask::new("GET:/").samples(2)).unwrap();
    let (request, answer) = waiting(&layer);
    lasts_at_most(ms(1_000), || drop(layer));
    is_of_waiting(&trees.next());
    is_answered(request, answer);
    trees.no_more();
}

#[test]
fn a_request_that_hangs_in_one_of_two_waits_shows_both() {
    let (layer, trees) = embedded();
    layer.profile(ProfileTask::new("GET:/")).unwrap();
    let service = layer.layer(service_fn(stock_and_price));
    let mut request = Box::pin(service.oneshot(get("/")));
    assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    thread::sleep(ms(10));
    block_on(layer.shutdown());
    let tree = trees.next();
    tree.is_unfinished();
    tree.has_shape(&["GET:/", "  tasks::stock_and_price", "    [price | stock]"]);
}

async fn stock_and_price(_: Request<()>) -> Answer {
    tokio::join!(stock(), price());
    Ok(Response::new(Empty::new()))
}

async fn stock() {
    hang().await;
}

async fn price() {
    hang().await;
}

async fn hang() {
    let (_answer, question) = oneshot::channel::<()>();
    let _ = question.await;
}

#[test]
fn an_inactive_layer_and_one_shut_down_have_nothing_to_shut_down() {
    let layer = ProfileLayer::new(ProfileConfig::new("test").unwrap().active(false));
    lasts_at_most(ms(100), || block_on(layer.shutdown()));
    assert!(!is_followed(&layer, get("/")));
    lasts_at_most(ms(100), || drop(layer));

    let (layer, _trees) = embedded();
    block_on(layer.shutdown());
    lasts_at_most(ms(100), || block_on(layer.shutdown()));
    lasts_at_most(ms(100), || drop(layer));
}

#[test]
fn a_callback_that_panics_ends_profiling_but_no_request() {
    let config = ProfileConfig::new("test").unwrap().on_profile(|_| panic!("the callback's own"));
    let layer = ProfileLayer::new(config);
    layer.profile(ProfileTask::new("GET:/").samples(10)).unwrap();
    let (request, answer) = waiting(&layer);
    assert!(is_followed(&layer, get("/")));
    block_on(layer.shutdown());
    assert!(!is_followed(&layer, get("/")));
    is_answered(request, answer);
    is_refused(&layer, ProfileTask::new("GET:/"), "the layer is inactive or shut down");
}

#[tokio::test]
async fn an_oap_that_never_answers_holds_up_neither_requests_nor_shutdown() {
    let (layer, _oap) = reporting().await;
    shuts_down_in_time(layer).await;
}

#[tokio::test]
async fn an_oap_that_has_gone_holds_up_neither_requests_nor_shutdown() {
    let (layer, oap) = reporting().await;
    drop(oap);
    shuts_down_in_time(layer).await;
}

/// With requests in flight and reports to send, and serving as ever before and after.
async fn shuts_down_in_time(layer: ProfileLayer) {
    let (request, answer) = waiting(&layer);
    serves_at_full_speed(&layer).await;
    let start = Instant::now();
    layer.shutdown().await;
    assert!(start.elapsed() < ms(5_500), "took {:?}", start.elapsed());
    serves_at_full_speed(&layer).await;
    is_answered(request, answer);
}

#[tokio::test]
async fn an_oap_that_never_answers_holds_up_the_last_drop_for_a_second_at_most() {
    let (layer, _oap) = reporting().await;
    serves_at_full_speed(&layer).await;
    lasts_at_most(ms(1_500), || drop(layer));
}

/// A layer with the address of an OAP, which takes its connection and says nothing.
async fn reporting() -> (ProfileLayer, (TcpListener, TcpStream)) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let config = ProfileConfig::new("test").expect("a name").backend_service(address).expect("an address");
    let layer = ProfileLayer::new(config);
    let (connection, _) =
        timeout(FOREVER, listener.accept()).await.expect("a connection in time").expect("a connection");
    (layer, (listener, connection))
}

/// A thousand endpoints, called one after the other. With an OAP's address there is something to report of each.
async fn serves_at_full_speed(layer: &ProfileLayer) {
    let start = Instant::now();
    for i in 0..1_000 {
        layer
            .layer(service_fn(async |_| Answer::Ok(Response::default())))
            .oneshot(get(&format!("/{i}")))
            .await
            .unwrap();
    }
    assert!(start.elapsed() < ms(1_000), "a thousand requests took {:?}", start.elapsed());
}

/// A request that has waited for a while, and what it waits for.
fn waiting(layer: &ProfileLayer) -> (BoxFuture<'static, Response<()>>, oneshot::Sender<()>) {
    let (answer, receiver) = oneshot::channel();
    let mut receiver = Some(receiver);
    let service = layer.layer(service_fn(move |_| wait_for(receiver.take().expect("one request"))));
    let mut request = service.oneshot(get("/")).map(|Ok(response)| response.map(drop)).boxed();
    assert!((&mut request).now_or_never().is_none());
    thread::sleep(ms(10));
    (request, answer)
}

async fn wait_for(answer: oneshot::Receiver<()>) -> Answer {
    answer.await.expect("an answer");
    Ok(Response::default())
}

#[track_caller]
fn is_of_waiting(tree: &Tree) {
    tree.has_shape(&["GET:/", "  tasks::wait_for", "    tokio::sync::oneshot::Receiver"]);
    tree.took("tasks::wait_for", tree.duration());
    tree.is_unfinished();
}

#[track_caller]
fn is_answered(request: BoxFuture<'static, Response<()>>, answer: oneshot::Sender<()>) {
    answer.send(()).expect("the request goes on");
    assert!(request.now_or_never().is_some());
}

#[track_caller]
fn is_refused(layer: &ProfileLayer, task: ProfileTask, reason: &str) {
    assert_eq!(layer.profile(task).map_err(|error| error.to_string()), Err(reason.to_owned()));
}

#[track_caller]
fn lasts_at_most(most: Duration, action: impl FnOnce()) {
    let start = Instant::now();
    action();
    assert!(start.elapsed() <= most, "took {:?}", start.elapsed());
}

/// Whether the request is polled under the layer's waker. Its handler answers at once.
fn is_followed(layer: &ProfileLayer, request: Request<()>) -> bool {
    let ours = Waker::noop();
    let lent = service_fn(|_| {
        poll_fn(|cx| {
            let mut answer = Response::new(Empty::<&[u8]>::new());
            answer.extensions_mut().insert(!cx.waker().will_wake(ours));
            Poll::Ready(Ok::<_, Infallible>(answer))
        })
    });
    match pin!(layer.layer(lent).oneshot(request)).poll(&mut Context::from_waker(ours)) {
        Poll::Ready(Ok(answer)) => answer.extensions().get() == Some(&true),
        Poll::Pending => unreachable!("the handler answers at once"),
    }
}
