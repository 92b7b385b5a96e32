//! What requests have to look at: the tasks in force, and whether an endpoint is due to be discovered.
//!
//! All of it hides behind one word, zero while there is nothing to do: then a request costs one relaxed load.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::active::ActiveTask;
use super::endpoint::{Route, cut_endpoint};
use super::profile_task::ProfileTask;
use crate::clock;

/// Endpoints reported for discovery. A service whose raw paths are all different must not fill the OAP with them.
pub(crate) const MOST_ENDPOINTS: usize = 500;

/// Requests whose endpoint is looked up before discovery rests. With the second that it rests, an endpoint with one of
/// 10,000 requests is found within minutes, and the look-ups of a busy service cost it microseconds a second.
const LOOKUPS: u32 = 100;

/// A known endpoint is reported again after this, so that it does not age out of the OAP's lists.
const REPORTED_AGAIN_NS: u64 = 3 * 60 * 1_000_000_000;

const ACTIVE: u32 = 1;
const DISCOVERY: u32 = 2;

/// What requests look at.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// [`ACTIVE`] while `tasks` is not empty, [`DISCOVERY`] while the next request is to look at its endpoint.
    word: AtomicU32,
    tasks: RwLock<Vec<Arc<ActiveTask>>>,
    endpoints: Mutex<Endpoints>,
    /// Nobody looks after the board any more.
    closed: AtomicBool,
}

/// What discovery knows. Locked by whoever took its turn, for a look-up.
#[derive(Debug, Default)]
struct Endpoints {
    /// Each with the time of its last report.
    reported: HashMap<Arc<str>, u64>,
    lookups_left: u32,
    /// That there are too many was told.
    is_full: bool,
    /// Kept for its memory.
    name: String,
}

/// What discovery has to say of a request's endpoint.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// It is to be reported.
    Due(Arc<str>),
    Known,
    /// It is known, and discovery rests until it is resumed.
    Exhausted,
    /// It is the first one too many.
    TooMany,
}

impl Board {
    /// Whether there is nothing to do for any request.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Relaxed) == 0
    }

    /// The task that wants this request followed.
    pub(crate) fn matching(&self, method: &str, route: Route<'_>) -> Option<Arc<ActiveTask>> {
        if self.word.load(Ordering::Relaxed) & ACTIVE == 0 {
            return None;
        }
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().find(|task| task.takes(method, route)).map(Arc::clone)
    }

    /// Requests look for it from now on. On a closed board it has ended at once.
    pub(crate) fn put_up(&self, task: ProfileTask) -> Arc<ActiveTask> {
        let task = Arc::new(ActiveTask::new(task));
        let mut tasks = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Relaxed) {
            task.end();
        } else {
            tasks.push(Arc::clone(&task));
            self.word.fetch_or(ACTIVE, Ordering::Relaxed);
        }
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

    /// Discovers endpoints from now on, or goes on after a rest.
    pub(crate) fn discover(&self) {
        self.endpoints().lookups_left = LOOKUPS;
        self.offer_turn();
    }

    /// Looks up an endpoint, if discovery is not at rest and no other request is at it.
    pub(crate) fn look_up(&self, endpoint: fmt::Arguments<'_>) -> Option<Lookup> {
        let is_offered = self.word.load(Ordering::Relaxed) & DISCOVERY != 0;
        if !is_offered || self.word.fetch_and(!DISCOVERY, Ordering::AcqRel) & DISCOVERY == 0 {
            return None;
        }
        let lookup = self.endpoints().look_up(endpoint, clock::now());
        if lookup != Lookup::Exhausted {
            self.offer_turn();
        }
        Some(lookup)
    }

    pub(crate) fn forget_endpoint(&self, endpoint: &str) {
        self.endpoints().reported.remove(endpoint);
    }

    /// The endpoints that discovery knows, those first that are most like `name`.
    pub(crate) fn endpoints_like(&self, name: &str) -> Vec<Arc<str>> {
        let mut endpoints: Vec<_> = self.endpoints().reported.keys().map(Arc::clone).collect();
        endpoints.sort_by_cached_key(|endpoint| (strsim::damerau_levenshtein(endpoint, name), Arc::clone(endpoint)));
        endpoints
    }

    fn offer_turn(&self) {
        if !self.closed.load(Ordering::Relaxed) {
            self.word.fetch_or(DISCOVERY, Ordering::AcqRel);
        }
    }

    fn endpoints(&self) -> MutexGuard<'_, Endpoints> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Endpoints {
    fn look_up(&mut self, endpoint: fmt::Arguments<'_>, now: u64) -> Lookup {
        self.name.clear();
        // Writing to a string does not fail.
        let _ = self.name.write_fmt(endpoint);
        let name = cut_endpoint(&self.name);
        let is_due = match self.reported.get(name) {
            Some(reported) => now.saturating_sub(*reported) >= REPORTED_AGAIN_NS,
            None if self.reported.len() < MOST_ENDPOINTS => true,
            None if !mem::replace(&mut self.is_full, true) => return Lookup::TooMany,
            None => false,
        };
        if is_due {
            let name = Arc::<str>::from(name);
            self.reported.insert(Arc::clone(&name), now);
            return Lookup::Due(name);
        }
        self.lookups_left = self.lookups_left.saturating_sub(1);
        if self.lookups_left == 0 { Lookup::Exhausted } else { Lookup::Known }
    }
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
        assert!(board.matching("GET", Route::Raw("/other")).is_none());
        assert!(board.matching("GET", Route::Raw("/")).is_some());
        board.take_down(&task);
        assert!(board.is_idle());
        assert!(board.matching("GET", Route::Raw("/")).is_none());
    }

    #[test]
    fn an_endpoint_is_reported_once_unless_it_got_no_response() {
        let board = Board::default();
        assert_eq!(board.look_up(format_args!("GET:/")), None);
        board.discover();
        let due = Some(Lookup::Due("GET:/".into()));
        assert_eq!(board.look_up(format_args!("GET:/")), due);
        assert_eq!(board.look_up(format_args!("GET:/")), Some(Lookup::Known));
        board.forget_endpoint("GET:/");
        assert_eq!(board.look_up(format_args!("GET:/")), due);
    }

    #[test]
    fn endpoints_are_listed_by_their_likeness() {
        let board = Board::default();
        board.discover();
        for path in ["/", "/orders/{id}", "/health"] {
            assert!(board.look_up(format_args!("GET:{path}")).is_some());
        }
        assert_eq!(board.endpoints_like("GET:/order/{id}")[0], "GET:/orders/{id}".into());
    }

    #[test]
    fn discovery_rests_after_known_endpoints_alone() {
        let board = Board::default();
        board.discover();
        let lookups = |path: u32| board.look_up(format_args!("GET:/{path}"));
        for path in 0..2 * LOOKUPS {
            assert!(matches!(lookups(path), Some(Lookup::Due(_))));
        }
        let until_rest = std::iter::from_fn(|| lookups(0)).count();
        assert_eq!(until_rest, LOOKUPS as usize);
        assert!(board.is_idle());
        board.discover();
        assert!(matches!(lookups(2 * LOOKUPS), Some(Lookup::Due(_))));
    }

    #[test]
    fn endpoints_beyond_the_limit_are_not_reported() {
        let board = Board::default();
        board.discover();
        let due =
            (0..2 * MOST_ENDPOINTS).filter(|i| matches!(board.look_up(format_args!("GET:/{i}")), Some(Lookup::Due(_))));
        assert_eq!(due.count(), MOST_ENDPOINTS);
    }

    #[test]
    fn that_there_are_too_many_endpoints_is_told_once() {
        let board = Board::default();
        board.discover();
        let lookups = (0..MOST_ENDPOINTS + 10).filter_map(|i| board.look_up(format_args!("GET:/{i}")));
        assert_eq!(lookups.filter(|lookup| *lookup == Lookup::TooMany).count(), 1);
    }

    #[test]
    fn a_closed_board_stays_idle() {
        let board = Board::default();
        board.discover();
        let task = board.put_up(ProfileTask::new("GET:/"));
        board.close();
        board.discover();
        assert!(board.is_idle() && task.has_ended());
        assert!(board.put_up(ProfileTask::new("GET:/")).has_ended() && board.is_idle());
    }
}
