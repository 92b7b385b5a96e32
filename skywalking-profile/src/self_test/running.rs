//! Whether a thread that runs can be sampled here: tried on the self-test's own.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::clock;
use crate::config::{self, SHORTEST_TICK};
use crate::stack::{CUT, Unwinder};
use crate::thread_stack::{SampledStack, Sampler, Sampling, install, sees_blocked, watch};

/// Usually two milliseconds; a busy machine may let nobody run for long.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// By which signal, or why not.
pub(super) fn try_it(settings: config::Sampling, unwinder: &mut Unwinder) -> Result<String, String> {
    if !settings.running {
        return Ok("what runs shows as [running], as configured".to_owned());
    }
    let signal = install(settings.signal).map_err(|error| format!("what runs is not sampled: {error}"))?;
    let name = match signal {
        16 => " (SIGSTKFLT)",
        30 => " (SIGPWR)",
        _ => "",
    };
    let sampling = Arc::<Sampling>::default();
    let (sender, samples) = sync_channel(1);
    let sampler = Sampler::start(&sampling, SHORTEST_TICK, Some(signal), move |sample| sender.try_send(sample).is_ok());
    let _sampler = sampler.map_err(|error| format!("what runs is not sampled: {error}"))?;

    let start = clock::now();
    let wait = || {
        while clock::now().saturating_sub(start) < clock::nanos(ANSWERED_WITHIN) {
            if let Ok(sample) = samples.try_recv() {
                return Some(sample);
            }
            if sampling.is_refused() {
                return None;
            }
            // Running, or it would not be signalled.
            (0..1_000).for_each(|_| spin_loop());
        }
        None
    };
    match watch(&sampling, 0, start, drop, wait).map(|sample| sample.stack) {
        Some(SampledStack::Copied(image)) if unwinder.unwind(&image)[0] != CUT => {
            let sampled = format!("what runs is sampled by signal {signal}{name}");
            match sees_blocked() {
                true => Ok(sampled),
                false => Err(format!(
                    "{sampled}; what blocks its thread shows as [running]: /proc/self/task/*/syscall cannot be read"
                )),
            }
        }
        Some(SampledStack::Copied(_)) => Err("stacks of what runs cannot be unwound".to_owned()),
        Some(SampledStack::Unchanged | SampledStack::Unknown) | None => {
            Err(format!("what runs is not sampled: signal {signal}{name} is not answered"))
        }
    }
}
