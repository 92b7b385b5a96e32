//! A followed request's report: segment and thread snapshots.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::following::Following;
use super::stacks::Stacks;
use super::visits::{Visits, visits};
use crate::backend::Sample;
use crate::request::Ended;
use crate::task::cut_endpoint;
use crate::timeline::{LEAST_WAIT_NS, Timeline, snapshots};
use crate::trace::{Segment, WallClock};

/// Longer root frames only push the rest out of the UI's sight.
const LONGEST_ROOT: usize = 80;

/// Makes the report of a request that lasted until `end`. Without `ended` it still goes on.
pub(super) fn sample(following: &Following, end: u64, ended: Option<&Ended>, stacks: &mut Stacks) -> Sample {
    let started = &following.started;
    let task = &started.task.task;
    let endpoint: Arc<str> = cut_endpoint(&task.endpoint).into();
    let root: String = endpoint.chars().take(LONGEST_ROOT).collect();
    let Visits { list: visits, root, signatures } = visits(following, &root, stacks);

    let wall = WallClock::from(started.wall);
    let end_ns = end.saturating_sub(started.at);
    let timeline =
        Timeline { root, end_ns, start_fraction_ns: wall.fraction_ns, dump_period: task.dump_period, visits: &visits };
    let snapshots = snapshots(&timeline);
    let mut segment = Segment::new(endpoint, wall, end_ns, started.parent.clone());
    tag(&mut segment, following, end_ns, ended);
    let lost_events = started.lost.load(Ordering::Relaxed);
    if lost_events > 0 {
        started.task.losses.events.fetch_add(lost_events, Ordering::Relaxed);
        segment.tags.push(("profile.lost_events", lost_events.to_string()));
    }
    let least_ns = snapshots.least_ns.max(following.least());
    if least_ns > LEAST_WAIT_NS {
        started.task.losses.coarsened.fetch_add(1, Ordering::Relaxed);
        segment.tags.push(("profile.shortest_shown_ms", (least_ns / LEAST_WAIT_NS).to_string()));
    }
    Sample {
        task_id: task.id().to_owned(),
        segment,
        wall_ms: wall.ms,
        snapshots: snapshots.list,
        signatures,
        is_finished: ended.is_some(),
        lost_events,
        least_ns,
    }
}

fn tag(segment: &mut Segment, following: &Following, end_ns: u64, ended: Option<&Ended>) {
    let ms = |ns: u64| format!("{:.3}", ns as f64 / 1e6);
    segment.tags.push(("url", following.started.url()));
    segment.tags.push(("http.method", following.started.method.to_string()));
    match ended {
        Some(ended) => {
            match ended.status {
                Some(status) => segment.set_status(status),
                None => segment.is_error = true,
            }
            segment.tags.push(("profile.polls", ended.polls.to_string()));
            segment.tags.push(("profile.longest_poll_ms", ms(ended.longest_poll_ns)));
            segment.tags.push(("profile.busy_ms", ms(ended.busy_ns)));
            segment.tags.push(("profile.scheduled_ms", ms(ended.scheduled_ns)));
            let suspended_ns = end_ns.saturating_sub(ended.busy_ns).saturating_sub(ended.scheduled_ns);
            segment.tags.push(("profile.suspended_ms", ms(suspended_ns)));
            // What became of a body that its server stops polling, say for a HEAD request, cannot be told.
            if !ended.completed && ended.status.is_none() {
                segment.tags.push(("profile.cancelled", "true".to_owned()));
            }
        }
        None => segment.tags.push(("profile.unfinished", "true".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::following::tests::following;
    use super::*;
    use crate::stack::Frames;

    #[test]
    fn the_tags_divide_all_of_a_requests_time() {
        let ended = Ended {
            request: 0,
            at: 60_000_000,
            status: Some(200),
            completed: true,
            polls: 3,
            busy_ns: 7_000_000,
            scheduled_ns: 20_500_000,
            longest_poll_ns: 5_000_000,
        };
        let Segment { tags, .. } =
            sample(&following(), ended.at, Some(&ended), &mut Stacks::new(Frames::default())).segment;
        for expected in [
            ("profile.busy_ms", "7.000"),
            ("profile.scheduled_ms", "20.500"),
            ("profile.suspended_ms", "32.500"),
            ("profile.longest_poll_ms", "5.000"),
        ] {
            assert!(tags.iter().any(|(name, value)| (*name, value.as_str()) == expected), "{expected:?} in {tags:?}");
        }
    }
}
