//! How many requests are followed at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Together with what the agent keeps of them, some 10 MB and their timelines.
pub(crate) const MOST_FOLLOWED: usize = 10_000;

/// Gives out as many places as requests are followed at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<AtomicUsize>);

/// A followed request's place, given back when it is dropped. Belongs to what the agent knows of the request.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    pub(super) fn take(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.0));
        // Beyond the limit it is given back at once, by its drop.
        (self.0.fetch_add(1, Ordering::Relaxed) < MOST_FOLLOWED).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let places = Places::default();
        let taken: Vec<_> = (0..2 * MOST_FOLLOWED).filter_map(|_| places.take()).collect();
        assert_eq!(taken.len(), MOST_FOLLOWED);
        drop(taken);
        assert!(places.take().is_some());
    }
}
