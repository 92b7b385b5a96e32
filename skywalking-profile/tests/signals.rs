//! The signal by which threads are sampled, in an application that uses signals itself.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "signals")]

mod support;

use std::convert::Infallible;
use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::Response;
use http_body_util::Empty;
use skywalking_profile::{ProfileLayer, ProfileTask};
use support::{FOREVER, Log, Tree, Trees, alone, block_on, embedded_with, finely_sampled, get, ms, succeeds};
use tower::{Layer, ServiceExt, service_fn};

const LONG: Duration = Duration::from_millis(60);

/// A busy machine may keep the sampler from looking for so long.
const LATE: Duration = Duration::from_millis(40);

/// Profiles one request, by a task of its own, that runs `computes`.
fn profiled(layer: &ProfileLayer, trees: &Trees, computes: fn()) -> Tree {
    layer.profile(ProfileTask::new("GET:/").samples(1)).expect("an active layer");
    requested(layer, computes);
    trees.next()
}

/// Profiles requests, each by a task of its own, that run `computes`, in which they call `name`.
#[track_caller]
fn is_seen(name: &str, layer: &ProfileLayer, trees: &Trees, computes: fn()) {
    succeeds(|| {
        let tree = profiled(layer, trees, computes);
        if tree.time_of(name) + LATE >= LONG { Ok(()) } else { Err(tree.to_string()) }
    });
}

fn requested(layer: &ProfileLayer, computes: fn()) {
    let service = layer.layer(service_fn(move |_| async move {
        // A task in code is active before its sampler is.
        thread::sleep(ms(20));
        computes();
        Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
    }));
    let Ok(_) = block_on(service.oneshot(get("/")));
}

#[inline(never)]
fn compute() {
    let start = Instant::now();
    while start.elapsed() < LONG {
        (0..1_000_u64).for_each(|i| _ = black_box(i));
    }
}

#[inline(never)]
fn sleeps() {
    thread::sleep(LONG);
    black_box(());
}

fn action(signal: c_int) -> libc::sigaction {
    let mut action = MaybeUninit::uninit();
    // SAFETY: only asks; `action` is writable, and read after success.
    unsafe {
        assert_eq!(libc::sigaction(signal, ptr::null(), action.as_mut_ptr()), 0);
        action.assume_init()
    }
}

/// Sets what happens at `signal`, and returns what happened before.
fn set_action(signal: c_int, handler: usize, flags: c_int) -> libc::sigaction {
    let before = action(signal);
    let mut new = before;
    (new.sa_sigaction, new.sa_flags) = (handler, flags);
    // SAFETY: the handlers of this file are async-signal-safe.
    assert_eq!(unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) }, 0);
    before
}

fn candidates() -> impl Iterator<Item = c_int> {
    [libc::SIGSTKFLT, libc::SIGPWR].into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
}

/// The signals that something handles.
fn handled() -> Vec<c_int> {
    candidates().filter(|signal| action(*signal).sa_sigaction != libc::SIG_DFL).collect()
}

/// The signal that a sampler uses by now.
fn ours() -> c_int {
    let (layer, trees) = embedded_with(finely_sampled());
    is_seen("signals::compute", &layer, &trees, compute);
    let handled = handled();
    assert_eq!(handled.len(), 1, "{handled:?}");
    handled[0]
}

static RECEIVED: AtomicUsize = AtomicUsize::new(0);

/// What the last signal came with.
static VALUE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_: c_int) {
    RECEIVED.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn note_value(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    assert!(!context.is_null());
    RECEIVED.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel passes a valid record.
    VALUE.store(unsafe { (*info).si_value() }.sival_ptr.addr(), Ordering::Relaxed);
}

#[test]
fn a_signal_that_the_application_takes_is_the_applications() {
    let _alone = alone();
    let signal = ours();
    let (layer, trees) = embedded_with(finely_sampled());
    layer.profile(ProfileTask::new("GET:/").samples(2)).unwrap();
    requested(&layer, compute);
    trees.next();

    RECEIVED.store(0, Ordering::Relaxed);
    let before = set_action(signal, note as *const () as usize, 0);
    requested(&layer, compute);
    let tree = trees.next();
    // One may have been on its way.
    assert!(RECEIVED.load(Ordering::Relaxed) <= 1, "{} strange signals", RECEIVED.load(Ordering::Relaxed));
    assert!(tree.time_of("signals::compute") <= LATE, "{tree}");

    // By the next task there is another one.
    is_seen("signals::compute", &layer, &trees, compute);
    assert_eq!(action(signal).sa_sigaction, note as *const () as usize);
    let others = handled();
    assert_eq!(others.len(), 2, "{others:?}");
    let other = others.into_iter().find(|other| *other != signal).unwrap();
    // As they were for the other tests.
    set_action(other, libc::SIG_DFL, 0);
    set_action(signal, before.sa_sigaction, before.sa_flags);
}

#[test]
fn a_signal_that_is_made_deadly_kills_nobody() {
    let _alone = alone();
    let signal = ours();
    let (layer, trees) = embedded_with(finely_sampled());
    layer.profile(ProfileTask::new("GET:/").samples(2)).unwrap();
    requested(&layer, compute);
    trees.next();
    let before = set_action(signal, libc::SIG_DFL, 0);
    requested(&layer, compute);
    trees.next();
    set_action(signal, before.sa_sigaction, before.sa_flags);
}

#[test]
fn signals_of_others_are_ignored() {
    let _alone = alone();
    static SIGNAL: AtomicUsize = AtomicUsize::new(0);
    SIGNAL.store(ours() as usize, Ordering::Relaxed);
    let (layer, trees) = embedded_with(finely_sampled());
    is_seen("signals::compute", &layer, &trees, || {
        let signal = SIGNAL.load(Ordering::Relaxed) as c_int;
        for value in 0..100_usize {
            // SAFETY: all are sent to this process, which handles them.
            unsafe {
                libc::kill(libc::getpid(), signal);
                libc::pthread_kill(libc::pthread_self(), signal);
                let value = libc::sigval { sival_ptr: ptr::without_provenance_mut(value * 8) };
                libc::sigqueue(libc::getpid(), signal, value);
            }
        }
        compute();
    });
}

#[test]
fn signals_of_others_are_passed_on_to_the_handler_before() {
    let _alone = alone();
    for (signal, handler, flags) in [
        (libc::SIGUSR1, note as *const () as usize, 0),
        (libc::SIGUSR2, note_value as *const () as usize, libc::SA_SIGINFO),
    ] {
        set_action(signal, handler, flags);
        RECEIVED.store(0, Ordering::Relaxed);
        let (layer, trees) = embedded_with(finely_sampled().sampling_signal(signal).unwrap());
        is_seen("signals::compute", &layer, &trees, compute);
        assert_ne!(action(signal).sa_sigaction, handler);
        assert_eq!(RECEIVED.load(Ordering::Relaxed), 0, "ours were passed on");
        // SAFETY: sent to this thread, which handles it, and then on its way out of the call.
        unsafe {
            *libc::__errno_location() = 77;
            assert_eq!(libc::raise(signal), 0);
            assert_eq!(*libc::__errno_location(), 77);
        }
        assert_eq!(RECEIVED.load(Ordering::Relaxed), 1);
        // SAFETY: as above; to any thread.
        unsafe { libc::sigqueue(libc::getpid(), signal, libc::sigval { sival_ptr: ptr::without_provenance_mut(42) }) };
        let start = Instant::now();
        while RECEIVED.load(Ordering::Relaxed) < 2 {
            assert!(start.elapsed() < FOREVER);
            thread::yield_now();
        }
        assert!(flags == 0 || VALUE.load(Ordering::Relaxed) == 42);
        set_action(signal, libc::SIG_DFL, 0);
    }
}

#[test]
fn without_a_free_signal_what_blocks_is_still_seen() {
    let _alone = alone();
    let log = Log::of_all();
    let taken: Vec<_> =
        candidates().map(|signal| (signal, set_action(signal, note as *const () as usize, 0))).collect();
    RECEIVED.store(0, Ordering::Relaxed);
    let (layer, trees) = embedded_with(finely_sampled());
    let tree = profiled(&layer, &trees, || {
        compute();
        sleeps();
    });
    assert!(tree.time_of("signals::sleeps") + LATE >= LONG, "{tree}");
    tree.has_no("signals::compute");
    assert!(tree.time_of("signals::sleeps") <= LONG + LATE, "{tree}");
    assert_eq!(RECEIVED.load(Ordering::Relaxed), 0);
    log.line("what runs is not sampled, only what blocks: the application uses every signal", FOREVER);
    for (signal, before) in taken {
        set_action(signal, before.sa_sigaction, before.sa_flags);
    }
}
