//! The signal by which a running thread copies its own stack.
//!
//! It is one that nobody else uses, and sent with the address of the thread's record, so that the handler knows ours from
//! others'. The handler runs in the middle of anything, an allocation or another signal's handler. It
//! - reads its arguments, the list of [`threads`] and the record, all atomics;
//! - asks the monotonic clock (`clock_gettime`, which POSIX lists as async-signal-safe) by [`clock::now`], whose origin was
//!   set when the first request was followed;
//! - copies registers and at most [`LONGEST_COPY`](crate::stack::LONGEST_COPY) bytes into memory that is there;
//!
//! and calls nothing else. It allocates and locks nothing, cannot panic, leaves `errno` as it was, and uses a few hundred
//! bytes of stack: the alternate one of Rust's threads is small.
//!
//! Once installed it stays: the signal's default action would end the process, and one may still be under way.
#![expect(unsafe_code, reason = "signals")]

use std::ffi::{c_int, c_void};
use std::mem::{MaybeUninit, size_of};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{fmt, io, ptr};

use super::thread::{Copy, Thread, threads};
use crate::clock;
use crate::stack::Registers;

/// The signal that is in use; 0: none yet.
static CHOSEN: AtomicI32 = AtomicI32::new(0);

/// One thread at a time chooses.
static CHOOSING: Mutex<()> = Mutex::new(());

/// The signals that were ours at some time: bit 0 is signal 1.
static HANDLED: AtomicU64 = AtomicU64::new(0);

/// What handled each signal before: the handler's address and its flags.
static PREVIOUS: [(AtomicUsize, AtomicI32); MOST_SIGNALS] =
    [const { (AtomicUsize::new(libc::SIG_DFL), AtomicI32::new(0)) }; MOST_SIGNALS];

const MOST_SIGNALS: usize = 65;

/// Why running threads cannot be signalled.
#[derive(Debug)]
pub(crate) enum SignalError {
    /// Every signal is in use.
    NoneFree,
    /// The signal that was asked for is handled by something that was installed after us.
    Taken(c_int),
    Refused(c_int, io::Error),
}

impl fmt::Display for SignalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoneFree => f.write_str("the application uses every signal"),
            Self::Taken(signal) => write!(f, "something else handles signal {signal} by now"),
            Self::Refused(signal, error) => write!(f, "signal {signal} is refused: {error}"),
        }
    }
}

/// Installs the handler, if it is not in place, for `wanted` or the first signal that nobody uses.
pub(crate) fn install(wanted: Option<c_int>) -> Result<c_int, SignalError> {
    let _choosing = CHOOSING.lock().unwrap_or_else(PoisonError::into_inner);
    let chosen = CHOSEN.load(Ordering::Relaxed);
    if chosen != 0 && wanted.is_none_or(|wanted| wanted == chosen) && is_ours(chosen) {
        return Ok(chosen);
    }
    let is_free = |signal: &c_int| action(*signal).is_some_and(|action| action.sa_sigaction == libc::SIG_DFL);
    // These two are sent neither by the kernel nor by tools; they do not queue up where a thread blocks them.
    let mut candidates = [libc::SIGSTKFLT, libc::SIGPWR].into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX());
    let signal = match wanted {
        // Its handler may pass on to ours what it does not know: ours must not pass that back.
        Some(wanted) if was_handled(wanted) && !is_ours(wanted) && !is_free(&wanted) => {
            return Err(SignalError::Taken(wanted));
        }
        Some(wanted) => wanted,
        None => candidates.find(|signal| is_ours(*signal) || is_free(signal)).ok_or(SignalError::NoneFree)?,
    };
    if !is_ours(signal) {
        handle(signal)?;
    }
    CHOSEN.store(signal, Ordering::Relaxed);
    Ok(signal)
}

/// Whether our handler is in place. Anything may replace it, and what it replaces it with may end the process.
pub(super) fn is_ours(signal: c_int) -> bool {
    action(signal).is_some_and(|action| action.sa_sigaction == handler_address())
}

/// Signals `thread`, which is to be `tid`'s record. An error is one of rt_sigqueueinfo(2).
pub(super) fn send(signal: c_int, thread: &'static Thread, tid: i32) -> io::Result<()> {
    let info = QueuedInfo {
        signo: signal,
        errno: 0,
        code: libc::SI_QUEUE,
        _padding: 0,
        pid: std::process::id().cast_signed(),
        // SAFETY: reads a number.
        uid: unsafe { libc::getuid() },
        value: ptr::from_ref(thread).addr(),
        _rest: [0; REST],
    };
    // SAFETY: `info` has the layout and the size of the kernel's `siginfo_t`. A thread that is not `tid`'s ignores it.
    match unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, info.pid, tid, signal, &raw const info) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel's `siginfo_t` of a queued signal (Linux, include/uapi/asm-generic/siginfo.h, `_rt`).
#[repr(C)]
struct QueuedInfo {
    signo: c_int,
    errno: c_int,
    code: c_int,
    _padding: c_int,
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: usize,
    _rest: [u8; REST],
}

const REST: usize = 128 - 32;
const _: () = assert!(size_of::<QueuedInfo>() == size_of::<libc::siginfo_t>());

fn handler_address() -> usize {
    handler as *const () as usize
}

/// What happens at `signal`; `None` if there is no such signal.
fn action(signal: c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: only asks; `action` is writable, and initialised if the call succeeds.
    unsafe { (libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0).then(|| action.assume_init()) }
}

fn was_handled(signal: c_int) -> bool {
    HANDLED.load(Ordering::Relaxed) & bit(signal) != 0
}

fn bit(signal: c_int) -> u64 {
    u32::try_from(signal - 1).ok().and_then(|signal| 1_u64.checked_shl(signal)).unwrap_or_default()
}

fn previous(signal: c_int) -> Option<&'static (AtomicUsize, AtomicI32)> {
    PREVIOUS.get(usize::try_from(signal).ok()?)
}

fn handle(signal: c_int) -> Result<(), SignalError> {
    let refused = || SignalError::Refused(signal, io::Error::last_os_error());
    let known = action(signal).ok_or_else(refused)?;
    set_previous(signal, &known);
    // SAFETY: all zeros is a value of this plain struct: no flags, an empty mask.
    let mut ours: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    ours.sa_sigaction = handler_address();
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // Another handler on top of ours might not fit on the alternate stack.
    // SAFETY: `sa_mask` is writable.
    unsafe { libc::sigfillset(&mut ours.sa_mask) };
    let mut replaced = known;
    // SAFETY: `handler` is async-signal-safe, as the module's header shows; `replaced` is writable.
    if unsafe { libc::sigaction(signal, &ours, &mut replaced) } != 0 {
        return Err(refused());
    }
    // Usually the same; something else may have been as fast.
    set_previous(signal, &replaced);
    HANDLED.fetch_or(bit(signal), Ordering::Relaxed);
    Ok(())
}

fn set_previous(signal: c_int, action: &libc::sigaction) {
    if let Some((handler, flags)) = previous(signal) {
        flags.store(action.sa_flags, Ordering::Relaxed);
        handler.store(action.sa_sigaction, Ordering::Release);
    }
}

/// # Safety
/// - Called by the kernel for a signal, with SA_SIGINFO.
unsafe extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the thread's own `errno`.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel passes what SA_SIGINFO promises.
    let (code, value) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr) };
    let record = || threads().find(|thread| ptr::addr_eq(*thread, value));
    match if code == libc::SI_QUEUE { record() } else { None } {
        // SAFETY: as above.
        Some(thread) => unsafe { copy(thread, context) },
        // SAFETY: passes on what the kernel passed.
        None => unsafe { pass_on(signal, info, context) },
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// # Safety
/// - `context` is that of the calling signal handler.
#[inline(always)]
unsafe fn copy(thread: &Thread, context: *const c_void) {
    // SAFETY: the caller's promise.
    let (registers, failed_call) = unsafe { Registers::of_signal(context) };
    thread.interrupted_calls.fetch_add(failed_call.into(), Ordering::Relaxed);
    // Late, if it is not.
    let Some(polled) = thread.polled() else { return thread.copy.fill(|_| false) };
    thread.copy.fill(|copy: &mut Copy| {
        // SAFETY: the interrupted stack pointer lies on the stack of the poll frame, if that is below it: so this is the
        // thread that polls, in the middle of that poll, and what lies between is live. `fill` gives `copy` to us alone.
        let is_copied = unsafe { polled.frame.copy_from(registers, &mut copy.bytes) };
        (copy.polled, copy.at) = (Some(polled), clock::now());
        copy.registers = registers;
        // Of another stack nothing was copied, but where the thread is is known.
        is_copied || polled.frame.is_elsewhere(registers.sp)
    });
}

/// # Safety
/// - The arguments are those of the calling signal handler.
unsafe fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let Some((handler, flags)) = previous(signal) else { return };
    let handler = handler.load(Ordering::Acquire);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        return;
    }
    if flags.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
        type WithInfo = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: with this flag the address is of a function of this type.
        let handler = unsafe { std::mem::transmute::<usize, WithInfo>(handler) };
        // SAFETY: the caller passes on what the kernel passed.
        unsafe { handler(signal, info, context) };
    } else {
        // SAFETY: without the flag the address is of a function of this type.
        let handler = unsafe { std::mem::transmute::<usize, unsafe extern "C" fn(c_int)>(handler) };
        // SAFETY: the caller passes on what the kernel passed.
        unsafe { handler(signal) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::PollFrame;
    use crate::thread_stack::linux::thread::Polled;
    use crate::thread_stack::linux::watch::current_tid;

    /// Handles `signal` by `handler` from now on; what it was handled by before.
    fn replace(signal: c_int, handler: unsafe extern "C" fn(c_int)) -> usize {
        let before = action(signal).unwrap();
        let mut theirs = before;
        theirs.sa_sigaction = handler as *const () as usize;
        theirs.sa_flags = 0;
        // SAFETY: the tests' handlers do nothing, or what ours does.
        assert_eq!(unsafe { libc::sigaction(signal, &theirs, ptr::null_mut()) }, 0);
        before.sa_sigaction
    }

    /// One that came after ours and may pass on to it: if ours passed back to that, neither would ever return.
    #[test]
    fn a_signal_that_something_else_took_is_not_taken_back() {
        extern "C" fn theirs(_: c_int) {}
        let signal = libc::SIGRTMAX();
        assert_eq!(install(Some(signal)).unwrap(), signal);
        assert_eq!(replace(signal, theirs), handler_address());
        assert!(matches!(install(Some(signal)), Err(SignalError::Taken(taken)) if taken == signal));
    }

    /// What Rust gives its threads may have room for little more than the kernel's frame.
    #[test]
    fn the_handler_needs_little_stack() {
        const MOST: usize = 2 * 1024;
        // SAFETY: reads a number; 0 where the kernel does not tell.
        let of_kernel =
            usize::try_from(unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) }).unwrap().max(libc::MINSIGSTKSZ);
        std::thread::spawn(move || {
            let signal = install(None).unwrap();
            let mut stack = vec![0xa5_u8; 256 * 1024];
            let ours = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
            let mut rusts = ours;
            // SAFETY: the memory outlives its use as the alternate stack; `rusts` is writable.
            assert_eq!(unsafe { libc::sigaltstack(&raw const ours, &raw mut rusts) }, 0);
            let thread = Thread::take(current_tid()).unwrap();
            let frame = PollFrame::here().unwrap();
            thread.set_polled(Some(Polled { sampler: u64::MAX, strand: 1, since: 1, frame }));
            assert!(thread.copy.ask());
            send(signal, thread, current_tid()).unwrap();
            assert!(thread.copy.take(|copy| copy.polled.is_some()).unwrap());
            thread.release();
            // SAFETY: what was there before.
            assert_eq!(unsafe { libc::sigaltstack(&raw const rusts, ptr::null_mut()) }, 0);
            let used = stack.len() - stack.iter().position(|byte| *byte != 0xa5).unwrap();
            assert!(used <= of_kernel + MOST, "{used} bytes, {of_kernel} for the kernel");
        })
        .join()
        .unwrap();
    }
}
