//! One value on its way from a signal handler to whoever takes it.
//!
//! The sampler asks for a value, the handler that answers fills it in, and then the sampler or the thread that the handler
//! ran on takes it. Each step is one compare-and-swap of the state, by which its maker gets the content for itself: from
//! `ASKED` to `FILLING` the handler does, from `FULL` to `TAKING` the taker. Whoever comes second does without: nobody
//! waits, and a late answer, to a question that was withdrawn and asked again, is as good as the right one.
#![expect(unsafe_code, reason = "a cell that several threads take turns with")]

use std::cell::UnsafeCell;

use crate::sync::{AtomicU64, Ordering};

pub(super) struct Mailbox<T> {
    state: AtomicU64,
    content: UnsafeCell<T>,
}

/// Nobody waits for a value.
const FREE: u64 = 0;
/// The sampler waits for one.
const ASKED: u64 = 1;
/// The content is the handler's.
const FILLING: u64 = 2;
/// There is a value.
const FULL: u64 = 3;
/// The content is the taker's.
const TAKING: u64 = 4;

// SAFETY: the content is touched by one side at a time, as the module's header shows, and handed over by an acquiring
// compare-and-swap of a state that was stored with release.
unsafe impl<T: Send> Sync for Mailbox<T> {}

impl<T> Mailbox<T> {
    pub(super) fn new(content: T) -> Self {
        Self { state: AtomicU64::new(FREE), content: UnsafeCell::new(content) }
    }

    /// Asks for a value; false if one was asked for already, or is there.
    pub(super) fn ask(&self) -> bool {
        self.step(FREE, ASKED)
    }

    /// Gives up on what was asked for; false if the answer has come or is coming.
    pub(super) fn withdraw(&self) -> bool {
        self.step(ASKED, FREE)
    }

    /// Answers by `fill`, if it was asked; without an answer if that returns false. Async-signal-safe if `fill` is.
    pub(super) fn fill(&self, fill: impl FnOnce(&mut T) -> bool) {
        if self.step(ASKED, FILLING) {
            // SAFETY: in this state the content is ours alone.
            let is_full = fill(unsafe { &mut *self.content.get() });
            self.state.store(if is_full { FULL } else { FREE }, Ordering::Release);
        }
    }

    /// Takes the value by `take`, if there is one.
    pub(super) fn take<R>(&self, take: impl FnOnce(&mut T) -> R) -> Option<R> {
        // Most of the time there is none.
        if self.state.load(Ordering::Relaxed) != FULL || !self.step(FULL, TAKING) {
            return None;
        }
        // SAFETY: in this state the content is ours alone.
        let taken = take(unsafe { &mut *self.content.get() });
        self.state.store(FREE, Ordering::Release);
        Some(taken)
    }

    fn step(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, not(skywalking_profile_loom)))]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    #[test]
    fn only_what_was_asked_for_is_filled_and_taken_once() {
        let mailbox = Mailbox::new(0);
        let fill = |value| mailbox.fill(|content| std::mem::replace(content, value) != value);
        fill(1);
        assert_eq!(mailbox.take(|content| *content), None);
        assert!(mailbox.ask() && !mailbox.ask());
        fill(2);
        fill(3);
        assert!(!mailbox.withdraw() && !mailbox.ask());
        assert_eq!(mailbox.take(|content| *content), Some(2));
        assert_eq!(mailbox.take(|content| *content), None);
        assert!(mailbox.ask() && mailbox.withdraw());
        fill(4);
        assert_eq!(mailbox.take(|content| *content), None);
        assert!(mailbox.ask());
        mailbox.fill(|_| false);
        assert!(mailbox.ask(), "without an answer it can be asked again");
    }

    #[test]
    fn every_answer_is_taken_by_one_side() {
        const ANSWERS: u64 = if cfg!(miri) { 100 } else { 100_000 };
        let (mailbox, done) = (Mailbox::new((0_u64, 0_u64)), AtomicBool::new(false));
        let taken = |content: &mut (u64, u64)| {
            assert_eq!(content.0, content.1);
            1
        };
        let counts = thread::scope(|scope| {
            let sampler = scope.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Acquire) {
                    mailbox.ask();
                    count += mailbox.take(taken).unwrap_or_default();
                    thread::yield_now();
                }
                count
            });
            let (mut answers, mut count) = (0, 0);
            while answers < ANSWERS {
                mailbox.fill(|content| {
                    answers += 1;
                    *content = (answers, answers);
                    true
                });
                if answers % 2 == 0 {
                    count += mailbox.take(taken).unwrap_or_default();
                }
            }
            done.store(true, Ordering::Release);
            count + sampler.join().unwrap()
        });
        let left = mailbox.take(taken).unwrap_or_default();
        assert_eq!(counts + left, ANSWERS);
    }
}

/// All interleavings of a sampler, a handler and the thread that it runs on, with all that the memory model lets them see.
#[cfg(all(test, skywalking_profile_loom))]
mod model {
    use loom::cell::Cell;
    use loom::sync::Arc;
    use loom::{model, thread};

    use super::*;

    #[test]
    fn the_content_is_one_sides_at_a_time() {
        model(|| {
            // Loom reports a read of the cell that may not see a write.
            let mailbox = Arc::new(Mailbox::new(Cell::new(0)));
            let polling = thread::spawn({
                let mailbox = Arc::clone(&mailbox);
                move || {
                    for answer in 1..=2 {
                        mailbox.fill(|content| {
                            content.set(answer);
                            true
                        });
                    }
                    mailbox.take(|content| content.get())
                }
            });
            let mut answers = Vec::new();
            for _ in 0..2 {
                mailbox.ask();
                answers.extend(mailbox.take(|content| content.get()));
                mailbox.withdraw();
            }
            answers.extend(polling.join().unwrap());
            answers.extend(mailbox.take(|content| content.get()));
            assert!(answers.iter().all(|answer| (1..=2).contains(answer)) && answers.len() <= 2);
        });
    }
}
