//! The tick: one thread that looks at whoever polls followed requests, as long as a task is active.

use std::collections::HashMap;
use std::ffi::c_int;
use std::io;
use std::ptr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::warn;

use super::activity::{Activity, State};
use super::signal;
use super::thread::{Polled, Thread, threads};
use super::watch::{current_tid, taken};
use crate::stack::{Image, LONGEST_COPY, Memory, Registers};
use crate::thread_stack::{SampledStack, Sampling, ThreadSample};
use crate::{TARGET, clock};

/// What a tick is shortened to. Whole milliseconds would keep step with the application's timers, and each tick would meet
/// the same part of what they start.
const OF_A_TICK: f64 = 0.9635;

/// Ticks without anybody to look at, before the sampler falls asleep.
const IDLE_TICKS: u32 = 50;

/// A thread that has run for so long, in nanoseconds of processor time, without answering a signal will not answer it.
const ANSWER_WITHIN: u64 = 20_000_000;

/// A thread that did not answer so many signals in a row blocks them: it is sent no more.
const MOST_UNANSWERED: u32 = 3;

/// That a thread is where it was is told so often, and when it has gone on: the queue is also that of the waits.
const UNTOLD: u64 = 50_000_000;

/// Threads whose files are held open, though they may not be polling at the moment.
const MOST_KNOWN: usize = 64;

/// The sampler's thread. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Arc<Sampling>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Starts it, to look once a `tick`; without `signal` threads that run are not sampled. Samples go to `deliver`, which says whether there was
    /// room for them.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(
        sampling: &Arc<Sampling>,
        tick: Duration,
        signal: Option<c_int>,
        deliver: impl Fn(ThreadSample) -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let sampling = Arc::clone(sampling);
        let mut rounds = Rounds {
            sampling: Arc::clone(&sampling),
            tick: tick.mul_f64(OF_A_TICK),
            signal,
            memory: Memory::open(),
            known: HashMap::new(),
            deliver,
        };
        sampling.set_on(true);
        match thread::Builder::new().name("sw-profile-tick".to_owned()).spawn(move || rounds.run()) {
            Ok(thread) => Ok(Self { sampling, thread: Some(thread) }),
            Err(error) => {
                sampling.set_on(false);
                Err(error)
            }
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.sampling.set_on(false);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's state.
struct Rounds<D> {
    sampling: Arc<Sampling>,
    tick: Duration,
    signal: Option<c_int>,
    memory: Memory,
    /// By the addresses of the threads' records.
    known: HashMap<usize, Known>,
    deliver: D,
}

/// What was seen of a thread at the last look.
struct Known {
    activity: Activity,
    polled: Option<Polled>,
    cpu_time: Option<u64>,
    /// It was blocked at that processor time, and its stack was copied.
    is_copied: bool,
    /// When it was last seen to be there still, if that is not told.
    unchanged: Option<u64>,
    /// When that was told last.
    told: u64,
    /// Its processor time when it was signalled, by another sampler perhaps, if the answer is not known to have come.
    signalled: Option<u64>,
    /// Signals in a row that it did not answer.
    unanswered: u32,
}

impl<D: Fn(ThreadSample) -> bool> Rounds<D> {
    fn run(&mut self) {
        go_first();
        let own = Activity::of(current_tid());
        let mut idle = 0;
        let mut due = Instant::now() + self.tick;
        while self.sampling.is_on() {
            if idle == IDLE_TICKS {
                self.known.clear();
                self.sampling.sleep(|| self.polling().next().is_some());
                (idle, due) = (0, Instant::now() + self.tick);
                continue;
            }
            if !self.sampling.wait_until(due) {
                continue;
            }
            let start = own.cpu_time().unwrap_or_default();
            let is_busy = self.look();
            idle = if is_busy { 0 } else { idle + 1 };
            due += self.tick;
            // However many threads there are, it takes half of a processor at most.
            let took = own.cpu_time().unwrap_or_default().saturating_sub(start);
            let rested = Instant::now() + Duration::from_nanos(took);
            while due < rested {
                due += self.tick;
                self.lose_tick(is_busy);
            }
        }
        self.count_interrupted();
    }

    /// The threads that poll requests of this sampler.
    fn polling(&self) -> impl Iterator<Item = (&'static Thread, Polled)> + use<D> {
        let id = self.sampling.id();
        threads().filter_map(move |thread| Some((thread, thread.polled().filter(|polled| polled.sampler == id)?)))
    }

    fn count_interrupted(&self) {
        let calls = threads().map(|thread| thread.interrupted_calls.swap(0, Ordering::Relaxed)).sum();
        self.sampling.losses.calls.fetch_add(calls, Ordering::Relaxed);
    }

    /// Whether there was anybody to look at.
    fn look(&mut self) -> bool {
        self.count_interrupted();
        let mut is_busy = false;
        for (thread, polled) in self.polling() {
            is_busy = true;
            let (record, tid) = (ptr::from_ref(thread).addr(), thread.tid());
            let known = self.known.remove(&record).filter(|known| known.activity.tid() == tid);
            let mut known = known.unwrap_or_else(|| Known::of(tid));
            self.look_at(thread, polled, &mut known);
            self.known.insert(record, known);
        }
        if self.known.len() > MOST_KNOWN {
            let polling: Vec<_> = self.polling().map(|(thread, _)| ptr::from_ref(thread).addr()).collect();
            self.known.retain(|record, _| polling.contains(record));
        }
        is_busy
    }

    fn look_at(&mut self, thread: &'static Thread, polled: Polled, known: &mut Known) {
        if let Some(sample) = taken(thread, &self.sampling) {
            self.deliver(sample);
        }
        let Some(cpu_time) = known.activity.cpu_time() else { return };
        let last = known.cpu_time.replace(cpu_time);
        let is_same_poll = known.polled.replace(polled) == Some(polled);
        let is_unchanged = is_same_poll && known.is_copied && last == Some(cpu_time);
        let now = clock::now();
        if is_unchanged {
            known.unchanged = Some(now);
        }
        let is_due = !is_unchanged || now.saturating_sub(known.told) >= UNTOLD;
        if let Some(at) = known.unchanged.take_if(|_| is_due)
            && is_same_poll
        {
            known.told = at;
            self.tell(polled, at, at, SampledStack::Unchanged);
        }
        if is_unchanged {
            return;
        }
        known.is_copied = false;
        match known.activity.state() {
            State::Blocked { pc, sp } => {
                let image = self.copy(&polled, pc, sp);
                // Else it has run meanwhile, and the copy may be of two stacks.
                let is_of_one = known.activity.cpu_time() == Some(cpu_time) && thread.polled() == Some(polled);
                match image.filter(|_| is_of_one) {
                    // One that is lost is not what the next one is like.
                    Some(image) => {
                        let now = clock::now();
                        known.is_copied = self.tell(polled, now, now, SampledStack::Copied(image));
                    }
                    None => self.lose_tick(true),
                }
            }
            State::Running => self.signal(thread, polled, known, cpu_time),
            // It may well be blocked, unless it has run for a good part of the tick: in this poll, as it was at the last one.
            State::Unknown => {
                let ran = last.filter(|_| is_same_poll).map_or(0, |last| cpu_time.saturating_sub(last));
                if ran >= clock::nanos(self.tick) / 4 {
                    self.signal(thread, polled, known, cpu_time);
                } else {
                    let now = clock::now();
                    self.miss(polled, now, now);
                }
            }
        }
    }

    /// The stack of a thread that is blocked; where it is alone, if that is on another stack.
    fn copy(&self, polled: &Polled, pc: usize, sp: usize) -> Option<Image> {
        let len = polled.frame.distance_from(sp).unwrap_or_default().min(LONGEST_COPY);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).ok()?;
        bytes.resize(len, 0);
        self.memory.read(sp as u64, &mut bytes).ok()?;
        Image::of_copy(Registers::of_blocked(pc, sp), bytes, &polled.frame)
    }

    fn signal(&mut self, thread: &'static Thread, polled: Polled, known: &mut Known, cpu_time: u64) {
        let now = clock::now();
        if let Some(signal) = self.signal.take_if(|signal| !signal::is_ours(*signal)) {
            warn!(
                target: TARGET,
                "something else handles signal {signal} by now: what runs is not sampled before the next task"
            );
        }
        let Some(signal) = self.signal.filter(|_| known.unanswered < MOST_UNANSWERED) else {
            return self.miss(polled, now, now);
        };
        if !thread.copy.ask() {
            // The last one is still under way.
            let signalled = *known.signalled.get_or_insert(cpu_time);
            if cpu_time.saturating_sub(signalled) >= ANSWER_WITHIN && thread.copy.withdraw() {
                known.signalled = None;
                known.unanswered += 1;
                self.sampling.losses.signals.fetch_add(1, Ordering::Relaxed);
                let asked = thread.asked.load(Ordering::Relaxed);
                self.miss(polled, asked.clamp(polled.since.min(now), now), now);
            }
            return self.lose_tick(true);
        }
        thread.asked.store(now, Ordering::Relaxed);
        if known.signalled.take().is_some() {
            known.unanswered = 0;
        }
        // Once more: the fewer are signalled that have gone on to something else, or are entering a system call.
        if thread.polled() != Some(polled) || matches!(known.activity.state(), State::Blocked { .. }) {
            thread.copy.withdraw();
            return;
        }
        known.signalled = Some(cpu_time);
        if let Err(error) = signal::send(signal, thread, known.activity.tid()) {
            known.signalled = None;
            thread.copy.withdraw();
            self.lose_tick(true);
            // Otherwise it has ended, or too many signals are queued for this user.
            if !matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EAGAIN)) {
                self.signal = None;
                self.sampling.refuse();
                static TOLD: Once = Once::new();
                TOLD.call_once(|| {
                    warn!(
                        target: TARGET,
                        %error,
                        "threads cannot be signalled here (rt_tgsigqueueinfo): what runs is not sampled, only what blocks"
                    );
                });
            }
        }
    }

    /// What the poll did from `from` to `at` is not known.
    fn miss(&self, polled: Polled, from: u64, at: u64) {
        self.lose_tick(true);
        self.tell(polled, from, at, SampledStack::Unknown);
    }

    /// Whether there was room for it.
    fn tell(&self, polled: Polled, from: u64, at: u64, stack: SampledStack) -> bool {
        self.deliver(ThreadSample { strand: polled.strand, since: polled.since, from, at, stack })
    }

    fn deliver(&self, sample: ThreadSample) -> bool {
        let has_room = (self.deliver)(sample);
        self.lose_tick(!has_room);
        has_room
    }

    fn lose_tick(&self, is_lost: bool) {
        self.sampling.losses.ticks.fetch_add(is_lost.into(), Ordering::Relaxed);
    }
}

impl Known {
    fn of(tid: i32) -> Self {
        let activity = Activity::of(tid);
        Self {
            activity,
            polled: None,
            cpu_time: None,
            is_copied: false,
            unchanged: None,
            told: 0,
            signalled: None,
            unanswered: 0,
        }
    }
}

/// A tick that comes late tells less. Where privileges allow it, this thread, which runs for microseconds, goes before those
/// that it looks at.
fn go_first() {
    const THIS_THREAD: libc::id_t = 0;
    const NICE: c_int = -10;
    // SAFETY: numbers alone; what is not permitted is left as it is.
    #[expect(unsafe_code, reason = "setpriority")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, THIS_THREAD, NICE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::sync::mpsc::channel;

    use super::super::watch::watch;
    use super::*;

    /// Looks at a thread that blocks until `is_enough`, given the samples so far, which `has_room` takes or refuses.
    fn samples_of_blocked(
        mut has_room: impl FnMut(&SampledStack) -> bool,
        is_enough: impl Fn(&[ThreadSample]) -> bool,
    ) -> Vec<ThreadSample> {
        let (sampling, samples) = (Arc::<Sampling>::default(), RefCell::new(Vec::new()));
        let has_room = RefCell::new(&mut has_room);
        let mut rounds = Rounds {
            sampling: Arc::clone(&sampling),
            tick: Duration::from_millis(1),
            signal: None,
            memory: Memory::open(),
            known: HashMap::new(),
            deliver: |sample: ThreadSample| {
                let has_room = has_room.borrow_mut()(&sample.stack);
                samples.borrow_mut().push(sample);
                has_room
            },
        };
        let (wake, woken) = channel::<()>();
        thread::scope(|scope| {
            let sampling = &sampling;
            scope.spawn(move || watch(sampling, 1, clock::now(), |_| {}, || assert!(woken.recv().is_err())));
            while !is_enough(&samples.borrow()) {
                rounds.look();
                thread::yield_now();
            }
            drop(wake);
        });
        drop(rounds);
        samples.into_inner()
    }

    fn can_be_told() -> bool {
        Activity::of(current_tid()).state() != State::Unknown
    }

    #[test]
    fn what_was_lost_is_not_what_the_next_sample_is_like() {
        if !can_be_told() {
            return;
        }
        let refused = Cell::new(0);
        let has_room = |stack: &SampledStack| {
            let is_refused = matches!(stack, SampledStack::Copied(_)) && refused.replace(refused.get() + 1) < 3;
            !is_refused
        };
        let samples = samples_of_blocked(has_room, |samples| samples.len() >= 4);
        for sample in &samples[..4] {
            assert!(matches!(sample.stack, SampledStack::Copied(_)), "{samples:?}");
        }
    }

    #[test]
    fn that_a_thread_blocks_is_not_told_at_each_look() {
        if !can_be_told() {
            return;
        }
        let start = Instant::now();
        let samples = samples_of_blocked(|_| true, |_| start.elapsed() > Duration::from_millis(300));
        let unchanged = samples.iter().filter(|sample| matches!(sample.stack, SampledStack::Unchanged));
        assert!((1..=8).contains(&unchanged.count()), "{samples:?}");
    }
}
