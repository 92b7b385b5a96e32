//! No OAP: profiles are analysed in this process, as the OAP would, and handed to the application or printed.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use super::{Backend, Part, Port, Report, Sample};
use crate::config::OnProfile;
use crate::timeline::{Node, Snapshot, analyse, within};
use crate::trace::{CANCELLED, UNFINISHED};
use crate::tree::{ProfileNode, ProfileSpan, ProfileTree};

/// The backend of a layer without an OAP's address.
pub(crate) struct Embedded {
    on_profile: Option<OnProfile>,
}

impl Embedded {
    pub(crate) fn new(on_profile: Option<OnProfile>) -> Self {
        Self { on_profile }
    }

    fn show(&self, sample: &Sample) {
        let Some(tree) = analysed(sample) else { return };
        match &self.on_profile {
            Some(on_profile) => on_profile(&tree),
            // Nowhere to complain to if standard output is closed.
            None if can_dim(io::stdout().is_terminal(), env::var_os) => drop(writeln!(io::stdout(), "{tree:#}")),
            None => drop(writeln!(io::stdout(), "{tree}")),
        }
    }
}

impl Backend for Embedded {
    fn description(&self) -> String {
        "shows profiles in this process, without an OAP".to_owned()
    }

    async fn run(self, mut port: Port) {
        while let Some(report) = port.reports.next().await {
            match &*report {
                Report::Sample(sample) => self.show(sample),
                Report::Discovery(_) | Report::Finish(_) => {}
            }
        }
    }
}

/// As the OAP analyses it: the request's span, and each one of the lanes.
fn analysed(sample: &Sample) -> Option<ProfileTree> {
    let mut spans: Vec<_> = sample.lanes.iter().flat_map(|lane| spans(sample, lane)).collect();
    spans.sort_by_key(ProfileSpan::start);
    Some(ProfileTree {
        root: tree(sample, &sample.main.snapshots)?,
        spans,
        spans_left_out: sample.spans_left_out,
        is_finished: sample.is_finished,
        lost_events: sample.lost_events,
        shortest_shown: Duration::from_nanos(sample.least_ns),
    })
}

/// What a lane holds.
fn spans(sample: &Sample, lane: &Part) -> impl Iterator<Item = ProfileSpan> {
    lane.segment.lane_spans().iter().filter_map(|span| {
        let (start_ms, end_ms) = (span.start_ms - sample.start_ms(), span.end_ms - sample.start_ms());
        Some(ProfileSpan {
            name: Arc::clone(&span.name),
            start: ms(start_ms),
            duration: ms(end_ms - start_ms),
            is_cancelled: span.is_marked(CANCELLED),
            is_finished: !span.is_marked(UNFINISHED),
            root: tree(sample, within(&lane.snapshots, start_ms, end_ms))?,
        })
    })
}

/// All stacks begin with the endpoint: one tree.
fn tree(sample: &Sample, snapshots: &[Snapshot]) -> Option<ProfileNode> {
    analyse(snapshots).first().map(|root| node(sample, root))
}

fn node(sample: &Sample, node: &Node) -> ProfileNode {
    ProfileNode {
        signature: sample.signature(node.signature),
        duration: ms(node.duration_ms),
        self_duration: ms(node.self_ms),
        dump_count: node.count,
        children: node.children.iter().map(|child| self::node(sample, child)).collect(),
    }
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms.try_into().unwrap_or(0))
}

/// Whether standard output understands colours, and its user wants them.
fn can_dim(is_terminal: bool, variable: impl Fn(&'static str) -> Option<OsString>) -> bool {
    let is_unwanted = variable("NO_COLOR").is_some_and(|no_color| !no_color.is_empty());
    is_terminal && !is_unwanted && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::timeline::SignatureId;
    use crate::trace::{Segment, Span};

    #[test]
    fn what_went_on_meanwhile_is_in_order_of_start() {
        let request = Segment::new("GET:/".into(), SystemTime::now(), 50_000_000, None);
        let start_ms = request.first.start_ms;
        let part = |segment: Segment, dumps: &[(i64, &[u32])]| Part {
            segment,
            snapshots: (0..)
                .zip(dumps)
                .map(|(sequence, &(time_ms, stack))| Snapshot {
                    sequence,
                    time_ms,
                    stack: stack.iter().map(|id| SignatureId(*id)).collect(),
                })
                .collect(),
        };
        let span = |name: &str, from_ms, to_ms| Span::local(name.into(), start_ms + from_ms, start_ms + to_ms);
        let mut cancelled = span("load", 30, 40);
        cancelled.mark(CANCELLED);
        let several = request.lane(vec![span("audit", 10, 20), cancelled]);
        let alone = request.lane(vec![span("load", 5, 25)]);
        let sample = Sample {
            task_id: "1".to_owned(),
            main: part(request, &[(0, &[0]), (50, &[0])]),
            lanes: vec![
                part(several, &[(10, &[0]), (10, &[0, 1]), (20, &[0, 1]), (20, &[0]), (30, &[0]), (40, &[0])]),
                part(alone, &[(5, &[0]), (25, &[0])]),
            ],
            spans_left_out: 3,
            signatures: vec!["GET:/".into(), "audit".into()],
            is_finished: true,
            lost_events: 0,
            least_ns: 0,
        };
        let tree = analysed(&sample).unwrap();
        let spans = tree.spans().iter().map(|span| {
            let ms = |duration: Duration| duration.as_millis();
            assert_eq!((span.root().signature(), span.root().duration()), ("GET:/", span.duration()));
            (span.name(), ms(span.start()), ms(span.duration()), span.is_cancelled(), span.root().children().len())
        });
        assert_eq!(
            spans.collect::<Vec<_>>(),
            [("load", 5, 20, false, 0), ("audit", 10, 10, false, 1), ("load", 30, 10, true, 0)]
        );
        assert_eq!(tree.spans_left_out(), 3);
    }

    #[test]
    fn only_a_terminal_that_can_and_may_is_dimmed() {
        let term = |name: &str| (name == "TERM").then(|| "xterm".into());
        let dumb = |name: &str| (name == "TERM").then(|| "dumb".into());
        let no_color = |value: &'static str| move |name: &str| (name == "NO_COLOR").then(|| value.into());
        assert!(can_dim(true, term));
        assert!(can_dim(true, |_: &str| None));
        assert!(can_dim(true, no_color("")));
        assert!(!can_dim(false, term));
        assert!(!can_dim(true, dumb));
        assert!(!can_dim(true, no_color("1")));
    }
}
