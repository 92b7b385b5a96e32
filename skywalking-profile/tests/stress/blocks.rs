//! What blocks its thread, as much as possible with timeouts: such calls fail if a signal interrupts them.

use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;
use std::{io, ptr};

use crate::random::Random;

/// Calls that failed because a signal interrupted them.
pub(crate) static INTERRUPTED: AtomicU64 = AtomicU64::new(0);

/// Who calls whom here.
pub(crate) const CALLS: &[(&str, &[&str])] = &[
    ("blocks::anyhow", &["blocks::by_now", "blocks::deeper"]),
    ("blocks::deeper", &["blocks::deeper", "blocks::by_now"]),
    (
        "blocks::by_now",
        &[
            "blocks::sleeps",
            "blocks::waits_for_a_condition",
            "blocks::waits_for_a_message",
            "blocks::locks",
            "blocks::reads",
            "blocks::writes",
            "blocks::polls",
            "blocks::polls_in_a_large_frame",
            "blocks::polls_in_an_aligned_frame",
            "blocks::runs_a_command",
            "blocks::spawns_a_thread",
        ],
    ),
    ("blocks::polls_in_a_large_frame", &["blocks::polls"]),
    ("blocks::reads", &["blocks::tcp"]),
    ("blocks::writes", &["blocks::tcp", "blocks::fills"]),
    // By a closure, which has its function's name.
    ("blocks::fills", &["blocks::writes"]),
];

#[inline(never)]
pub(crate) fn anyhow(random: &mut Random) {
    match random.below(4) {
        0 => by_now(random),
        depth => deeper(random, depth * 3),
    }
    black_box(());
}

/// The same calls from elsewhere leave their frames where others have theirs.
#[inline(never)]
fn deeper(random: &mut Random, depth: u64) {
    match depth {
        0 => by_now(random),
        _ => deeper(random, depth - 1),
    }
    black_box(());
}

#[inline(never)]
fn by_now(random: &mut Random) {
    let time = Duration::from_micros(500 + random.below(3_000));
    let is_costly = random.below(20) == 0;
    match random.below(if is_costly { 15 } else { 13 }) {
        0 => sleeps(time),
        1 => waits_for_a_condition(time),
        2 => waits_for_a_message(time),
        3 => locks(time),
        4 | 5 => reads(random, time),
        6 | 7 => writes(random, time),
        8 => polls(time),
        9 | 10 => polls_in_a_large_frame(time),
        11 => polls_in_an_aligned_frame(time),
        12 => {
            // The instruction does not tell whom it calls.
            let function: fn(Duration) = black_box(polls_in_an_aligned_frame);
            function(time);
        }
        13 => spawns_a_thread(time),
        _ => runs_a_command(),
    }
    black_box(());
}

#[track_caller]
fn note<T>(result: io::Result<T>) {
    match result.map_err(|error| error.kind()) {
        Err(ErrorKind::Interrupted) => drop(INTERRUPTED.fetch_add(1, Ordering::Relaxed)),
        Ok(_) | Err(ErrorKind::WouldBlock) => {}
        Err(other) => panic!("{other}"),
    }
}

#[inline(never)]
fn sleeps(time: Duration) {
    thread::sleep(time / 2);
    let time = libc::timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos() / 2) };
    // SAFETY: `time` is readable, and nothing else is asked for.
    note(result(unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) }));
}

#[inline(never)]
fn waits_for_a_condition(time: Duration) {
    let (mutex, condition) = (Mutex::new(()), Condvar::new());
    let guard = mutex.lock().unwrap();
    drop(condition.wait_timeout(guard, time));
}

#[inline(never)]
fn waits_for_a_message(time: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    assert!(receiver.recv_timeout(time).is_err());
}

#[inline(never)]
fn locks(time: Duration) {
    static CONTENDED: Mutex<()> = Mutex::new(());
    let _guard = CONTENDED.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(time / 2);
}

fn tcp() -> (TcpStream, TcpStream) {
    static LISTENER: LazyLock<Mutex<TcpListener>> =
        LazyLock::new(|| Mutex::new(TcpListener::bind("127.0.0.1:0").unwrap()));
    let listener = LISTENER.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours, listener.accept().unwrap().0)
}

#[inline(never)]
fn reads(random: &mut Random, time: Duration) {
    if random.below(4) == 0 {
        let (mut ours, _theirs) = tcp();
        ours.set_read_timeout(Some(time)).unwrap();
        note(ours.read(&mut [0; 8]));
    } else {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(time)).unwrap();
        note(ours.read(&mut [0; 8]));
    }
}

#[inline(never)]
fn writes(random: &mut Random, time: Duration) {
    let content = [0; 10_000];
    if random.below(4) == 0 {
        let (mut ours, _theirs) = tcp();
        ours.set_write_timeout(Some(time)).unwrap();
        fills(|| ours.write(&content));
    } else {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        ours.set_write_timeout(Some(time)).unwrap();
        fills(|| ours.write(&content));
    }
}

/// Writes until there is no room for a while.
fn fills(mut write: impl FnMut() -> io::Result<usize>) {
    for _ in 0..10_000 {
        let written = write();
        let is_full = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        note(written);
        if is_full {
            break;
        }
    }
}

#[inline(never)]
fn polls(time: Duration) {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut descriptor = libc::pollfd { fd: ours.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let time = i32::try_from(time.as_millis()).unwrap() + 1;
    // SAFETY: one descriptor, as told.
    note(result(unsafe { libc::poll(&raw mut descriptor, 1, time) }));
}

/// Most of the frame is what other functions left there.
#[inline(never)]
fn polls_in_a_large_frame(time: Duration) {
    let mut frame = MaybeUninit::<[u8; 4_000]>::uninit();
    black_box(&mut frame);
    polls(time);
    black_box(&mut frame);
}

#[repr(align(64))]
#[expect(dead_code, reason = "it takes room")]
struct Aligned([u8; 4_000]);

/// As above, with a frame pointer.
#[inline(never)]
fn polls_in_an_aligned_frame(time: Duration) {
    let mut frame = MaybeUninit::<Aligned>::uninit();
    black_box(&mut frame);
    let time = i32::try_from(time.as_millis()).unwrap() + 1;
    // SAFETY: no descriptors, as told.
    note(result(unsafe { libc::poll(ptr::null_mut(), 0, time) }));
    black_box(&mut frame);
}

#[inline(never)]
fn spawns_a_thread(time: Duration) {
    thread::spawn(move || thread::sleep(time)).join().unwrap();
}

#[inline(never)]
fn runs_a_command() {
    let status = Command::new("true").stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
}

fn result(returned: i32) -> io::Result<i32> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}
