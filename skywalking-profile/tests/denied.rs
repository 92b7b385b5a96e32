//! What the system may deny a sampler: what can be seen without is seen.
#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![expect(unsafe_code, reason = "denies system calls and files")]

mod support;

use std::convert::Infallible;
use std::fs::File;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};
use std::{mem, ptr};

use http::Response;
use http_body_util::Empty;
use skywalking_profile::ProfileTask;
use support::{FOREVER, Log, alone, block_on, embedded_with, finely_sampled, get, ms, succeeds};
use tower::{Layer, ServiceExt, service_fn};
use tracing::Level;

const LONG: Duration = Duration::from_millis(60);

/// A busy machine may keep the sampler from looking for so long.
const LATE: Duration = Duration::from_millis(40);

#[inline(never)]
fn computes() {
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

/// Lets the kernel refuse one system call, with EPERM, to this thread and those that it starts from now on.
fn refuse(call: libc::c_long) {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const UNLESS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, mem::offset_of!(libc::seccomp_data, nr) as u32),
        step(UNLESS_EQUAL, 1, u32::try_from(call).expect("a number")),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the filter outlives the calls, which read it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter), 0);
    }
}

#[test]
fn where_threads_cannot_be_signalled_what_blocks_is_seen() {
    let _alone = alone();
    let log = Log::of_all();
    refuse(libc::SYS_rt_tgsigqueueinfo);
    let (layer, trees) = embedded_with(finely_sampled());
    let profiled = || {
        layer.profile(ProfileTask::new("GET:/").samples(1)).unwrap();
        let service = layer.layer(service_fn(|_| async {
            // A task in code is active before its sampler is.
            thread::sleep(ms(20));
            computes();
            sleeps();
            computes();
            Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
        }));
        block_on(service.oneshot(get("/"))).unwrap();
        let tree = trees.next();
        tree.has_no("denied::computes");
        if tree.time_of("denied::sleeps").abs_diff(LONG) <= LATE { Ok(()) } else { Err(tree.to_string()) }
    };
    (0..2).for_each(|_| succeeds(profiled));
    // Once, however many tasks there are.
    let line = log.line("threads cannot be signalled here", FOREVER);
    assert_eq!(line.level, Level::WARN);
}

/// Lets the process open no file that it has not open, until it is dropped.
struct NoMoreFiles(libc::rlimit);

impl NoMoreFiles {
    fn new() -> Self {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `before` is writable.
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) }, 0);
        set_limit(libc::rlimit { rlim_cur: 0, ..before });
        assert!(File::open("/proc/self/stat").is_err());
        Self(before)
    }
}

impl Drop for NoMoreFiles {
    fn drop(&mut self) {
        set_limit(self.0);
    }
}

fn set_limit(limit: libc::rlimit) {
    // SAFETY: `limit` is readable.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0, "{}", ptr::addr_of!(limit).addr());
}

#[test]
fn where_the_kernel_does_not_tell_who_blocks_what_runs_is_seen() {
    let _alone = alone();
    let (layer, trees) = embedded_with(finely_sampled());
    layer.profile(ProfileTask::new("GET:/").samples(u64::MAX)).unwrap();
    let service = layer.layer(service_fn(|request: http::Request<()>| async move {
        if request.headers().is_empty() {
            // The sampler does not know this thread.
            let _no_more = NoMoreFiles::new();
            computes();
            sleeps();
            computes();
        } else {
            // The sampler opens some when it starts.
            thread::sleep(ms(50));
        }
        Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
    }));
    // The tree of this one names its stacks, by files that are open from then on.
    let mut first = get("/");
    first.headers_mut().insert("first", http::HeaderValue::from_static("1"));
    block_on(service.clone().oneshot(first)).unwrap();
    trees.next();
    succeeds(|| {
        let service = service.clone();
        let polls = thread::spawn(move || block_on(service.oneshot(get("/"))).map(drop));
        polls.join().unwrap().unwrap();
        let tree = trees.next();
        let is_computing_seen = tree.time_of("denied::computes").abs_diff(2 * LONG) <= LATE;
        let is_right = is_computing_seen && tree.time_of("denied::sleeps") <= LONG + LATE;
        if is_right { Ok(()) } else { Err(tree.to_string()) }
    });
}
