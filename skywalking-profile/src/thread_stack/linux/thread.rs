//! What samplers know of a thread: whom it polls, and the copy of its stack that a signal made.
//!
//! A record is taken by a thread when it first polls a followed request and given back when the thread ends, for another
//! one to take. Records are never freed: a signal that comes late carries the address of one.

use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use crate::stack::{LONGEST_COPY, PollFrame, Registers};
use crate::thread_stack::mailbox::Mailbox;

/// The record of a thread, or, while `tid` is 0, of none.
pub(super) struct Thread {
    tid: AtomicI32,
    polled: Published,
    pub(super) copy: Mailbox<Copy>,
    /// When the copy was last asked for, by [`clock::now`](crate::clock::now).
    pub(super) asked: AtomicU64,
    /// System calls that a signal made fail with EINTR, as it was sent while they were being entered, since they were last
    /// counted.
    pub(super) interrupted_calls: AtomicU64,
    /// The record that was made before this one; not changed once this one can be found.
    older: *const Self,
}

// SAFETY: `older` points to a record, which is `Sync` but for this pointer, is never freed, and is never written through.
#[expect(unsafe_code, reason = "a list of records that live for ever")]
unsafe impl Sync for Thread {}

/// Whom a thread polls at the moment, for which sampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Polled {
    pub(super) sampler: u64,
    pub(super) strand: u64,
    /// When the poll began, by [`clock::now`](crate::clock::now).
    pub(super) since: u64,
    pub(super) frame: PollFrame,
}

/// Registers and stack of a thread that was signalled.
pub(super) struct Copy {
    pub(super) polled: Option<Polled>,
    /// By [`clock::now`](crate::clock::now).
    pub(super) at: u64,
    pub(super) registers: Registers,
    /// Has its capacity from the beginning, so that the handler need not allocate.
    pub(super) bytes: Vec<u8>,
}

/// The newest record.
static NEWEST: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());

/// All records there are. Async-signal-safe.
pub(super) fn threads() -> impl Iterator<Item = &'static Thread> {
    let mut next: *const Thread = NEWEST.load(Ordering::Acquire);
    std::iter::from_fn(move || {
        // SAFETY: null, or a record that was leaked before it was published here or as the next one's `older`.
        #[expect(unsafe_code, reason = "a list of records that live for ever")]
        let thread = unsafe { next.as_ref() }?;
        next = thread.older;
        Some(thread)
    })
}

impl Thread {
    /// A record for the thread `tid`, until it is [released](Self::release). `None` if there is no memory for one.
    pub(super) fn take(tid: i32) -> Option<&'static Self> {
        let take = |thread: &&Self| thread.tid.compare_exchange(0, tid, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        threads().find(take).or_else(|| Self::make(tid))
    }

    fn make(tid: i32) -> Option<&'static Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(LONGEST_COPY).ok()?;
        let copy = Copy { polled: None, at: 0, registers: Registers::default(), bytes };
        let thread = Box::leak(Box::new(Self {
            tid: AtomicI32::new(tid),
            polled: Published::default(),
            copy: Mailbox::new(copy),
            asked: AtomicU64::new(0),
            interrupted_calls: AtomicU64::new(0),
            older: ptr::null(),
        }));
        let newest = ptr::from_mut(thread);
        let mut older = NEWEST.load(Ordering::Acquire);
        loop {
            // SAFETY: until the exchange succeeds nobody else knows of the record.
            #[expect(unsafe_code, reason = "a list of records that live for ever")]
            let record = unsafe { &mut *newest };
            record.older = older;
            match NEWEST.compare_exchange_weak(older, newest, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(newer) => older = newer,
            }
        }
        // SAFETY: leaked above, and only shared from here on.
        #[expect(unsafe_code, reason = "a list of records that live for ever")]
        Some(unsafe { &*newest })
    }

    /// Its thread ends.
    pub(super) fn release(&self) {
        self.set_polled(None);
        self.tid.store(0, Ordering::Release);
    }

    /// 0 if no thread has it.
    pub(super) fn tid(&self) -> i32 {
        self.tid.load(Ordering::Acquire)
    }

    /// Whom its thread polls at the moment; `None` also while that changes. Async-signal-safe.
    pub(super) fn polled(&self) -> Option<Polled> {
        self.polled.read()
    }

    /// Only its own thread may call this.
    pub(super) fn set_polled(&self, polled: Option<Polled>) {
        self.polled.write(polled);
    }
}

/// A [`Polled`] that its thread writes and any thread reads, without either waiting: a sequence lock.
#[derive(Default)]
struct Published {
    /// Odd while the rest is being written.
    version: AtomicU64,
    sampler: AtomicU64,
    strand: AtomicU64,
    since: AtomicU64,
    stack_low: AtomicUsize,
    /// 0: nobody.
    frame: AtomicUsize,
}

impl Published {
    fn write(&self, polled: Option<Polled>) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // Who sees one of the stores below sees the odd version, or a later one.
        fence(Ordering::Release);
        if let Some(polled) = polled {
            self.sampler.store(polled.sampler, Ordering::Relaxed);
            self.strand.store(polled.strand, Ordering::Relaxed);
            self.since.store(polled.since, Ordering::Relaxed);
            self.stack_low.store(polled.frame.stack_low, Ordering::Relaxed);
        }
        self.frame.store(polled.map_or(0, |polled| polled.frame.sp), Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    fn read(&self) -> Option<Polled> {
        let version = self.version.load(Ordering::Acquire);
        let polled = Polled {
            sampler: self.sampler.load(Ordering::Relaxed),
            strand: self.strand.load(Ordering::Relaxed),
            since: self.since.load(Ordering::Relaxed),
            frame: PollFrame {
                stack_low: self.stack_low.load(Ordering::Relaxed),
                sp: self.frame.load(Ordering::Relaxed),
            },
        };
        fence(Ordering::Acquire);
        let is_whole = version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version;
        (is_whole && polled.frame.sp != 0).then_some(polled)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    fn polled(i: u64) -> Polled {
        let frame = PollFrame { stack_low: i as usize, sp: i as usize };
        Polled { sampler: i, strand: i, since: i, frame }
    }

    #[test]
    fn what_is_read_was_written_together() {
        let (published, done) = (Published::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                (1..200_000).for_each(|i| published.write((i % 5 > 0).then(|| polled(i))));
                done.store(true, Ordering::Release);
            });
            while !done.load(Ordering::Acquire) {
                if let Some(read) = published.read() {
                    assert_eq!(read, polled(read.strand));
                }
            }
        });
        published.write(None);
        assert_eq!(published.read(), None);
    }

    #[test]
    fn a_record_that_was_given_back_is_taken_again() {
        // More than there are processes: nobody's.
        const NOBODY: i32 = i32::MAX;
        let first = Thread::take(NOBODY).unwrap();
        first.set_polled(Some(polled(1)));
        assert!(threads().any(|thread| ptr::eq(thread, first)));
        first.release();
        assert_eq!((first.tid(), first.polled()), (0, None));
        let second = Thread::take(NOBODY).unwrap();
        // Another test's thread may have been faster.
        assert!(threads().any(|thread| ptr::eq(thread, second)));
        second.release();
    }
}
