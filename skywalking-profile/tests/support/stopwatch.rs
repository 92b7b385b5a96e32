//! Measures what a program does, however it ends.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Makes stopwatches, and tells what they measured.
pub(crate) fn stopwatches() -> (Stopwatches, Receiver<(&'static str, Duration)>) {
    let (sender, measured) = channel();
    (Stopwatches(sender), measured)
}

#[derive(Clone, Debug)]
pub(crate) struct Stopwatches(Sender<(&'static str, Duration)>);

impl Stopwatches {
    pub(crate) fn start(&self, what: &'static str) -> Stopwatch {
        Stopwatch { what, start: Instant::now(), measured: self.0.clone() }
    }
}

/// Measures until it is dropped.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    what: &'static str,
    start: Instant,
    measured: Sender<(&'static str, Duration)>,
}

impl Drop for Stopwatch {
    fn drop(&mut self) {
        // A test may be over before what it measures.
        let _ = self.measured.send((self.what, self.start.elapsed()));
    }
}
