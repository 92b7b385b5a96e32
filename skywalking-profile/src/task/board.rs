//! What requests have to look at: the tasks in force, and whether an endpoint is due to be discovered.
//!
//! All of it hides behind one word, zero while there is nothing to do: then a request costs one relaxed load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::active::ActiveTask;
use super::profile_task::{ProfileTask, cut_endpoint};
use crate::clock;

/// Endpoints reported for discovery; more are left to the UI's own text field. A service whose raw paths are all
/// different must not fill the OAP with them.
const MOST_ENDPOINTS: usize = 500;

/// A known endpoint is reported again after this, so that it does not age out of the OAP's lists.
const REPORTED_AGAIN_NS: u64 = clock_minutes(3);

const ACTIVE: u32 = 1;
const DISCOVERY: u32 = 2;

#[derive(Debug, Default)]
pub(crate) struct Board {
    /// [`ACTIVE`] while `tasks` is not empty, [`DISCOVERY`] while the next request is to look at its endpoint.
    word: AtomicU32,
    tasks: RwLock<Vec<Arc<ActiveTask>>>,
    /// Known endpoints, and when each was last reported. Locked only by whoever took the discovery turn.
    endpoints: Mutex<HashMap<Arc<str>, u64>>,
    /// Nobody looks after the board any more.
    closed: AtomicBool,
}

impl Board {
    /// Whether there is nothing to do for any request.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Relaxed) == 0
    }

    /// The task that wants this request followed.
    pub(crate) fn matching(&self, method: &str, route: &str) -> Option<Arc<ActiveTask>> {
        if self.word.load(Ordering::Relaxed) & ACTIVE == 0 {
            return None;
        }
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().find(|task| task.takes(method, route)).map(Arc::clone)
    }

    pub(crate) fn put_up(&self, task: ProfileTask) -> Arc<ActiveTask> {
        let task = Arc::new(ActiveTask::new(task));
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        tasks.push(Arc::clone(&task));
        self.word.fetch_or(ACTIVE, Ordering::Relaxed);
        task
    }

    pub(crate) fn take_down(&self, task: &Arc<ActiveTask>) {
        task.end();
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|other| !Arc::ptr_eq(other, task));
        if tasks.is_empty() {
            self.word.fetch_and(!ACTIVE, Ordering::Relaxed);
        }
    }

    /// Ends all tasks and discovery, for good.
    pub(crate) fn close(&self) {
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.end());
        self.closed.store(true, Ordering::Relaxed);
        self.word.store(0, Ordering::Relaxed);
    }

    /// Whether the caller, and nobody else until the turn is given again, is to look at its endpoint.
    pub(crate) fn take_discovery_turn(&self) -> bool {
        self.word.load(Ordering::Relaxed) & DISCOVERY != 0
            && self.word.fetch_and(!DISCOVERY, Ordering::AcqRel) & DISCOVERY != 0
    }

    pub(crate) fn give_discovery_turn(&self) {
        if self.endpoints().len() < MOST_ENDPOINTS && !self.closed.load(Ordering::Relaxed) {
            self.word.fetch_or(DISCOVERY, Ordering::AcqRel);
        }
    }

    /// Notes that the endpoint is being reported; `None` if it was, not long ago.
    pub(crate) fn note_endpoint(&self, mut endpoint: String) -> Option<Arc<str>> {
        endpoint.truncate(cut_endpoint(&endpoint).len());
        let now = clock::now();
        let mut endpoints = self.endpoints();
        if endpoints.get(endpoint.as_str()).is_some_and(|reported| now - reported < REPORTED_AGAIN_NS) {
            return None;
        }
        let endpoint = Arc::<str>::from(endpoint);
        endpoints.insert(Arc::clone(&endpoint), now);
        Some(endpoint)
    }

    pub(crate) fn forget_endpoint(&self, endpoint: &str) {
        self.endpoints().remove(endpoint);
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const fn clock_minutes(minutes: u64) -> u64 {
    Duration::from_secs(60 * minutes).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_without_tasks_is_idle() {
        let board = Board::default();
        assert!(board.is_idle());
        let task = board.put_up(ProfileTask::new("GET:/"));
        assert!(!board.is_idle());
        assert!(board.matching("GET", "/other").is_none());
        assert!(board.matching("GET", "/").is_some());
        board.take_down(&task);
        assert!(board.is_idle());
        assert!(board.matching("GET", "/").is_none());
    }

    #[test]
    fn one_request_at_a_time_has_the_discovery_turn() {
        let board = Board::default();
        assert!(!board.take_discovery_turn());
        board.give_discovery_turn();
        assert!(!board.is_idle());
        assert!(board.take_discovery_turn());
        assert!(!board.take_discovery_turn());
    }

    #[test]
    fn an_endpoint_is_reported_once_unless_it_got_no_response() {
        let board = Board::default();
        let endpoint = board.note_endpoint("GET:/".to_owned()).unwrap();
        assert!(board.note_endpoint("GET:/".to_owned()).is_none());
        board.forget_endpoint(&endpoint);
        assert!(board.note_endpoint("GET:/".to_owned()).is_some());
    }

    #[test]
    fn discovery_stops_at_its_limit() {
        let board = Board::default();
        for i in 0..MOST_ENDPOINTS {
            board.give_discovery_turn();
            assert!(board.take_discovery_turn());
            board.note_endpoint(format!("GET:/{i}"));
        }
        board.give_discovery_turn();
        assert!(board.is_idle());
    }
}
