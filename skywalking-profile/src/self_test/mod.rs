//! What the agent can see in this process: tried on a future of its own when the first agent starts, and said in one line,
//! so that nobody has to guess why a tree has no functions.

mod finding;
mod probe;
mod running;

use std::sync::{Arc, Once};
use std::task::Waker;
use std::thread::{self, JoinHandle};

use tracing::{info, warn};

use self::finding::{Finding, Marks};
pub(crate) use self::probe::{Probe, probe};
use crate::config::Sampling;
use crate::stack::{Capture, Preferred, SUPPORTED, Shown, Symbolizer, Unwinder, prefer};
use crate::{TARGET, await_tree};

/// Looks at the probe, once per process, on a thread of its own: the agent is not kept from its first task. Picks the source
/// of frames by what it finds, and tells. The thread is returned if it was started now.
pub(crate) fn start(probe: Probe, sampling: Sampling) -> Option<JoinHandle<()>> {
    static ONCE: Once = Once::new();
    let mut started = None;
    ONCE.call_once(|| {
        started = thread::Builder::new().name("sw-profile-test".to_owned()).spawn(move || run(probe, sampling)).ok();
        if started.is_none() {
            prefer(Preferred::Native);
        }
    });
    started
}

fn run(probe: Probe, sampling: Sampling) {
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
    // All that is found at the start stands in one line.
    let line: Vec<_> =
        [finding.line(marks)].into_iter().chain(running.map(|ran| ran.unwrap_or_else(|why| why))).collect();
    let line = line.join("; ");
    if is_lacking {
        warn!(target: TARGET, "{line}");
    } else {
        info!(target: TARGET, "{line}");
    }
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
    let (mut future, mut leaves) = (probe(), Vec::new());
    // It never ends.
    let _ = await_tree::poll(Waker::noop(), &Arc::default(), &mut leaves, |cx| future.as_mut().poll(cx));
    let capture = leaves.first().and_then(|leaf| leaf.capture.as_ref());
    let Some(Shown::Native(image)) = capture.map(Capture::native_first) else {
        return Finding::NoStack;
    };
    let frames = Symbolizer::new().symbolize(&unwinder.unwind(image));
    Finding::of(frames.iter().flat_map(|frames| &**frames))
}
