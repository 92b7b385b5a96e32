//! The request's side: a poll that samplers can see.

use std::sync::atomic::Ordering;

use super::thread::{Copy, Polled, Thread};
use crate::stack::{Image, PollFrame};
use crate::thread_stack::{SampledStack, Sampling, ThreadSample};

thread_local! {
    /// This thread's record.
    static OWN: Own = Own(Thread::take(current_tid()));
}

struct Own(Option<&'static Thread>);

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(thread) = self.0 {
            thread.release();
        }
    }
}

/// Runs `run`, a poll of `request` that begins at `since`, where `sampling` sees it. A sample that nobody has taken by its
/// end is handed to `deliver`.
///
/// The first call on a thread allocates the thread's record.
#[inline(never)]
pub(crate) fn watch<R>(
    sampling: &Sampling,
    strand: u64,
    since: u64,
    deliver: impl Fn(ThreadSample),
    run: impl FnOnce() -> R,
) -> R {
    if !sampling.is_wanted() {
        return run();
    }
    // Without a record, at the very end of a thread say, the poll is not seen.
    let thread = OWN.try_with(|own| own.0).ok().flatten();
    let (Some(thread), Some(frame)) = (thread, PollFrame::here()) else { return run() };
    // The stacks of a poll around this one have this one's functions, too; without, it would lack this time.
    if thread.polled().is_some() {
        return run();
    }
    let polled = Polled { sampler: sampling.id(), strand, since, frame };
    let _watched = Watched { thread, sampling, deliver };
    thread.set_polled(Some(polled));
    sampling.wake();
    run()
}

/// Ends with the poll, also when that panics.
struct Watched<'a, D: Fn(ThreadSample)> {
    thread: &'static Thread,
    sampling: &'a Sampling,
    deliver: D,
}

impl<D: Fn(ThreadSample)> Drop for Watched<'_, D> {
    fn drop(&mut self) {
        self.thread.set_polled(None);
        // From here on a signal finds that this poll is over.
        if let Some(sample) = taken(self.thread, self.sampling) {
            (self.deliver)(sample);
        }
    }
}

/// The sample that a signal left in the thread's record, if it is for this sampler.
pub(super) fn taken(thread: &Thread, sampling: &Sampling) -> Option<ThreadSample> {
    thread.copy.take(|copy: &mut Copy| {
        let polled = copy.polled.take().filter(|polled| polled.sampler == sampling.id());
        let sample = polled.and_then(|polled| {
            let mut bytes = Vec::new();
            bytes.try_reserve_exact(copy.bytes.len()).ok()?;
            bytes.extend_from_slice(&copy.bytes);
            let stack = SampledStack::Copied(Image::of_copy(copy.registers, bytes, &polled.frame)?);
            let from = thread.asked.load(Ordering::Relaxed).clamp(polled.since.min(copy.at), copy.at);
            Some(ThreadSample { strand: polled.strand, since: polled.since, from, at: copy.at, stack })
        });
        // They may hold secrets of the application.
        copy.bytes.fill(0);
        copy.bytes.clear();
        // There was no room for it.
        let is_lost = polled.is_some() && sample.is_none();
        sampling.losses.ticks.fetch_add(is_lost.into(), Ordering::Relaxed);
        sample
    })?
}

pub(super) fn current_tid() -> i32 {
    // SAFETY: reads a number.
    #[expect(unsafe_code, reason = "gettid, which older C libraries lack")]
    let tid = unsafe { libc::syscall(libc::SYS_gettid) };
    i32::try_from(tid).unwrap_or_default()
}
