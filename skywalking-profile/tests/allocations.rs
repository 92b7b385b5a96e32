//! What the layer costs a request that nobody asked about: no allocation.
#![expect(unsafe_code, reason = "counts allocations in the global allocator")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::mem;
use std::net::{Ipv4Addr, TcpListener};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use futures_util::StreamExt;
use http::{Extensions, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use skywalking_profile::{InCurrentRequest, ProfileConfig, ProfileLayer, ProfileTask};
use support::{FOREVER, block_on, get, sampled};
use tower::{Layer, Service, ServiceExt, service_fn};

const PATH: &str = "/orders";
const ENDPOINT: &str = "GET:/orders";

#[test]
fn without_a_task_a_request_allocates_as_without_the_layer() {
    let (layer, _trees) = sampled();
    allocates_as_without(&layer);
}

#[test]
fn while_another_endpoint_has_a_task_a_request_allocates_as_without_the_layer() {
    let (layer, _trees) = sampled();
    layer.profile(ProfileTask::new("GET:/")).unwrap();
    allocates_as_without(&layer);
}

#[test]
fn after_its_task_a_request_allocates_as_without_the_layer() {
    let (layer, trees) = sampled();
    layer.profile(ProfileTask::new(ENDPOINT)).unwrap();
    drop(block_on(layer.layer(service_fn(answer)).oneshot(get(PATH))));
    trees.next().is_finished();
    allocates_as_without(&layer);
}

#[test]
fn after_a_shutdown_a_request_allocates_as_without_the_layer() {
    let (layer, _trees) = sampled();
    layer.profile(ProfileTask::new(ENDPOINT)).unwrap();
    block_on(layer.shutdown());
    allocates_as_without(&layer);
}

#[test]
fn through_an_inactive_layer_a_request_allocates_as_without() {
    allocates_as_without(&ProfileLayer::new(ProfileConfig::new("test").unwrap().active(false)));
}

#[test]
fn with_an_oap_that_is_away_a_request_of_a_known_endpoint_allocates_as_without_the_layer() {
    let layer = reporting();
    is_discovered(&layer, get(PATH));
    // Until discovery rests, and then.
    for _ in 0..LOOKUPS {
        allocates_as_without(&layer);
    }
    // That it goes on shows by an endpoint that it does not know yet.
    is_discovered(&layer, get("/customers"));
    allocates_as_without(&layer);
}

#[test]
fn after_a_shutdown_with_an_oap_a_request_of_a_new_endpoint_allocates_as_without_the_layer() {
    let layer = reporting();
    block_on(layer.shutdown());
    allocates_as_without(&layer);
}

#[test]
fn with_a_frameworks_routes_a_request_allocates_as_without_the_layer() {
    let (layer, _trees) = sampled();
    let layer = layer.with_route(route);
    allocates_as_without_of(&layer, routed);
    layer.profile(ProfileTask::new("GET:/")).unwrap();
    allocates_as_without_of(&layer, routed);
    allocates_as_without(&layer);
}

#[test]
fn with_an_oap_and_a_frameworks_routes_a_request_of_a_known_route_allocates_as_without_the_layer() {
    let layer = reporting().with_route(route);
    is_discovered(&layer, routed());
    for _ in 0..LOOKUPS {
        allocates_as_without_of(&layer, routed);
    }
}

#[test]
fn with_an_oap_and_a_frameworks_routes_a_request_without_one_allocates_as_without_the_layer() {
    let layer = reporting().with_route(route);
    // Discovery has begun.
    is_discovered(&layer, routed());
    allocates_as_without(&layer);
}

#[test]
fn a_future_that_is_made_part_of_no_request_allocates_nothing() {
    let (layer, _trees) = sampled();
    layer.profile(ProfileTask::new("GET:/")).unwrap();
    let service = layer.layer(service_fn(|_| async {
        let before = ALLOCATIONS.get();
        suspend().in_current_request().await;
        Ok::<_, Infallible>(Response::new((ALLOCATIONS.get() - before).to_string()))
    }));
    // On a thread that has done nothing of the kind.
    let response = thread::spawn(|| block_on(service.oneshot(get(PATH)))).join().unwrap().unwrap();
    let body = block_on(response.into_body().collect()).unwrap().to_bytes();
    assert_eq!(body, "0");
}

/// A layer with the address of an OAP where nothing listens.
fn reporting() -> ProfileLayer {
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let address = unused.expect("a port").to_string();
    ProfileLayer::new(ProfileConfig::new("test").expect("a name").backend_service(address).expect("an address"))
}

/// Requests that discovery looks at before it rests, and more.
const LOOKUPS: usize = 150;

/// Waits until discovery has taken note of the request's endpoint, which shows by its allocations.
#[track_caller]
fn is_discovered(layer: &ProfileLayer, request: Request<()>) {
    let without = allocations(service_fn(answer), request.clone());
    let start = Instant::now();
    while allocations(layer.layer(service_fn(answer)), request.clone()) == without {
        assert!(start.elapsed() < FOREVER, "discovery does not begin");
        thread::yield_now();
    }
}

/// As a framework leaves it among a request's extensions.
#[derive(Clone)]
struct Route(String);

fn route(extensions: &Extensions) -> Option<&str> {
    extensions.get::<Route>().map(|route| route.0.as_str())
}

fn routed() -> Request<()> {
    let mut request = get(PATH);
    request.extensions_mut().insert(Route("/{orders}".to_owned()));
    request
}

#[track_caller]
fn allocates_as_without(layer: &ProfileLayer) {
    allocates_as_without_of(layer, || get(PATH));
}

#[track_caller]
fn allocates_as_without_of(layer: &ProfileLayer, request: fn() -> Request<()>) {
    let without = allocations(service_fn(answer), request());
    assert!(without > 0, "nothing is counted");
    let mut with = layer.layer(service_fn(answer));
    assert_eq!(allocations(&mut with, request()), without);
    assert_eq!(allocations(&mut with, request()), without);
}

/// Suspends and allocates, as does its body.
async fn answer(request: Request<()>) -> Result<Response<impl Body<Data = &'static [u8], Error: Send>>, Infallible> {
    suspend().await;
    let words = request.uri().path().repeat(3).into_boxed_str();
    let frames = futures_util::stream::iter(0..3).then(async |_| {
        suspend().await;
        Ok::<_, Infallible>(Frame::data("word".as_bytes()))
    });
    let mut response = Response::new(StreamBody::new(Box::pin(frames)));
    response.extensions_mut().insert(words);
    Ok(response)
}

async fn suspend() {
    let mut polled = false;
    poll_fn(|cx| {
        cx.waker().wake_by_ref();
        if mem::replace(&mut polled, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Allocations of this thread from the call to the drop of the body.
fn allocations<B: Body>(
    mut service: impl Service<Request<()>, Response = Response<B>, Error = Infallible>,
    request: Request<()>,
) -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    let before = ALLOCATIONS.get();
    {
        let mut call = pin!(service.call(request));
        let response = loop {
            if let Poll::Ready(Ok(response)) = call.as_mut().poll(&mut cx) {
                break response;
            }
        };
        let mut body = pin!(response.into_body());
        while !matches!(body.as_mut().poll_frame(&mut cx), Poll::Ready(None)) {}
    }
    ALLOCATIONS.get() - before
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to `System`; a `Cell` that needs neither initialization nor drop allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, allocated: *mut u8, layout: Layout) {
        // SAFETY: as above; what `alloc` returned came from `System`.
        unsafe { System.dealloc(allocated, layout) }
    }
}
