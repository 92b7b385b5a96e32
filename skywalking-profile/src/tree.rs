//! The analysed profile of one request, as SkyWalking's UI would show it.

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use crate::timeline::LEAST_WAIT_NS;

/// Where one request's time went, by the OAP's own arithmetic. Its `Display` is a tree of lines, with milliseconds, their
/// share of the request, and those in which nothing below was on the stack; `·` is zero:
///
/// ```text
///    ms   share   self
///   562  100.0%      ·  POST:/
///   562  100.0%      1  └─ shop::order
///    61   10.9%      ·     ├─ shop::load @ main.rs:12
///    61   10.9%     61     │  └─ tokio::time::sleep::Sleep @ main.rs:30
///   500   89.0%    500     └─ tokio::time::sleep::Sleep @ main.rs:13
///   204   36.3%      ·  meanwhile: shop::audit, from 60 to 264 ms
///   204   36.3%      ·  └─ shop::audit
///   204   36.3%    204     └─ tokio::time::sleep::Sleep @ audit.rs:8
/// ```
///
/// What it did at the same time, in another task say, comes after it: one tree for each of its [spans](Self::spans).
///
/// `{tree}` is plain text; `{tree:#}` is for a terminal, with the heads and the call sites dimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileTree {
    pub(crate) root: ProfileNode,
    pub(crate) spans: Vec<ProfileSpan>,
    pub(crate) spans_left_out: u64,
    pub(crate) is_finished: bool,
    pub(crate) lost_events: u64,
    pub(crate) shortest_shown: Duration,
}

/// What a request did for a while at the same time as what its main tree shows: another branch of a `join!` or `select!`,
/// another task, a blocking closure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileSpan {
    pub(crate) name: Arc<str>,
    pub(crate) start: Duration,
    pub(crate) duration: Duration,
    pub(crate) is_cancelled: bool,
    pub(crate) is_finished: bool,
    pub(crate) root: ProfileNode,
}

/// One code signature below one parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileNode {
    pub(crate) signature: Arc<str>,
    pub(crate) duration: Duration,
    pub(crate) self_duration: Duration,
    pub(crate) dump_count: u32,
    pub(crate) children: Vec<Self>,
}

impl ProfileTree {
    /// The endpoint: its duration is the whole request's.
    #[must_use]
    pub fn root(&self) -> &ProfileNode {
        &self.root
    }

    /// What it did at the same time, in order of start. What lasted less than a millisecond is not shown.
    #[must_use]
    pub fn spans(&self) -> &[ProfileSpan] {
        &self.spans
    }

    /// How many more spans there were, shorter than those that went on at the same time
    /// ([`ProfileConfig::lanes`](crate::ProfileConfig::lanes)).
    #[must_use]
    pub fn spans_left_out(&self) -> u64 {
        self.spans_left_out
    }

    /// Whether the request had ended when this was made; otherwise its task had, before it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// How many waits and polls are missing, because requests told of them faster than the profiler could take them in.
    /// Their time is that of the functions around them.
    #[must_use]
    pub fn lost_events(&self) -> u64 {
        self.lost_events
    }

    /// The shortest wait that is shown alone: a millisecond, or more if there were too many waits to keep. Shorter ones are
    /// the time of the functions around them.
    #[must_use]
    pub fn shortest_shown(&self) -> Duration {
        self.shortest_shown
    }
}

impl ProfileSpan {
    /// The function.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long after the request it began, in whole milliseconds.
    #[must_use]
    pub fn start(&self) -> Duration {
        self.start
    }

    /// How long it took, in whole milliseconds.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Whether it was dropped, or cut off by a timeout, before it was ready.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.is_cancelled
    }

    /// Whether it had ended when this was made; otherwise it outlasted its request, or the request's task.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Where its time went. The root is the request's endpoint.
    #[must_use]
    pub fn root(&self) -> &ProfileNode {
        &self.root
    }
}

impl ProfileNode {
    /// The code signature: `function @ file:line`, where the place is that of the call or await.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// How long this was on the request's stack, in whole milliseconds.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// How long it was the last one on the stack.
    #[must_use]
    pub fn self_duration(&self) -> Duration {
        self.self_duration
    }

    /// In how many thread snapshots it was.
    #[must_use]
    pub fn dump_count(&self) -> u32 {
        self.dump_count
    }

    /// What it called or awaited, in the order of first appearance.
    #[must_use]
    pub fn children(&self) -> &[Self] {
        &self.children
    }
}

impl fmt::Display for ProfileTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layout = Layout::of(self, f.alternate());
        let (dim, undim) = layout.dim();
        writeln!(f, "{dim}{}{undim}", layout.columns("ms", "share", "self").trim_end())?;
        layout.write(f, &self.root, "", "")?;
        for span in &self.spans {
            layout.write_span(f, span)?;
        }
        if self.spans_left_out > 0 {
            writeln!(f, "{}and {} more meanwhile, not shown", layout.columns("", "", ""), self.spans_left_out)?;
        }
        if !self.is_finished {
            writeln!(f, "{}unfinished when the task ended", layout.columns("", "", ""))?;
        }
        if self.shortest_shown > SHORTEST {
            let ms = self.shortest_shown.as_millis();
            writeln!(f, "{}coarse: waits of less than {ms} ms are not shown alone", layout.columns("", "", ""))?;
        }
        if self.lost_events > 0 {
            writeln!(f, "{}incomplete: {} waits and polls are missing", layout.columns("", "", ""), self.lost_events)?;
        }
        Ok(())
    }
}

/// How a tree's lines are aligned.
struct Layout {
    request: Duration,
    duration_width: usize,
    self_width: usize,
    is_dimmed: bool,
}

impl Layout {
    /// Trees of less than 100 seconds are aligned alike: they are read below each other.
    const LEAST_WIDTH: usize = 5;

    fn of(tree: &ProfileTree, is_dimmed: bool) -> Self {
        let mut layout = Self {
            request: tree.root.duration,
            duration_width: Self::LEAST_WIDTH,
            self_width: Self::LEAST_WIDTH,
            is_dimmed,
        };
        iter::once(&tree.root).chain(tree.spans.iter().map(ProfileSpan::root)).for_each(|root| layout.make_room(root));
        layout
    }

    fn make_room(&mut self, node: &ProfileNode) {
        self.duration_width = self.duration_width.max(milliseconds(node.duration).len());
        self.self_width = self.self_width.max(milliseconds(node.self_duration).len());
        node.children.iter().for_each(|child| self.make_room(child));
    }

    fn columns(&self, duration: &str, share: &str, own: &str) -> String {
        let Self { duration_width, self_width, .. } = self;
        format!("{duration:>duration_width$}  {share:>6}  {own:>self_width$}  ")
    }

    /// What begins and ends dimmed text.
    fn dim(&self) -> (&'static str, &'static str) {
        if self.is_dimmed { ("\x1b[2m", "\x1b[22m") } else { ("", "") }
    }

    /// Writes the span's name in the place of its root, the endpoint.
    fn write_span(&self, f: &mut fmt::Formatter<'_>, span: &ProfileSpan) -> fmt::Result {
        let (dim, undim) = self.dim();
        let (from, to) = (span.start.as_millis(), (span.start + span.duration).as_millis());
        self.write_times(f, &span.root)?;
        write!(f, "{dim}meanwhile: {undim}{}{dim}, from {from} to {to} ms", span.name)?;
        if span.is_cancelled {
            f.write_str(", cancelled")?;
        }
        if !span.is_finished {
            f.write_str(", unfinished")?;
        }
        writeln!(f, "{undim}")?;
        self.write_below(f, &span.root, "")
    }

    /// Writes the node's line with `prefix` before its name, then those below it with `indent`.
    fn write(&self, f: &mut fmt::Formatter<'_>, node: &ProfileNode, prefix: &str, indent: &str) -> fmt::Result {
        self.write_times(f, node)?;
        let (dim, undim) = self.dim();
        match node.signature.rsplit_once(" @ ") {
            Some((function, place)) => writeln!(f, "{prefix}{function}{dim} @ {place}{undim}")?,
            None => writeln!(f, "{prefix}{}", node.signature)?,
        }
        self.write_below(f, node, indent)
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>, node: &ProfileNode) -> fmt::Result {
        let own = milliseconds(node.self_duration);
        f.write_str(&self.columns(&milliseconds(node.duration), &self.share(node), &own))
    }

    fn write_below(&self, f: &mut fmt::Formatter<'_>, node: &ProfileNode, indent: &str) -> fmt::Result {
        for (i, child) in node.children.iter().enumerate() {
            let (branch, below) = if i + 1 < node.children.len() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
            self.write(f, child, &format!("{indent}{branch}"), &format!("{indent}{below}"))?;
        }
        Ok(())
    }

    /// The node's part of the request.
    fn share(&self, node: &ProfileNode) -> String {
        if node.duration.is_zero() || self.request.is_zero() {
            return ZERO.to_owned();
        }
        format!("{:.1}%", 100.0 * node.duration.as_secs_f64() / self.request.as_secs_f64())
    }
}

fn milliseconds(duration: Duration) -> String {
    match duration.as_millis() {
        0 => ZERO.to_owned(),
        ms => ms.to_string(),
    }
}

/// Lets the times that there are stand out.
const ZERO: &str = "·";

/// Where there are not too many waits.
const SHORTEST: Duration = Duration::from_nanos(LEAST_WAIT_NS);

#[cfg(test)]
mod tests {
    use super::*;

    fn node(signature: &str, ms: u64, own: u64, children: Vec<ProfileNode>) -> ProfileNode {
        ProfileNode {
            signature: signature.into(),
            duration: Duration::from_millis(ms),
            self_duration: Duration::from_millis(own),
            dump_count: 2,
            children,
        }
    }

    fn tree(root: ProfileNode) -> ProfileTree {
        ProfileTree {
            root,
            spans: vec![],
            spans_left_out: 0,
            is_finished: true,
            lost_events: 0,
            shortest_shown: SHORTEST,
        }
    }

    fn order() -> ProfileNode {
        let load = node("shop::load @ main.rs:12", 61, 0, vec![node("Sleep @ main.rs:30", 61, 61, vec![])]);
        node("shop::order", 562, 1, vec![load, node("Sleep @ main.rs:13", 500, 500, vec![])])
    }

    #[test]
    fn a_tree_is_drawn_with_lines() {
        let tree = ProfileTree {
            spans_left_out: 2,
            is_finished: false,
            lost_events: 7,
            shortest_shown: 4 * SHORTEST,
            ..tree(node("POST:/", 562, 0, vec![order()]))
        };
        let expected = "   ms   share   self
  562  100.0%      ·  POST:/
  562  100.0%      1  └─ shop::order
   61   10.9%      ·     ├─ shop::load @ main.rs:12
   61   10.9%     61     │  └─ Sleep @ main.rs:30
  500   89.0%    500     └─ Sleep @ main.rs:13
                      and 2 more meanwhile, not shown
                      unfinished when the task ended
                      coarse: waits of less than 4 ms are not shown alone
                      incomplete: 7 waits and polls are missing
";
        assert_eq!(tree.to_string(), expected);
    }

    #[test]
    fn what_went_on_meanwhile_is_drawn_below() {
        let span = |name: &str, start, root: ProfileNode| ProfileSpan {
            name: name.into(),
            start: Duration::from_millis(start),
            duration: root.duration,
            is_cancelled: false,
            is_finished: true,
            root,
        };
        let audit = node("shop::audit", 204, 0, vec![node("Sleep @ audit.rs:8", 204, 204, vec![])]);
        let customer = node("shop::customer", 562_000, 562_000, vec![]);
        let tree = ProfileTree {
            spans: vec![
                span("shop::audit", 60, node("POST:/", 204, 0, vec![audit])),
                ProfileSpan {
                    is_cancelled: true,
                    is_finished: false,
                    ..span("shop::customer", 0, node("POST:/", 562_000, 0, vec![customer]))
                },
            ],
            ..tree(node("POST:/", 562_000, 0, vec![order()]))
        };
        let expected = "    ms   share    self
562000  100.0%       ·  POST:/
   562    0.1%       1  └─ shop::order
    61    0.0%       ·     ├─ shop::load @ main.rs:12
    61    0.0%      61     │  └─ Sleep @ main.rs:30
   500    0.1%     500     └─ Sleep @ main.rs:13
   204    0.0%       ·  meanwhile: shop::audit, from 60 to 264 ms
   204    0.0%       ·  └─ shop::audit
   204    0.0%     204     └─ Sleep @ audit.rs:8
562000  100.0%       ·  meanwhile: shop::customer, from 0 to 562000 ms, cancelled, unfinished
562000  100.0%  562000  └─ shop::customer
";
        assert_eq!(tree.to_string(), expected);
        let dimmed = "\x1b[2mmeanwhile: \x1b[22mshop::audit\x1b[2m, from 60 to 264 ms\x1b[22m\n";
        assert!(format!("{tree:#}").contains(dimmed), "{tree:#}");
    }

    #[test]
    fn columns_are_as_wide_as_their_longest_value() {
        let wait = node("Sleep @ main.rs:30", 7_120_000, 7_120_000, vec![]);
        let tree = tree(node("POST:/", 7_120_001, 1, vec![wait]));
        let expected = "     ms   share     self
7120001  100.0%        1  POST:/
7120000  100.0%  7120000  └─ Sleep @ main.rs:30
";
        assert_eq!(tree.to_string(), expected);
    }

    #[test]
    fn a_request_of_no_time_has_no_shares() {
        let tree = tree(node("POST:/", 0, 0, vec![node("shop::order", 0, 0, vec![])]));
        let expected = "   ms   share   self
    ·       ·      ·  POST:/
    ·       ·      ·  └─ shop::order
";
        assert_eq!(tree.to_string(), expected);
    }

    #[test]
    fn on_a_terminal_heads_and_call_sites_are_dimmed() {
        let tree = tree(node("POST:/", 562, 0, vec![order()]));
        let expected = "\x1b[2m   ms   share   self\x1b[22m
  562  100.0%      ·  POST:/
  562  100.0%      1  └─ shop::order
   61   10.9%      ·     ├─ shop::load\x1b[2m @ main.rs:12\x1b[22m
   61   10.9%     61     │  └─ Sleep\x1b[2m @ main.rs:30\x1b[22m
  500   89.0%    500     └─ Sleep\x1b[2m @ main.rs:13\x1b[22m
";
        assert_eq!(format!("{tree:#}"), expected);
        let undimmed = expected.replace("\x1b[2m", "").replace("\x1b[22m", "");
        assert_eq!(tree.to_string(), undimmed);
    }
}
