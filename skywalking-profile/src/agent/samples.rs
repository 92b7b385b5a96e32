//! The samples of one poll, and what they make of its time.

use std::cmp::Ordering;
use std::mem;

use super::stacks::{Addresses, Stacks};
use super::track::{Stretch, What};
use crate::stack::CUT;
use crate::thread_stack::SampledStack;

/// Stacks in a row of one poll that are kept. Of a poll with more, half of them go.
const MOST_KEPT: usize = 4_000;

/// A poll and its samples so far.
#[derive(Debug)]
pub(super) struct OpenPoll {
    from: u64,
    /// In time order, neighbours with different stacks.
    samples: Vec<Sampled>,
}

/// One or more samples in a row of one stack.
#[derive(Debug)]
struct Sampled {
    first: u64,
    last: u64,
    /// `None`: unknown.
    addresses: Option<Addresses>,
}

impl Sampled {
    fn lasts(&self) -> u64 {
        self.last - self.first
    }
}

impl OpenPoll {
    pub(super) fn new(from: u64) -> Self {
        Self { from, samples: Vec::new() }
    }

    pub(super) fn from(&self) -> u64 {
        self.from
    }

    /// Whether nothing is known of it.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Whether the stack is cut.
    pub(super) fn add(&mut self, from: u64, at: u64, stack: SampledStack, stacks: &mut Stacks) -> bool {
        let last = self.samples.last_mut().filter(|last| last.last <= at);
        let addresses = match (stack, &last) {
            (SampledStack::Copied(image), _) => Some(stacks.unwind(&image)),
            (SampledStack::Unchanged, Some(last)) => last.addresses.clone(),
            (SampledStack::Unchanged, None) => return false,
            (SampledStack::Unknown, _) => None,
        };
        let is_cut = addresses.as_ref().is_some_and(|addresses| addresses.first() == Some(&CUT));
        self.add_stack(from, at, addresses);
        is_cut
    }

    fn add_stack(&mut self, from: u64, at: u64, addresses: Option<Addresses>) {
        match self.samples.last_mut() {
            Some(last) if at < last.last => {}
            Some(last) if last.addresses == addresses => last.last = at,
            last => {
                let first = last.map_or(from, |last| from.max(last.last));
                self.samples.push(Sampled { first, last: at, addresses });
            }
        }
        if self.samples.len() > MOST_KEPT {
            self.thin();
        }
    }

    /// Of each two neighbours one goes: the shorter, or, of two that were each seen once, either. What takes turns would
    /// otherwise lose one side of it.
    fn thin(&mut self) {
        // That the thread is there still may come to be known of this one.
        let newest = self.samples.pop();
        let mut samples = mem::take(&mut self.samples).into_iter();
        while let Some(first) = samples.next() {
            let second = samples.next().filter(|second| match second.lasts().cmp(&first.lasts()) {
                Ordering::Less => false,
                // As good as a coin: the highest bit of Fibonacci hashing.
                Ordering::Equal => first.first.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1,
                Ordering::Greater => true,
            });
            self.samples.push(second.unwrap_or(first));
        }
        self.samples.extend(newest);
    }

    /// The time of the poll, which lasted until `to`, divided between its samples: at the midpoints between them.
    pub(super) fn stretches(self, to: u64) -> impl Iterator<Item = Stretch> {
        let mut from = self.from;
        let mut samples = self.samples.into_iter().peekable();
        std::iter::from_fn(move || {
            let sample = samples.next()?;
            let until = samples.peek().map_or(to, |next| sample.last.midpoint(next.first)).clamp(from, to);
            let stretch = Stretch { from, to: until, what: What::Ran(sample.addresses) };
            from = until;
            Some(stretch)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(samples: &[(u64, u64)]) -> OpenPoll {
        let mut poll = OpenPoll::new(100);
        for (at, address) in samples {
            poll.add_stack(*at, *at, Some([*address].into()));
        }
        poll
    }

    #[track_caller]
    fn divides(samples: &[(u64, u64)], expected: &[(u64, u64, u64)]) {
        let stretches = poll(samples).stretches(200).map(|stretch| {
            let What::Ran(Some(addresses)) = stretch.what else { panic!("{stretch:?}") };
            (stretch.from, stretch.to, addresses[0])
        });
        assert_eq!(stretches.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_poll_is_divided_at_the_midpoints() {
        divides(&[(110, 1), (120, 1), (140, 2), (180, 1)], &[(100, 130, 1), (130, 160, 2), (160, 200, 1)]);
        divides(&[(150, 1)], &[(100, 200, 1)]);
    }

    #[test]
    fn a_thread_that_answers_late_was_there_all_the_while() {
        let mut poll = poll(&[(110, 1)]);
        poll.add_stack(120, 160, Some([2].into()));
        poll.add_stack(150, 180, Some([3].into()));
        let edges: Vec<_> = poll.stretches(200).map(|stretch| (stretch.from, stretch.to)).collect();
        assert_eq!(edges, [(100, 115), (115, 160), (160, 200)]);
    }

    #[test]
    fn samples_beyond_its_end_do_not_make_it_longer() {
        divides(&[(150, 1), (290, 2)], &[(100, 200, 1), (200, 200, 2)]);
        divides(&[(190, 1), (110, 2), (195, 3)], &[(100, 192, 1), (192, 200, 3)]);
    }

    #[test]
    fn what_is_unknown_is_not_given_to_its_neighbours() {
        let mut poll = poll(&[(110, 1)]);
        poll.add_stack(120, 180, None);
        poll.add_stack(190, 190, Some([2].into()));
        let stretches = poll.stretches(200).map(|stretch| {
            let What::Ran(addresses) = stretch.what else { panic!("{stretch:?}") };
            (stretch.from, stretch.to, addresses.map(|addresses| addresses[0]))
        });
        assert_eq!(stretches.collect::<Vec<_>>(), [(100, 115, Some(1)), (115, 185, None), (185, 200, Some(2))]);
    }

    #[test]
    fn the_samples_of_an_endless_poll_are_thinned_evenly() {
        let samples: Vec<_> = (0..10 * MOST_KEPT as u64).map(|i| (100 + i, i % 2 + i / 1_000)).collect();
        let poll = poll(&samples);
        assert!(poll.samples.len() <= MOST_KEPT, "{}", poll.samples.len());
        assert!(poll.samples.len() > MOST_KEPT / 4, "{}", poll.samples.len());
        let last = poll.samples.last().and_then(|sample| sample.addresses.as_ref());
        assert!(last.is_some_and(|last| last[0] >= 39));
    }

    #[test]
    fn what_takes_turns_in_an_endless_poll_keeps_its_share() {
        let shares = |blocked: u64, computed: u64| {
            let (mut poll, mut at) = (OpenPoll::new(0), 0);
            for _ in 0..4 * MOST_KEPT {
                for (address, ticks) in [(0, blocked), (1, computed)] {
                    for _ in 0..ticks {
                        at += 1_927_000;
                        poll.add_stack(at, at, Some([address].into()));
                    }
                }
            }
            let mut shares = [0, 0];
            for stretch in poll.stretches(at) {
                let What::Ran(Some(addresses)) = &stretch.what else { panic!("{stretch:?}") };
                shares[addresses[0] as usize] += stretch.to - stretch.from;
            }
            assert_eq!(shares[0] + shares[1], at);
            shares[0] as f64 / at as f64
        };
        assert!((0.4..=0.6).contains(&shares(1, 1)), "{}", shares(1, 1));
        assert!(shares(50, 1) > 0.9 && shares(1, 50) < 0.1, "{} {}", shares(50, 1), shares(1, 50));
    }
}
