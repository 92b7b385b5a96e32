//! A followed request's report: segments and thread snapshots.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::following::Following;
use super::lanes;
use super::stacks::Stacks;
use super::visits::{Visits, visits};
use crate::backend::{Part, Sample};
use crate::request::Ended;
use crate::task::cut_endpoint;
use crate::timeline::{LEAST_WAIT_NS, Timeline, Window, snapshots};
use crate::trace::{CANCELLED, Segment, Span, UNFINISHED};

/// Longer root frames only push the rest out of the UI's sight.
const LONGEST_ROOT: usize = 80;

/// Makes the report of a request that lasted until `end`, with so many lanes at most. Without `ended` it still goes on.
pub(super) fn sample(
    following: &Following,
    end: u64,
    ended: Option<&Ended>,
    most_lanes: usize,
    stacks: &mut Stacks,
) -> Sample {
    let started = &following.started;
    let task = &started.task.task;
    let endpoint: Arc<str> = cut_endpoint(&task.endpoint).into();
    let root: String = endpoint.chars().take(LONGEST_ROOT).collect();
    let Visits { list: visits, beside, root, signatures, uncovered } = visits(following, &root, end, ended, stacks);

    let end_ns = end.saturating_sub(started.at);
    let window = Window::new(0, end_ns, &visits);
    let snapshots = snapshots(&Timeline { root, dump_period: task.dump_period, windows: &[window] });
    let mut segment = Segment::new(endpoint, started.wall, end_ns, started.parent.clone());
    let lanes = lanes::lanes(beside, most_lanes, &segment, root, task.dump_period);

    let span = &mut segment.first;
    tag(span, following, end_ns, ended);
    let losses = &started.task.losses;
    let lost_events = started.lineage.losses.events.load(Ordering::Relaxed);
    if lost_events > 0 {
        losses.events.fetch_add(lost_events, Ordering::Relaxed);
        span.tags.push(("profile.lost_events", lost_events.to_string()));
    }
    let least_ns = snapshots.least_ns.max(following.least()).max(lanes.least_ns);
    if least_ns > LEAST_WAIT_NS {
        losses.coarsened.fetch_add(1, Ordering::Relaxed);
        span.tags.push(("profile.shortest_shown_ms", (least_ns / LEAST_WAIT_NS).to_string()));
    }
    if lanes.left_out > 0 {
        losses.spans.fetch_add(lanes.left_out, Ordering::Relaxed);
        span.tags.push(("profile.spans_left_out", lanes.left_out.to_string()));
    }
    let unfollowed = started.lineage.losses.children.load(Ordering::Relaxed);
    if unfollowed > 0 {
        losses.children.fetch_add(unfollowed, Ordering::Relaxed);
        span.tags.push(("profile.unfollowed_tasks", unfollowed.to_string()));
    }
    if !uncovered.is_empty() {
        losses.add_uncovered(&uncovered);
        span.tags.push(("profile.uncovered", list_uncovered(&uncovered)));
    }
    Sample {
        task_id: task.id().to_owned(),
        main: Part { segment, snapshots: snapshots.list },
        lanes: lanes.list,
        spans_left_out: lanes.left_out,
        signatures,
        is_finished: ended.is_some(),
        lost_events,
        least_ns,
    }
}

fn tag(span: &mut Span, following: &Following, end_ns: u64, ended: Option<&Ended>) {
    let ms = |ns: u64| format!("{:.3}", ns as f64 / 1e6);
    span.tags.push(("url", following.started.url()));
    span.tags.push(("http.method", following.started.method.to_string()));
    match ended {
        Some(ended) => {
            match ended.status {
                Some(status) => span.set_status(status),
                None => span.is_error = true,
            }
            span.tags.push(("profile.polls", ended.tally.polls.to_string()));
            span.tags.push(("profile.longest_poll_ms", ms(ended.tally.longest_poll_ns)));
            span.tags.push(("profile.busy_ms", ms(ended.tally.busy_ns)));
            span.tags.push(("profile.scheduled_ms", ms(ended.tally.scheduled_ns)));
            let suspended_ns = end_ns.saturating_sub(ended.tally.busy_ns).saturating_sub(ended.tally.scheduled_ns);
            span.tags.push(("profile.suspended_ms", ms(suspended_ns)));
            // What became of a body that its server stops polling, say for a HEAD request, cannot be told.
            if !ended.completed && ended.status.is_none() {
                span.mark(CANCELLED);
            }
        }
        None => span.mark(UNFINISHED),
    }
}

/// How many waits were for what: `3 × tokio::runtime::task::join::JoinHandle @ orders.rs:12`.
pub(super) fn list_uncovered(uncovered: &[(String, u64)]) -> String {
    /// The others are counted only.
    const MOST_NAMED: usize = 5;
    let mut list: Vec<String> =
        uncovered.iter().take(MOST_NAMED).map(|(leaf, count)| format!("{count} × {leaf}")).collect();
    if uncovered.len() > MOST_NAMED {
        let others: u64 = uncovered[MOST_NAMED..].iter().map(|(_, count)| count).sum();
        list.push(format!("{others} others"));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::following::tests::following;
    use super::*;
    use crate::request::Tally;
    use crate::stack::Frames;

    #[test]
    fn the_tags_divide_all_of_a_requests_time() {
        let ended = Ended {
            request: 0,
            at: 60_000_000,
            status: Some(200),
            completed: true,
            tally: Tally { polls: 3, busy_ns: 7_000_000, scheduled_ns: 20_500_000, longest_poll_ns: 5_000_000 },
            untold: Vec::new(),
        };
        let sample = sample(&following(), ended.at, Some(&ended), 5, &mut Stacks::new(Frames::default()));
        let tags = sample.main.segment.first.tags;
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
