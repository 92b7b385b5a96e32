//! Thread stacks on all sorts of runtimes, threads and stacks: what is shown is right, or it is not shown.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "forks, and masks signals")]

mod support;

use std::cell::Cell;
use std::convert::Infallible;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use std::{io, ptr};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Response;
use http_body_util::Empty;
use skywalking_profile::ProfileTask;
use support::{
    Timer, Tree, alone, block_on, embedded_with, finely_sampled, get, ms, on_a_new_thread, on_one_thread, on_workers,
    profile_with, succeeds,
};
use tokio::runtime::{Builder, Handle};
use tokio::task::LocalSet;
use tower::{Layer, ServiceExt, service_fn};

/// How long each function computes that is to be seen.
const LONG: Duration = Duration::from_millis(60);

/// A tick may be late by so much on a busy machine, which then counts for the function before or after it.
const LATE: Duration = Duration::from_millis(25);

thread_local! {
    /// How long this thread was kept from computing.
    static STALLED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// What the program measured: how long functions took, and how much of it they were kept from computing.
#[derive(Clone, Debug, Default)]
struct Measured {
    times: Vec<(&'static str, Duration)>,
    stalled: Duration,
}

impl Measured {
    fn run(&mut self, name: &'static str, function: impl FnOnce()) {
        let start = Instant::now();
        STALLED.set(Duration::ZERO);
        function();
        self.stalled += STALLED.get();
        self.times.push((name, start.elapsed()));
    }
}

#[inline(never)]
fn compute(time: Duration) {
    let start = Instant::now();
    let mut last = start;
    while last - start < time {
        (0..1_000_u64).for_each(|i| _ = black_box(i));
        let now = Instant::now();
        if now - last > ms(2) {
            STALLED.set(STALLED.get() + (now - last));
        }
        last = now;
    }
}

// Functions that do the same would become one.
#[inline(never)]
fn first(time: Duration) {
    compute(time);
    black_box(1);
}

#[inline(never)]
fn second(time: Duration) {
    compute(time);
    black_box(2);
}

#[inline(never)]
fn third(time: Duration) {
    compute(time);
    black_box(3);
}

/// Each function has the time that the program measured.
fn is_right(tree: &Tree, measured: &Measured) -> Result<(), String> {
    is_right_or_absent(tree, measured)?;
    for (name, time) in &measured.times {
        let (shown, late) = (tree.time_of(&format!("runtimes::{name}")), LATE + measured.stalled);
        if shown + late < *time {
            return Err(format!("{name} is {shown:?} instead of {time:?} - {late:?} at least in\n{tree}"));
        }
    }
    Ok(())
}

/// No function has more than the time that the program measured.
fn is_right_or_absent(tree: &Tree, measured: &Measured) -> Result<(), String> {
    for (name, time) in &measured.times {
        let (shown, late) = (tree.time_of(&format!("runtimes::{name}")), LATE + measured.stalled);
        if shown > *time + late {
            return Err(format!("{name} is {shown:?} instead of {time:?} + {late:?} at most in\n{tree}"));
        }
    }
    Ok(())
}

/// What is profiled of `handler` is as `is_as_measured` wants it.
#[track_caller]
fn shows<F>(
    handler: impl Fn() -> F + Clone + Send + 'static,
    executor: fn(BoxFuture<'static, Response<()>>) -> Response<()>,
    is_as_measured: fn(&Tree, &Measured) -> Result<(), String>,
) where
    F: Future<Output = Measured> + Send + 'static,
{
    succeeds(|| {
        let (tree, measured) = profile_with(finely_sampled(), handler.clone(), executor);
        is_as_measured(&tree, &measured)
    });
}

async fn computes() -> Measured {
    let mut measured = Measured::default();
    tokio::time::sleep(ms(5)).await;
    measured.run("first", || first(LONG));
    tokio::task::yield_now().await;
    measured.run("second", || second(LONG));
    measured
}

fn on_a_local_set(future: BoxFuture<'static, Response<()>>) -> Response<()> {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, async { tokio::task::spawn_local(future).await.expect("no panic") })
}

/// On a thread for closures that block, which drives the request itself.
fn on_a_blocking_thread(future: BoxFuture<'static, Response<()>>) -> Response<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let handle = Handle::current();
        tokio::task::spawn_blocking(move || handle.block_on(future)).await.expect("no panic")
    })
}

#[test]
fn what_computes_is_right_on_every_runtime() {
    let _alone = alone();
    for executor in [on_workers, on_one_thread, on_a_local_set, on_a_blocking_thread] {
        shows(computes, executor, is_right);
    }
}

#[test]
fn what_computes_is_right_on_threads_that_end() {
    let _alone = alone();
    let handler = || async {
        let mut measured = Measured::default();
        measured.run("first", || first(LONG));
        Timer::new(ms(5)).await;
        measured.run("second", || second(LONG));
        Timer::new(ms(5)).await;
        measured.run("third", || third(LONG));
        measured
    };
    shows(handler, on_a_new_thread, is_right);
}

#[test]
fn what_computes_in_place_is_right() {
    let _alone = alone();
    let handler = || async {
        let mut measured = Measured::default();
        tokio::task::block_in_place(|| {
            measured.run("first", || first(LONG));
            // Another future, on the same thread, in the middle of the poll.
            Handle::current().block_on(async {
                tokio::time::sleep(ms(10)).await;
                measured.run("second", || second(LONG));
            });
        });
        measured
    };
    shows(handler, on_workers, is_right);
}

#[test]
fn another_stack_is_not_taken_for_what_was_before_or_after() {
    let _alone = alone();
    let handler = || async {
        let mut measured = Measured::default();
        measured.run("first", || first(LONG));
        measured.run("second", || stacker::grow(1 << 20, || second(3 * LONG)));
        measured.run("third", || third(LONG));
        measured
    };
    shows(handler, block_on, is_right_or_absent);
}

#[test]
fn another_stack_that_blocks_is_not_taken_for_what_was_before_or_after() {
    let _alone = alone();
    let handler = || async {
        let mut measured = Measured::default();
        measured.run("first", || first(LONG));
        stacker::grow(1 << 20, || thread::sleep(3 * LONG));
        measured.run("third", || third(LONG));
        measured
    };
    shows(handler, block_on, is_right_or_absent);
}

/// All on another stack: nothing is known of it.
#[test]
fn a_poll_on_another_stack_is_not_sampled() {
    let _alone = alone();
    let (tree, _) = profile_with(finely_sampled(), computes, |future| {
        let mut future = future;
        on_one_thread(std::future::poll_fn(move |cx| stacker::grow(1 << 20, || future.poll_unpin(cx))).boxed())
    });
    tree.has_no("runtimes::first");
    tree.has_no("runtimes::second");
}

#[test]
fn layers_around_one_another_are_right_both() {
    let _alone = alone();
    succeeds(layers_around_one_another);
}

fn layers_around_one_another() -> Result<(), String> {
    let ((outer, outer_trees), (inner, inner_trees)) =
        (embedded_with(finely_sampled()), embedded_with(finely_sampled()));
    outer.profile(ProfileTask::new("GET:/").samples(1)).expect("a layer that answers");
    inner.profile(ProfileTask::new("GET:/").samples(1)).expect("a layer that answers");
    let handler = inner.layer(service_fn(|_| async {
        let mut measured = Measured::default();
        measured.run("second", || second(3 * LONG));
        let mut response = Response::new(Empty::<&[u8]>::new());
        response.extensions_mut().insert(measured);
        Ok::<_, Infallible>(response)
    }));
    let service = outer.layer(service_fn(move |request| {
        let handler = handler.clone();
        async move {
            let mut measured = Measured::default();
            measured.run("first", || first(LONG));
            let mut response = handler.oneshot(request).await?.map(drop);
            measured.run("third", || third(LONG));
            let inner: Measured = response.extensions_mut().remove().expect("a layer that answers");
            measured.stalled += inner.stalled;
            response.extensions_mut().insert([measured, inner]);
            Ok::<_, Infallible>(response.map(|()| Empty::<&[u8]>::new()))
        }
    }));
    let mut response = block_on(service.oneshot(get("/"))).expect("a layer that answers");
    let [of_outer, of_inner]: [Measured; 2] = response.extensions_mut().remove().expect("a layer that answers");
    let (outer, inner) = (outer_trees.next(), inner_trees.next());
    inner.has_no("runtimes::first");
    inner.has_no("runtimes::third");
    is_right_or_absent(&inner, &of_inner)?;
    is_right(&outer, &of_inner)?;
    is_right(&outer, &of_outer)
}

#[test]
fn a_poll_that_forks_is_right_and_its_child_unharmed() {
    let _alone = alone();
    let handler = || async {
        let mut measured = Measured::default();
        measured.run("first", || first(LONG));
        let before = measured.times.clone();
        measured.run("forks", || {
            // SAFETY: the child computes, makes a system call, and allocates nothing.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // Longer than a tick: nobody samples it.
                compute(ms(20));
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(7) };
            }
            let mut status = 0;
            // SAFETY: `status` is writable.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:x}");
            assert!(Command::new("true").status().unwrap().success());
        });
        measured.times = before;
        // Sampled as before.
        measured.run("second", || second(LONG));
        measured
    };
    shows(handler, on_workers, is_right);
}

#[test]
fn a_panic_leaves_what_ran_before_it_and_sampling_goes_on() {
    let _alone = alone();
    let (layer, trees) = embedded_with(finely_sampled());
    layer.profile(ProfileTask::new("GET:/").samples(u64::MAX)).unwrap();
    for is_fatal in [true, false] {
        let service = layer.layer(service_fn(move |_| async move {
            first(LONG);
            assert!(!is_fatal, "as it should");
            Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
        }));
        succeeds(|| {
            let outcome = catch_unwind(AssertUnwindSafe(|| block_on(service.clone().oneshot(get("/")))));
            assert_eq!(outcome.is_err(), is_fatal);
            let tree = trees.next();
            let is_seen = tree.time_of("runtimes::first") + LATE >= LONG;
            if is_seen { Ok(()) } else { Err(tree.to_string()) }
        });
    }
}

/// Masks all signals of its thread until it is dropped.
struct Masked(libc::sigset_t);

impl Masked {
    fn new() -> Self {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both sets are writable, and `all` is filled before it is read.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()), 0);
            Self(before.assume_init())
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: the set that was in force before.
        assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) }, 0);
    }
}

#[test]
fn a_thread_that_masks_signals_is_not_taken_for_what_was_before_or_after() {
    let _alone = alone();
    let handler = || async {
        let mut measured = Measured::default();
        measured.run("first", || first(LONG));
        measured.run("second", || {
            let _masked = Masked::new();
            second(10 * LONG);
        });
        measured.run("third", || third(LONG));
        measured
    };
    shows(handler, on_one_thread, is_right_or_absent);
}

#[test]
fn a_thread_that_masks_signals_while_it_blocks_is_seen() {
    let _alone = alone();
    let handler = || async {
        let mut measured = Measured::default();
        let _masked = Masked::new();
        measured.run("sleeps", sleeps);
        measured
    };
    shows(handler, on_one_thread, is_right);
}

#[inline(never)]
fn sleeps() {
    thread::sleep(LONG);
    black_box(io::Error::last_os_error());
}

/// Has a frame pointer, for its alignment, and in its frame what calls before it left there.
#[inline(never)]
fn waits_in_what_others_left(time: Duration) {
    #[repr(align(64))]
    #[expect(dead_code, reason = "it takes room")]
    struct Aligned([u8; 4_000]);
    let mut frame = MaybeUninit::<Aligned>::uninit();
    black_box(&mut frame);
    // SAFETY: no descriptors, as told.
    unsafe { libc::poll(ptr::null_mut(), 0, i32::try_from(time.as_millis()).expect("a short time")) };
    black_box(&mut frame);
}

#[inline(never)]
fn calls_by_way_of_itself(depth: u32, time: Duration) {
    match depth {
        0 => waits_in_what_others_left(time),
        _ => calls_by_way_of_itself(depth - 1, time),
    }
    black_box(());
}

#[inline(never)]
fn calls_at_once(time: Duration) {
    waits_in_what_others_left(time);
    black_box(4);
}

/// The instruction does not tell whom it calls.
#[inline(never)]
fn calls_by_pointer(time: Duration) {
    let function: fn(Duration) = black_box(waits_in_what_others_left);
    function(time);
    black_box(());
}

#[test]
fn calls_that_are_over_are_not_shown() {
    let _alone = alone();
    let handler = || async {
        let mut by_way = Duration::ZERO;
        let start = Instant::now();
        for depth in 0..20 {
            let start = Instant::now();
            calls_by_way_of_itself(depth, ms(2));
            by_way += start.elapsed();
            calls_at_once(ms(10));
            calls_by_pointer(ms(10));
        }
        let at_once = start.elapsed().saturating_sub(by_way);
        let times =
            vec![("calls_by_way_of_itself", by_way), ("calls_at_once", at_once / 2), ("calls_by_pointer", at_once / 2)];
        Measured { times, stalled: Duration::ZERO }
    };
    succeeds(|| {
        let (tree, measured) = profile_with(finely_sampled(), handler, block_on);
        for caller in ["runtimes::calls_at_once", "runtimes::calls_by_pointer"] {
            tree.calls_only(caller, "runtimes::waits_in_what_others_left");
        }
        is_right(&tree, &measured)
    });
}
