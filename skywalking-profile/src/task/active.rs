//! A profile task in force, shared by the requests that match it and the agent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::profile_task::{LONGEST_ENDPOINT, ProfileTask};

/// A task and what has become of it so far.
#[derive(Debug)]
pub(crate) struct ActiveTask {
    pub(crate) task: ProfileTask,
    seen: AtomicU64,
    /// Requests that are followed or were kept; each takes one of the task's samples when there is no threshold.
    taken: AtomicU64,
    /// Those among them that passed the threshold; the first of them, as many as samples are wanted, are reported.
    kept: AtomicU64,
    below_threshold: AtomicU64,
    /// Waits whose stacks could not be copied.
    pub(crate) stackless: AtomicU64,
    ended: AtomicBool,
}

/// What a task saw, for its closing line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) seen: u64,
    pub(crate) matched: u64,
    pub(crate) below_threshold: u64,
    pub(crate) kept: u64,
    pub(crate) stackless: u64,
}

impl ActiveTask {
    pub(crate) fn new(task: ProfileTask) -> Self {
        Self {
            task,
            seen: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            below_threshold: AtomicU64::new(0),
            stackless: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Whether a request of `method` and `route` is to be followed.
    pub(super) fn takes(&self, method: &str, route: &str) -> bool {
        self.seen.fetch_add(1, Ordering::Relaxed);
        if !is_endpoint(&self.task.endpoint, method, route) || self.has_ended() {
            return false;
        }
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        // Below a threshold nobody knows yet which requests will be kept, so all are followed.
        self.task.min_duration_threshold > Duration::ZERO || before < self.task.max_sampling_count
    }

    /// Decides on a request that has ended: whether it is one of the task's samples.
    pub(crate) fn keeps(&self, took: Duration) -> bool {
        if took <= self.task.min_duration_threshold && self.task.min_duration_threshold > Duration::ZERO {
            self.below_threshold.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.kept.fetch_add(1, Ordering::Relaxed) < self.task.max_sampling_count
    }

    /// Whether all samples are in.
    pub(crate) fn is_complete(&self) -> bool {
        self.kept.load(Ordering::Relaxed) >= self.task.max_sampling_count
    }

    /// A request that it took is not followed after all.
    pub(crate) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn tally(&self) -> Tally {
        Tally {
            seen: self.seen.load(Ordering::Relaxed),
            matched: self.taken.load(Ordering::Relaxed),
            below_threshold: self.below_threshold.load(Ordering::Relaxed),
            kept: self.kept.load(Ordering::Relaxed).min(self.task.max_sampling_count),
            stackless: self.stackless.load(Ordering::Relaxed),
        }
    }
}

/// Whether `endpoint` is `METHOD:route`, as far as the OAP keeps names.
fn is_endpoint(endpoint: &str, method: &str, route: &str) -> bool {
    let rest = endpoint.strip_prefix(method).and_then(|rest| rest.strip_prefix(':'));
    let is_cut = |rest: &str| endpoint.chars().count() == LONGEST_ENDPOINT && route.starts_with(rest);
    rest.is_some_and(|rest| rest == route || is_cut(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_compared_whole() {
        assert!(is_endpoint("GET:/orders/{id}", "GET", "/orders/{id}"));
        assert!(!is_endpoint("GET:/orders", "GET", "/orders/7"));
        assert!(!is_endpoint("GET:/orders", "POST", "/orders"));
        assert!(!is_endpoint("GET/orders", "GET", "/orders"));
        let long = format!("/{}", "x".repeat(200));
        assert!(is_endpoint(crate::task::cut_endpoint(&format!("GET:{long}")), "GET", &long));
        assert!(!is_endpoint("GET:/o", "GET", "/orders"));
    }

    #[test]
    fn without_a_threshold_no_more_requests_are_followed_than_samples_are_wanted() {
        let task = ActiveTask::new(ProfileTask::new("GET:/").samples(2));
        let followed = (0..5).filter(|_| task.takes("GET", "/")).count();
        assert_eq!(followed, 2);
        assert!(task.keeps(Duration::ZERO) && !task.is_complete());
        assert!(task.keeps(Duration::ZERO) && task.is_complete());
        assert!(!task.keeps(Duration::ZERO));
        assert_eq!(task.tally(), Tally { seen: 5, matched: 5, below_threshold: 0, kept: 2, stackless: 0 });
    }

    #[test]
    fn with_a_threshold_all_requests_are_followed_and_the_slow_ones_kept() {
        let task = ActiveTask::new(ProfileTask::new("GET:/").min_duration_threshold(Duration::from_millis(5)));
        assert!((0..5).all(|_| task.takes("GET", "/")));
        assert!(!task.keeps(Duration::from_millis(5)));
        assert!(task.keeps(Duration::from_millis(6)));
        task.end();
        assert!(!task.takes("GET", "/"));
    }
}
