//! What the kernel tells of a thread of this process: whether it runs, and where it is blocked.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;

/// The files of one thread, held open: of a thread that has ended they tell nothing, whoever has its number by now.
#[derive(Debug)]
pub(super) struct Activity {
    tid: i32,
    /// `/proc/self/task/<tid>/syscall`.
    syscall: io::Result<File>,
}

/// What a thread does at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has a processor, or waits for one.
    Running,
    /// It is in the kernel, with these registers.
    Blocked { pc: usize, sp: usize },
    /// The file cannot be read: of older kernels, sandboxes, processes that are not dumpable.
    Unknown,
}

impl Activity {
    pub(super) fn of(tid: i32) -> Self {
        Self { tid, syscall: File::open(format!("/proc/self/task/{tid}/syscall")) }
    }

    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    /// The processor time that the thread has used, in nanoseconds; `None` if it has ended.
    ///
    /// As long as it stands still the thread does not run, and its stack stays as it is.
    pub(super) fn cpu_time(&self) -> Option<u64> {
        // As glibc's `pthread_getcpuclockid` makes it of a thread's number (Linux, include/linux/posix-timers_types.h:
        // the complement of the number above three bits, CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED).
        const PER_THREAD_SCHED: libc::clockid_t = 6;
        let clock = (!self.tid << 3) | PER_THREAD_SCHED;
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: `time` is writable; the kernel refuses a clock that does not exist.
        #[expect(unsafe_code, reason = "clock_gettime of a thread's clock")]
        let time = unsafe { (libc::clock_gettime(clock, time.as_mut_ptr()) == 0).then(|| time.assume_init()) }?;
        let seconds = u64::try_from(time.tv_sec).ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec).ok()?)
    }

    pub(super) fn state(&self) -> State {
        let Ok(file) = &self.syscall else { return State::Unknown };
        // Nine numbers at most.
        let mut line = [0; 256];
        let Ok(len) = file.read_at(&mut line, 0) else { return State::Unknown };
        str::from_utf8(&line[..len]).ok().and_then(parse).unwrap_or(State::Unknown)
    }
}

/// `running`, or the number of a system call, its arguments, and then stack pointer and program counter; `-1` and these two
/// in the kernel for another reason (proc(5), "/proc/pid/syscall").
fn parse(line: &str) -> Option<State> {
    if line.trim_end() == "running" {
        return Some(State::Running);
    }
    let mut numbers = line.split_ascii_whitespace().rev();
    let mut address = || usize::from_str_radix(numbers.next()?.strip_prefix("0x")?, 16).ok();
    let (pc, sp) = (address()?, address()?);
    Some(State::Blocked { pc, sp })
}

#[cfg(test)]
mod tests {
    use std::hint::spin_loop;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;
    use crate::thread_stack::linux::watch::current_tid;

    #[test]
    fn lines_of_the_kernel_are_read() {
        assert_eq!(parse("running\n"), Some(State::Running));
        let blocked = State::Blocked { pc: 0x7f12, sp: 0x7ffc };
        assert_eq!(parse("0 0x3 0x7f 0x2000 0x0 0x0 0x0 0x7ffc 0x7f12\n"), Some(blocked));
        assert_eq!(parse("-1 0x7ffc 0x7f12\n"), Some(blocked));
        for bad in ["", "run", "0x", "1 2 3", "-1 0x7ffc 7f12"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_thread_that_blocks_is_told_from_one_that_runs() {
        let (tid, runs) = (AtomicI32::new(0), AtomicBool::new(true));
        let (wake, woken) = channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| {
                tid.store(current_tid(), Ordering::Release);
                while runs.load(Ordering::Relaxed) {
                    spin_loop();
                }
                let woken = woken;
                assert!(woken.recv().is_err());
            });
            while tid.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            let activity = Activity::of(tid.load(Ordering::Relaxed));
            if activity.state() == State::Unknown {
                // Not to be had here, under emulation say.
                runs.store(false, Ordering::Relaxed);
                drop(wake);
                return;
            }
            assert_eq!(activity.state(), State::Running);
            let before = activity.cpu_time().unwrap();
            while activity.cpu_time().unwrap() == before {
                thread::yield_now();
            }
            runs.store(false, Ordering::Relaxed);
            // Blocked, and for good.
            while !matches!(activity.state(), State::Blocked { .. }) {
                thread::yield_now();
            }
            let blocked = activity.cpu_time();
            assert!(blocked.is_some() && activity.cpu_time() == blocked);
            drop(wake);
        });
    }

    #[test]
    fn a_thread_that_has_ended_tells_nothing() {
        let activity = Activity::of(thread::spawn(current_tid).join().unwrap());
        // It is joined a moment before it is gone.
        while activity.cpu_time().is_some() {
            thread::yield_now();
        }
        assert_eq!(activity.state(), State::Unknown);
    }
}
