//! A profile task in force, shared by the requests that match it and the agent.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::endpoint::{Endpoint, Route};
use super::profile_task::ProfileTask;

/// A task and what has become of it so far.
#[derive(Debug)]
pub(crate) struct ActiveTask {
    pub(crate) task: ProfileTask,
    endpoint: Endpoint,
    seen: AtomicU64,
    matched: AtomicU64,
    /// Without a threshold, requests that are followed or were kept: each takes one of the task's samples.
    taken: AtomicU64,
    /// Requests that passed the threshold; the first of them, as many as samples are wanted, are reported.
    kept: AtomicU64,
    below_threshold: AtomicU64,
    pub(crate) losses: Losses,
    ended: AtomicBool,
}

/// What was not seen of a task's requests, or not reported.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    /// Requests that should have been followed, but the agent was at its limits.
    pub(crate) unfollowed: AtomicU64,
    /// Waits and polls of profiled requests that the agent was not told of, since it could not keep up.
    pub(crate) events: AtomicU64,
    /// Profiled requests whose shortest waits are not shown apart, for there were too many.
    pub(crate) coarsened: AtomicU64,
    /// What profiled requests did beside that is not shown: spans.
    pub(crate) spans: AtomicU64,
    /// Profiled requests that found no room among those that wait for the OAP.
    pub(crate) unreported: AtomicU64,
    /// Tasks and closures of profiled requests that should have been followed, but there were too many.
    pub(crate) children: AtomicU64,
    /// What ended waits of profiled requests by work that is not followed, and how many.
    uncovered: Mutex<Vec<(String, u64)>>,
    /// Waits whose stacks could not be copied.
    pub(crate) stackless: AtomicU64,
    /// Thread stacks, to compare the next with.
    pub(crate) samples: AtomicU64,
    /// Thread stacks whose callers are not known up to the poll: they begin with `[…]`.
    pub(crate) cut_samples: AtomicU64,
}

impl Losses {
    /// Waits for each of these ended by work that is not followed.
    pub(crate) fn add_uncovered(&self, waits: &[(String, u64)]) {
        let mut uncovered = self.uncovered.lock().unwrap_or_else(PoisonError::into_inner);
        for (leaf, count) in waits {
            match uncovered.iter_mut().find(|(other, _)| other == leaf) {
                Some((_, total)) => *total += count,
                None => uncovered.push((leaf.clone(), *count)),
            }
        }
    }

    /// The same of all requests so far.
    pub(crate) fn uncovered(&self) -> Vec<(String, u64)> {
        self.uncovered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a task saw, for its closing line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) seen: u64,
    pub(crate) matched: u64,
    pub(crate) below_threshold: u64,
    pub(crate) kept: u64,
}

impl ActiveTask {
    pub(crate) fn new(task: ProfileTask) -> Self {
        Self {
            endpoint: Endpoint::new(&task.endpoint),
            task,
            seen: AtomicU64::new(0),
            matched: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            below_threshold: AtomicU64::new(0),
            losses: Losses::default(),
            ended: AtomicBool::new(false),
        }
    }

    /// Whether a request of `method` and `route` is to be followed.
    pub(super) fn takes(&self, method: &str, route: Route<'_>) -> bool {
        self.seen.fetch_add(1, Ordering::Relaxed);
        if !self.endpoint.is_of(method, route) || self.has_ended() {
            return false;
        }
        self.matched.fetch_add(1, Ordering::Relaxed);
        // Below a threshold nobody knows yet which requests will be kept, so all are followed.
        if self.task.min_duration_threshold > Duration::ZERO {
            return true;
        }
        let take = |taken: u64| (taken < self.task.max_sampling_count).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
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

    /// A request that it took could not be followed, or not to its end.
    pub(crate) fn give_back(&self) {
        self.losses.unfollowed.fetch_add(1, Ordering::Relaxed);
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| taken.checked_sub(1));
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
            matched: self.matched.load(Ordering::Relaxed),
            below_threshold: self.below_threshold.load(Ordering::Relaxed),
            kept: self.kept.load(Ordering::Relaxed).min(self.task.max_sampling_count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_threshold_no_more_requests_are_followed_than_samples_are_wanted() {
        let task = ActiveTask::new(ProfileTask::new("GET:/").samples(2));
        let followed = (0..5).filter(|_| task.takes("GET", Route::Raw("/"))).count();
        assert_eq!(followed, 2);
        assert!(task.keeps(Duration::ZERO) && !task.is_complete());
        assert!(task.keeps(Duration::ZERO) && task.is_complete());
        assert!(!task.keeps(Duration::ZERO));
        assert_eq!(task.tally(), Tally { seen: 5, matched: 5, below_threshold: 0, kept: 2 });
    }

    #[test]
    fn a_sample_that_is_given_back_is_taken_again() {
        let task = ActiveTask::new(ProfileTask::new("GET:/").samples(2));
        let takes = || task.takes("GET", Route::Raw("/"));
        assert!(takes() && takes() && !takes() && !takes());
        task.give_back();
        assert!(takes() && !takes());
    }

    #[test]
    fn with_a_threshold_all_requests_are_followed_and_the_slow_ones_kept() {
        let task = ActiveTask::new(ProfileTask::new("GET:/").min_duration_threshold(Duration::from_millis(5)));
        assert!((0..5).all(|_| task.takes("GET", Route::Raw("/"))));
        assert!(!task.keeps(Duration::from_millis(5)));
        assert!(task.keeps(Duration::from_millis(6)));
        task.end();
        assert!(!task.takes("GET", Route::Raw("/")));
    }
}
