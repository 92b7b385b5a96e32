//! The agent's side of one strand: its timeline so far.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::lines::{Lines, Seen, Woken};
use super::samples::OpenPoll;
use super::stacks::{Addresses, Stacks};
use crate::await_tree::{Leaf, LeafToken, Strand};
use crate::request::{OpenWait, Pause, Slot, WaitFor, Wake};
use crate::task::Losses;
use crate::thread_stack::{SampledStack, ThreadSample};
use crate::timeline::LEAST_WAIT_NS;

/// Addresses that are kept for each stretch. What computes is seldom seen at one place twice: most of its samples have a
/// stack of their own.
const ADDRESSES_OF_STRETCH: usize = 20;

/// Leaves that are kept for each stretch.
const LEAVES_OF_STRETCH: usize = 2;

/// A strand that is followed.
#[derive(Debug)]
pub(super) struct Track {
    strand: Arc<Strand>,
    slot: Arc<Slot>,
    pub(super) stretches: Vec<Stretch>,
    pub(super) lines: Lines,
    /// Those of the stacks of samples.
    addresses: usize,
    /// Waits shorter than this are not kept, in nanoseconds.
    least: u64,
    taken: Option<TakenWait>,
    /// The poll that the latest sample was taken in.
    poll: Option<OpenPoll>,
}

/// A stretch of a strand, by [`clock::now`](crate::clock::now).
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) what: What,
}

/// What a strand did for a stretch.
#[derive(Debug)]
pub(super) enum What {
    /// It was being polled, with this stack if there is a sample.
    Ran(Option<Addresses>),
    /// For the leaves that its [`Lines`] tell.
    Awaited,
    /// What it awaited, or something else, had woken it: it waited for a worker.
    Scheduled,
    Paused(Pause),
}

/// A wait whose end the strand will tell.
#[derive(Debug)]
struct TakenWait {
    from: u64,
    what: TakenFor,
}

/// As [`WaitFor`], with its captures unwound.
#[derive(Debug)]
enum TakenFor {
    Leaves(Vec<Unwound>),
    Pause(Pause),
}

/// A leaf with its capture unwound; `None` if there was none.
#[derive(Debug)]
struct Unwound {
    token: Arc<LeafToken>,
    has_yielded: bool,
    addresses: Option<Addresses>,
}

impl Track {
    pub(super) fn new(strand: Arc<Strand>, slot: Arc<Slot>) -> Self {
        Self {
            strand,
            slot,
            stretches: Vec::new(),
            lines: Lines::default(),
            addresses: 0,
            least: LEAST_WAIT_NS,
            taken: None,
            poll: None,
        }
    }

    pub(super) fn ran(&mut self, from: u64, to: u64, losses: &Losses) {
        // It has ended by now; usually that was told.
        self.end_taken_wait(from, from, losses);
        match self.poll.take().filter(|poll| poll.from() == from && !poll.is_empty()) {
            Some(poll) => self.extend(poll.stretches(to)),
            None => self.push(Stretch { from, to, what: What::Ran(None) }),
        }
    }

    /// A sample was taken while the strand was being polled; false if it comes too late.
    pub(super) fn sampled(&mut self, sample: ThreadSample, stacks: &mut Stacks, losses: &Losses) -> bool {
        if self.stretches.last().is_some_and(|last| sample.since < last.to) {
            return false;
        }
        let poll = match &mut self.poll {
            Some(poll) if poll.from() == sample.since => poll,
            poll => poll.insert(OpenPoll::new(sample.since)),
        };
        losses.samples.fetch_add((!matches!(sample.stack, SampledStack::Unknown)).into(), Ordering::Relaxed);
        let is_cut = poll.add(sample.from, sample.at, sample.stack, stacks);
        losses.cut_samples.fetch_add(is_cut.into(), Ordering::Relaxed);
        true
    }

    /// The poll that goes on, if there are samples of it, is taken to end.
    fn end_open_poll(&mut self, to: u64) {
        let is_over = |poll: &OpenPoll| self.stretches.last().is_some_and(|last| poll.from() < last.to);
        if let Some(poll) = self.poll.take().filter(|poll| !is_over(poll)) {
            self.extend(poll.stretches(to));
        }
    }

    /// The strand has told a whole wait: from `ready` on it waited for a worker.
    pub(super) fn waited(&mut self, wait: OpenWait, ready: u64, to: u64, stacks: &mut Stacks, losses: &Losses) {
        self.end_taken_wait(wait.from, wait.from, losses);
        self.take(wait, stacks);
        self.end_taken_wait(ready, to, losses);
    }

    /// Takes the open wait if it began before `before`, so that its images can be freed.
    pub(super) fn take_open_wait(&mut self, before: u64, stacks: &mut Stacks) {
        if self.taken.is_some() {
            return;
        }
        if let Some(wait) = self.slot.take_older(before) {
            self.take(*wait, stacks);
        }
    }

    /// Frees the wait's images.
    fn take(&mut self, wait: OpenWait, stacks: &mut Stacks) {
        let mut unwound = |Leaf { token, has_yielded, capture, .. }: Leaf| Unwound {
            token,
            has_yielded,
            addresses: capture.map(|capture| stacks.addresses(&capture)),
        };
        let what = match wait.what {
            WaitFor::Pause(pause) => TakenFor::Pause(pause),
            WaitFor::Leaves { leaves, untold } => {
                self.lines.untold(&untold);
                TakenFor::Leaves(leaves.into_iter().map(&mut unwound).collect())
            }
        };
        self.taken = Some(TakenWait { from: wait.from, what });
    }

    /// The wait that was taken, if any, has ended, or is taken to: from `ready` on it was for a worker.
    pub(super) fn end_taken_wait(&mut self, ready: u64, to: u64, losses: &Losses) {
        let Some(TakenWait { from, what }) = self.taken.take() else { return };
        let leaves = match what {
            TakenFor::Pause(pause) => return self.push(Stretch { from, to, what: What::Paused(pause) }),
            TakenFor::Leaves(leaves) => leaves,
        };
        if to.saturating_sub(from) < self.least {
            return;
        }
        let has_stack = leaves.iter().any(|leaf| leaf.addresses.is_some());
        losses.stackless.fetch_add((!has_stack).into(), Ordering::Relaxed);
        self.lines.wait(from, to, leaves.into_iter().map(|leaf| seen(leaf, to)).collect());
        let ready = ready.max(from);
        if to.saturating_sub(ready) < self.least {
            return self.push(Stretch { from, to, what: What::Awaited });
        }
        self.push(Stretch { from, to: ready, what: What::Awaited });
        self.push(Stretch { from: ready, to, what: What::Scheduled });
    }

    /// What goes on is shown until `to`.
    pub(super) fn cut(&mut self, to: u64, stacks: &mut Stacks, losses: &Losses) {
        // Also one that began too late, so that its images are freed.
        if let Some(wait) = self.slot.take().filter(|wait| wait.from < to) {
            self.end_taken_wait(wait.from, wait.from, losses);
            self.take(*wait, stacks);
        }
        let woken = self.strand.first_wake.at();
        self.end_taken_wait(woken.unwrap_or(to), to, losses);
        self.end_open_poll(to);
    }

    /// It has told all; its last waits were not told, but ended by these wakes.
    pub(super) fn end(&mut self, untold: &[Wake]) {
        self.lines.untold(untold);
    }

    /// Drops its shortest stretches until there are `most` at most. Those between the samples of a poll are all about as long
    /// as a tick: they are joined before.
    pub(super) fn keep(&mut self, most: usize) {
        while self.stretches.len() > most
            || self.addresses > most * ADDRESSES_OF_STRETCH
            || self.lines.ended() > most * LEAVES_OF_STRETCH
        {
            self.least *= 2;
            let least = self.least;
            self.stretches.dedup_by(|next, stretch| stretch.absorbs(next, least));
            self.stretches.retain(|stretch| stretch.lasts(least));
            self.stretches.shrink_to(most);
            self.lines.keep(least);
            self.addresses = self.stretches.iter().map(Stretch::sampled_addresses).sum();
        }
    }

    /// Whether its side of the strand is gone: its end was told, or lost.
    pub(super) fn has_left(&self) -> bool {
        Arc::strong_count(&self.slot) == 1
    }

    /// Waits shorter than this were not kept, in nanoseconds.
    pub(super) fn least(&self) -> u64 {
        self.least
    }

    /// Adds those of a poll. Where short ones are not kept any more they are joined at once.
    fn extend(&mut self, sampled: impl Iterator<Item = Stretch>) {
        let is_coarse = self.least > LEAST_WAIT_NS;
        for mut next in sampled {
            if !is_coarse || self.stretches.last_mut().is_none_or(|last| !last.absorbs(&mut next, self.least)) {
                self.add(next);
            }
        }
    }

    fn push(&mut self, stretch: Stretch) {
        if stretch.lasts(self.least) {
            self.add(stretch);
        }
    }

    fn add(&mut self, stretch: Stretch) {
        self.addresses += stretch.sampled_addresses();
        self.stretches.push(stretch);
    }
}

impl Stretch {
    /// Whether it is worth showing where waits are from `least` on: polls are from half of that.
    fn lasts(&self, least: u64) -> bool {
        let least = if matches!(self.what, What::Ran(_)) { least / 2 } else { least };
        self.to.saturating_sub(self.from) >= least
    }

    fn sampled_addresses(&self) -> usize {
        if let What::Ran(Some(addresses)) = &self.what { addresses.len() } else { 0 }
    }

    /// Goes on to the end of `next`, as the longer of the two, if both are of the samples of one poll and this one alone is
    /// not worth showing.
    fn absorbs(&mut self, next: &mut Self, least: u64) -> bool {
        let are_sampled = matches!((&self.what, &next.what), (What::Ran(Some(_)), What::Ran(Some(_))));
        if !are_sampled || self.to != next.from || self.lasts(least) {
            return false;
        }
        if next.to - next.from > self.to - self.from {
            mem::swap(&mut self.what, &mut next.what);
        }
        self.to = next.to;
        true
    }
}

/// What is seen of a leaf in a wait that lasted until `to`.
fn seen(Unwound { token, has_yielded, addresses }: Unwound, to: u64) -> Seen {
    let woken = Wake::of(&token).filter(|wake| wake.at <= to).map(|wake| Woken { at: wake.at, by: wake.by });
    Seen { line: token.line(), addresses, woken, has_yielded }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::following::{MOST_STRETCHES, share};
    use crate::await_tree::StrandId;
    use crate::stack::{DEEPEST, Frames};

    const MS: u64 = 1_000_000;

    fn track() -> Track {
        Track::new(Arc::new(Strand::new(StrandId::of_request())), Arc::new(Slot::new()))
    }

    fn waits(track: &mut Track, from: u64, to: u64) {
        waits_until_ready(track, from, to, to);
    }

    fn waits_until_ready(track: &mut Track, from: u64, ready: u64, to: u64) {
        let wait = OpenWait { from, what: WaitFor::Leaves { leaves: Vec::new(), untold: Vec::new() } };
        track.waited(wait, ready, to, &mut Stacks::new(Frames::default()), &Losses::default());
    }

    #[test]
    fn an_endless_request_keeps_its_longest_waits() {
        let (mut track, mut at) = (track(), 0);
        // An hour and more.
        for i in 0..1_000_000 {
            let length = if i % 1_000 == 0 { 100 * MS } else { MS + i % MS };
            waits(&mut track, at, at + length);
            at += length + 1;
            track.keep(share(1));
            assert!(track.stretches.len() <= MOST_STRETCHES);
        }
        assert!(Duration::from_nanos(at) > Duration::from_secs(20 * 60));
        let longest = track.stretches.iter().filter(|stretch| stretch.to - stretch.from == 100 * MS);
        assert_eq!(longest.count(), 1_000);
        assert!(track.least() > LEAST_WAIT_NS, "that short waits are missing is known");
    }

    #[test]
    fn a_wait_is_for_a_worker_from_the_wake_on() {
        splits([(10, 20, 30)], &["awaited 10..20", "scheduled 20..30"]);
        splits([(10, 30, 30)], &["awaited 10..30"]);
        // It was ready before its poll ended, or is said to have been after the next one began.
        splits([(10, 10, 30), (40, 35, 50)], &["scheduled 10..30", "scheduled 40..50"]);
        splits([(10, 35, 30)], &["awaited 10..30"]);
    }

    #[test]
    fn a_part_of_a_wait_is_shown_only_if_it_is_long_enough() {
        let us = 1_000;
        let split = |from, ready, to| {
            let mut track = track();
            waits_until_ready(&mut track, from, ready, to);
            shown(&track, us)
        };
        assert_eq!(split(0, 5_000 * us, 5_999 * us), ["awaited 0..5999"]);
        assert_eq!(split(0, 999 * us, 5_000 * us), ["scheduled 999..5000"]);
        assert_eq!(split(0, 600 * us, 1_200 * us), ["awaited 0..1200"]);
        assert!(split(0, 400 * us, 800 * us).is_empty());
    }

    #[test]
    fn of_a_pause_nothing_is_for_a_worker() {
        let mut track = track();
        let pause = OpenWait { from: 10 * MS, what: WaitFor::Pause(Pause::Peer) };
        track.waited(pause, 20 * MS, 30 * MS, &mut Stacks::new(Frames::default()), &Losses::default());
        assert_eq!(shown(&track, MS), ["paused 10..30"]);
    }

    /// Waits from, ready and until so many milliseconds.
    #[track_caller]
    fn splits<const N: usize>(waits: [(u64, u64, u64); N], expected: &[&str]) {
        let mut track = track();
        for (from, ready, to) in waits {
            waits_until_ready(&mut track, from * MS, ready * MS, to * MS);
        }
        assert_eq!(shown(&track, MS), expected);
    }

    fn shown(track: &Track, unit: u64) -> Vec<String> {
        let shown = |Stretch { from, to, what }: &Stretch| {
            let what = match what {
                What::Ran(_) => "ran",
                What::Awaited => "awaited",
                What::Scheduled => "scheduled",
                What::Paused(_) => "paused",
            };
            format!("{what} {}..{}", from / unit, to / unit)
        };
        track.stretches.iter().map(shown).collect()
    }

    #[test]
    fn what_an_endless_request_computes_keeps_its_time() {
        let mut track = track();
        // A sample at each tick, of one function or the other.
        let mut at = 0;
        for i in 0..10 * MOST_STRETCHES as u64 {
            let to = at + 1_927_000 + i * 7_919 % 1_000;
            track.extend([Stretch { from: at, to, what: What::Ran(Some([i % 2].into())) }].into_iter());
            at = to;
            track.keep(share(1));
            assert!(track.stretches.len() <= MOST_STRETCHES);
        }
        let mut shown = [0, 0];
        for stretch in &track.stretches {
            let What::Ran(Some(addresses)) = &stretch.what else { panic!("{stretch:?}") };
            shown[addresses[0] as usize] += stretch.to - stretch.from;
        }
        assert!(at - (shown[0] + shown[1]) < at / 1_000, "{shown:?} of {at}");
        assert!(shown[0].abs_diff(shown[1]) < at / 10, "{shown:?} of {at}");
    }

    #[test]
    fn stacks_that_are_all_different_are_bounded() {
        let mut track = track();
        for i in 0..4_000 {
            let addresses = (0..DEEPEST as u64).map(|address| i * 1_000 + address).collect();
            track.push(Stretch { from: i * MS, to: (i + 1) * MS, what: What::Ran(Some(addresses)) });
            track.keep(MOST_STRETCHES);
        }
        let kept: usize = track.stretches.iter().map(Stretch::sampled_addresses).sum();
        assert!((1..=MOST_STRETCHES * ADDRESSES_OF_STRETCH).contains(&kept), "{kept}");
    }

    #[test]
    fn a_wait_is_taken_once_it_is_old_and_ends_when_the_request_says_so() {
        let (mut track, mut stacks) = (track(), Stacks::new(Frames::default()));
        let slot = Arc::clone(&track.slot);
        slot.put(5 * MS, Box::new(OpenWait { from: 5 * MS, what: WaitFor::Pause(Pause::Peer) }));
        track.take_open_wait(5 * MS, &mut stacks);
        assert!(track.taken.is_none(), "it is too young");
        track.take_open_wait(6 * MS, &mut stacks);
        assert!(slot.take().is_none());
        track.end_taken_wait(9 * MS, 9 * MS, &Losses::default());
        let [stretch] = &*track.stretches else { panic!("{:?}", track.stretches) };
        assert_eq!((stretch.from, stretch.to), (5 * MS, 9 * MS));
        assert!(matches!(stretch.what, What::Paused(Pause::Peer)));
    }
}
