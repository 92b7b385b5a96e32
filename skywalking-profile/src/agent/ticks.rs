//! When threads are sampled: as long as a task is active, as often as its dump period demands.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::warn;

use crate::TARGET;
use crate::config::{SHORTEST_TICK, Sampling};
use crate::request::{Event, Events};
use crate::stack::SUPPORTED;
use crate::thread_stack::{Sampler, SamplingLosses, install};

/// Nobody waits longer for the next one, and no instant lies too far ahead to be told.
const LONGEST_TICK: Duration = Duration::from_secs(60 * 60);

/// A tick is this part of the dump period.
const TICKS_IN_A_PERIOD: u32 = 5;

/// Starts and stops the sampler.
#[derive(Debug)]
pub(super) struct Ticks {
    settings: Sampling,
    events: Events,
    sampler: Option<Sampler>,
}

impl Ticks {
    pub(super) fn new(settings: Sampling, events: Events) -> Self {
        Self { settings, events, sampler: None }
    }

    pub(super) fn settings(&self) -> Sampling {
        self.settings
    }

    /// Samples for tasks with these dump periods from now on.
    pub(super) fn sample_for(&mut self, dump_periods: impl Iterator<Item = Duration>) {
        // Starting anew looks after the signal: something else may have taken it meanwhile.
        self.sampler = None;
        let Some(shortest) = dump_periods.min() else { return };
        if !self.settings.running || !SUPPORTED {
            return;
        }
        let tick = tick(self.settings.tick, shortest);
        let signal = install(self.settings.signal).inspect_err(|error| {
            warn!(target: TARGET, "what runs is not sampled, only what blocks: {error}");
        });
        let events = self.events.clone();
        let deliver = move |sample| events.send(Event::Sampled(sample));
        self.sampler = Sampler::start(self.events.sampling(), tick, signal.ok(), deliver)
            .inspect_err(|error| warn!(target: TARGET, %error, "cannot start the thread that samples thread stacks"))
            .ok();
    }

    /// What a sample is lost in.
    pub(super) fn losses(&self) -> &SamplingLosses {
        &self.events.sampling().losses
    }

    /// A sample came to nothing.
    pub(super) fn lose(&self) {
        self.losses().ticks.fetch_add(1, Ordering::Relaxed);
    }
}

fn tick(wanted: Option<Duration>, dump_period: Duration) -> Duration {
    wanted.unwrap_or(dump_period / TICKS_IN_A_PERIOD).clamp(SHORTEST_TICK, LONGEST_TICK)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_tick_is_a_fifth_of_the_dump_period_within_bounds() {
        let ms = Duration::from_millis;
        assert_eq!(tick(None, ms(10)), ms(2));
        assert_eq!(tick(None, ms(1)), ms(1));
        assert_eq!(tick(Some(ms(7)), ms(1)), ms(7));
        for longest in [tick(None, Duration::MAX), tick(Some(Duration::MAX), ms(10))] {
            assert!(Instant::now().checked_add(longest).is_some(), "{longest:?}");
        }
    }
}
