//! What following requests costs at most: memory.
#![expect(unsafe_code, reason = "counts memory in the global allocator")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::Empty;
use skywalking_profile::ProfileTask;
use support::{FOREVER, embedded, get, ms};
use tokio::sync::watch;
use tower::{Layer, ServiceExt, service_fn};

/// Of one stack: each wait's image is as large.
const STACK: usize = 50_000;

/// The images of all requests together, as documented.
const IMAGES: usize = 64 * 1024 * 1024;

const MIB: usize = 1024 * 1024;

#[test]
fn stacks_of_waiting_requests_are_bounded_and_freed() {
    let (layer, trees) = embedded();
    let (answer, answers) = watch::channel(false);
    let service = layer.layer(service_fn(move |_| {
        let mut answers = answers.clone();
        async move {
            with_a_large_stack(Box::pin(async move {
                let _ = answers.wait_for(|answer| *answer).await;
            }))
            .await;
            Ok::<_, Infallible>(Response::new(Empty::<&'static [u8]>::new()))
        }
    }));
    // So that all are followed, and none is shown.
    let task = ProfileTask::new("GET:/").min_duration_threshold(Duration::from_secs(3_600)).dump_period(ms(100));
    layer.profile(task).unwrap();

    // Three times what may be held at once.
    let before = HELD.load(Ordering::Relaxed);
    let mut waiting: Vec<_> = (0..3 * IMAGES / STACK).map(|_| Box::pin(service.clone().oneshot(get("/")))).collect();
    for request in &mut waiting {
        assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(held_since(before) < IMAGES + 16 * MIB, "{} MiB are held", held_since(before) / MIB);
    }

    let start = Instant::now();
    while held_since(before) > 16 * MIB {
        assert!(start.elapsed() < FOREVER, "{} MiB are held", held_since(before) / MIB);
        thread::sleep(ms(10));
    }
    // All go on as if nobody had looked.
    answer.send_replace(true);
    for request in &mut waiting {
        assert!(request.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
    drop(waiting);
    drop((service, layer));
    trees.no_more();
}

fn held_since(before: usize) -> usize {
    HELD.load(Ordering::Relaxed).saturating_sub(before)
}

/// Polls `future` below a frame of [`STACK`] bytes.
async fn with_a_large_stack(mut future: Pin<Box<impl Future<Output = ()>>>) {
    #[inline(never)]
    fn poll(future: Pin<&mut impl Future<Output = ()>>, cx: &mut Context<'_>) -> Poll<()> {
        let mut frame = [0_u8; STACK];
        black_box(&mut frame);
        let polled = future.poll(cx);
        black_box(&mut frame);
        polled
    }
    poll_fn(|cx| poll(future.as_mut(), cx)).await;
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator, which keeps the contract, does all the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: passed on as it came.
        unsafe { System.dealloc(memory, layout) }
    }
}
