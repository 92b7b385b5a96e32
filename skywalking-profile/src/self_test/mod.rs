//! What the agent can see in this process: tried on a future of its own when the first agent starts, and said in one line,
//! so that nobody has to guess why a tree has no functions.

mod finding;
mod probe;
mod running;

use std::sync::{Arc, Once};
use std::task::Waker;
use std::thread;

use tokio::sync::oneshot::{Receiver, channel};
use tracing::{info, warn};

use self::finding::{Finding, Marks};
pub(crate) use self::probe::{Probe, probe};
use crate::TARGET;
use crate::await_tree::{self, Registrations, Strand, StrandId};
use crate::config::Sampling;
use crate::stack::{Capture, Preferred, SUPPORTED, Shown, Symbolizer, Unwinder, prefer};

/// What is found, in one line.
#[derive(Debug)]
pub(crate) struct Found {
    line: String,
    /// Less is seen than could be.
    is_lacking: bool,
}

impl Found {
    pub(crate) fn tell(&self) {
        let line = &self.line;
        if self.is_lacking {
            warn!(target: TARGET, "{line}");
        } else {
            info!(target: TARGET, "{line}");
        }
    }
}

/// Looks at the probe, once per process, on a thread of its own: the agent is not kept from its first task. Picks the source
/// of frames by what it finds. `None` but for the first time.
pub(crate) fn start(probe: Probe, sampling: Sampling) -> Option<Receiver<Found>> {
    static ONCE: Once = Once::new();
    let mut found = None;
    ONCE.call_once(|| {
        let (sender, receiver) = channel();
        let look = move || drop(sender.send(look_at_all(probe, sampling)));
        match thread::Builder::new().name("sw-profile-test".to_owned()).spawn(look) {
            Ok(_) => found = Some(receiver),
            Err(_) => prefer(Preferred::Native),
        }
    });
    found
}

fn look_at_all(probe: Probe, sampling: Sampling) -> Found {
    // Whatever happens here, nobody is to wait for it.
    let _prefers = Prefers;
    let mut unwinder = Unwinder::new();
    let finding = look_at(probe, &mut unwinder);
    if !finding.tells_functions() {
        prefer(Preferred::Annotations);
    }
    #[cfg(feature = "tracing-spans")]
    let spans = crate::spans::is_installed();
    #[cfg(not(feature = "tracing-spans"))]
    let spans = false;
    let marks = Marks { framed: cfg!(feature = "async-backtrace"), spans };
    let running = SUPPORTED.then(|| running::try_it(sampling, &mut unwinder));
    let is_lacking = finding.is_lacking(marks) || running.as_ref().is_some_and(Result::is_err);
    let running = running.map(|running| running.unwrap_or_else(|why| why));
    let line = [finding.line(marks)].into_iter().chain(running).collect::<Vec<_>>().join("; ");
    Found { line, is_lacking }
}

/// Prefers native stacks, unless something else was.
struct Prefers;

impl Drop for Prefers {
    fn drop(&mut self) {
        prefer(Preferred::Native);
    }
}

fn look_at(probe: Probe, unwinder: &mut Unwinder) -> Finding {
    if !SUPPORTED {
        return Finding::Unsupported;
    }
    let (mut future, mut registrations) = (probe(), Registrations::default());
    let strand = Arc::new(Strand::new(StrandId::of_request()));
    // It never ends.
    let _ = await_tree::poll(Waker::noop(), &strand, &mut registrations, |cx| future.as_mut().poll(cx));
    let capture = registrations.leaves.first().and_then(|leaf| leaf.capture.as_ref());
    let Some(Shown::Native(image)) = capture.map(Capture::native_first) else {
        return Finding::NoStack;
    };
    let frames = Symbolizer::new().symbolize(&unwinder.unwind(image));
    Finding::of(frames.iter().flat_map(|frames| &**frames))
}
