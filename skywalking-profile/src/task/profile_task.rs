//! What is to be profiled, for how long, and how finely.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::endpoint::is_well_formed;

/// A profile task: the endpoint whose requests are profiled, and how many of them.
///
/// Made in code for [`ProfileLayer::profile`](crate::ProfileLayer::profile); with a SkyWalking OAP, its UI makes them.
///
/// ```
/// use std::time::Duration;
/// use skywalking_profile::ProfileTask;
///
/// let task = ProfileTask::new("POST:/orders").samples(3).min_duration_threshold(Duration::from_millis(200));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a task does nothing until it is handed to `ProfileLayer::profile`"]
pub struct ProfileTask {
    pub(crate) endpoint: String,
    pub(crate) max_sampling_count: u64,
    pub(crate) min_duration_threshold: Duration,
    pub(crate) dump_period: Duration,
    pub(crate) duration: Option<Duration>,
    pub(crate) origin: Origin,
}

/// Who made a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Code,
    Oap { id: String, start: SystemTime },
}

impl ProfileTask {
    /// Profiles requests of `endpoint`, which is `METHOD:/path` or `METHOD:/route/{template}`: with axum the route that a
    /// request was matched to, otherwise a pattern for raw paths in the same syntax.
    ///
    /// By default one sample, whatever its duration, dumped every 10 ms, with no limit to the task's own duration.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            max_sampling_count: 1,
            min_duration_threshold: Duration::ZERO,
            dump_period: Duration::from_millis(10),
            duration: None,
            origin: Origin::Code,
        }
    }

    /// How many requests are profiled before the task ends: SkyWalking's max sampling count. At least 1.
    pub fn samples(mut self, count: u64) -> Self {
        self.max_sampling_count = count;
        self
    }

    /// Only requests that took longer than this are kept. They are followed from their start all the same.
    pub fn min_duration_threshold(mut self, threshold: Duration) -> Self {
        self.min_duration_threshold = threshold;
        self
    }

    /// The longest time between two thread snapshots of one wait. At least 1 ms.
    ///
    /// Waits are shown with their true durations whatever the period.
    pub fn dump_period(mut self, period: Duration) -> Self {
        self.dump_period = period;
        self
    }

    /// How long the task lasts if its samples do not come in earlier.
    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = Some(duration);
        self
    }

    pub(crate) fn check(&self) -> Result<(), TaskError> {
        if self.endpoint.trim().is_empty() {
            Err(TaskError("the endpoint name is empty"))
        } else if !is_well_formed(&self.endpoint) {
            Err(TaskError(
                "the endpoint's route is malformed: a parameter is a whole segment, `{name}`, or the rest of the path, `{*name}`",
            ))
        } else if self.max_sampling_count == 0 {
            Err(TaskError("the max sampling count is 0"))
        } else if self.dump_period < Duration::from_millis(1) {
            Err(TaskError("the dump period is less than 1 ms"))
        } else if self.duration == Some(Duration::ZERO) {
            Err(TaskError("the duration is 0"))
        } else {
            Ok(())
        }
    }

    pub(crate) fn id(&self) -> &str {
        match &self.origin {
            Origin::Code => &self.endpoint,
            Origin::Oap { id, .. } => id,
        }
    }
}

/// Why a profile task was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskError(pub(crate) &'static str);

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for TaskError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_be_carried_out_are_refused() {
        assert_eq!(ProfileTask::new("GET:/").check(), Ok(()));
        for bad in [
            ProfileTask::new(" "),
            ProfileTask::new("GET:/orders/{id"),
            ProfileTask::new("GET:/").samples(0),
            ProfileTask::new("GET:/").dump_period(Duration::from_micros(999)),
            ProfileTask::new("GET:/").duration(Duration::ZERO),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
