//! What is expected of the tree of one request.

use std::fmt;
use std::time::Duration;

use skywalking_profile::{ProfileNode, ProfileSpan, ProfileTree};

/// How far a node's duration may be from what the program measured itself.
const TOLERANCE: Duration = Duration::from_millis(2);

/// Whether stacks are captured here; elsewhere every wait is `[pending]`.
const CAPTURED: bool = cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")));

/// A request that was woken and not polled yet.
pub(crate) const SCHEDULED: &str = "[scheduled: waiting for a worker]";

/// A task that has not begun.
const FIRST_POLL: &str = "[waiting for the first poll]";

/// What a program measured: functions, and how long each of their calls took.
pub(crate) type Times = Vec<(&'static str, Duration)>;

/// The tree of one request, or of something that it did meanwhile.
#[derive(Debug)]
pub(crate) struct Tree {
    whole: ProfileTree,
    /// Of what is looked at.
    root: ProfileNode,
}

impl Tree {
    /// The functions, two spaces per level. Without `[running]`, [`SCHEDULED`] and, unless it is expected, what waits to begin:
    /// any poll is that if the machine interrupts it, any wait ends so, and any task begins so, if the machine has no time for
    /// it.
    #[track_caller]
    pub(crate) fn has_shape(&self, expected: &[&str]) {
        let shape: Vec<_> = self
            .nodes()
            .filter(|(_, node)| !["[running]", SCHEDULED].contains(&function(node)))
            .map(|(depth, node)| format!("{:1$}{2}", "", 2 * depth, function(node)))
            .filter(|line| !line.contains("[waiting for ") || expected.contains(&line.as_str()))
            .collect();
        if CAPTURED {
            assert_eq!(shape, expected, "in\n{self}");
        } else {
            let uncaptured = |line: &String| line.trim_start().starts_with('[');
            assert!(shape[0] == expected[0] && shape[1..].iter().all(uncaptured), "frames out of nowhere in\n{self}");
        }
    }

    /// Each function is one node, whose duration is what the program measured.
    #[track_caller]
    pub(crate) fn agrees_with(&self, times: &Times) {
        self.agrees_within(times, Duration::ZERO);
    }

    /// As `agrees_with`, but each may be longer by `slack` than what the program measured from within.
    #[track_caller]
    pub(crate) fn agrees_within(&self, times: &Times, slack: Duration) {
        for (name, _) in times {
            let measured = times.iter().filter(|(other, _)| other == name).map(|(_, took)| *took).sum();
            if CAPTURED || name.starts_with('[') {
                self.is_within(self.node(name), measured, slack);
            }
        }
    }

    /// Below the function's one node, and nowhere else, the request waited for a worker so long, or longer by up to
    /// `slack`.
    #[track_caller]
    pub(crate) fn was_scheduled(&self, name: &str, measured: Duration, slack: Duration) {
        let scheduled = self.node(SCHEDULED);
        let awaited = self.node(if CAPTURED { name } else { "[pending]" });
        assert!(awaited.children().iter().any(|child| std::ptr::eq(child, scheduled)), "not below {name} in\n{self}");
        self.is_within(scheduled, measured, slack);
    }

    /// The function is one node, of this duration.
    #[track_caller]
    pub(crate) fn took(&self, name: &str, measured: Duration) {
        if CAPTURED || name.starts_with('[') {
            self.is_as_measured(self.node(name), measured);
        }
    }

    /// The function is one node of this duration, as far as samples can tell.
    #[track_caller]
    pub(crate) fn took_about(&self, name: &str, measured: Duration, tolerance: Duration) {
        assert!(self.is_about(name, measured, tolerance), "{name} measured {measured:?}, but see\n{self}");
    }

    /// Whether the function is one node of this duration, as far as samples can tell.
    pub(crate) fn is_about(&self, name: &str, measured: Duration, tolerance: Duration) -> bool {
        let mut nodes = self.functions(name);
        let is_about = |node: &ProfileNode| node.duration().abs_diff(measured) <= tolerance;
        !CAPTURED || nodes.next().is_some_and(is_about) && nodes.next().is_none()
    }

    /// The functions are nodes of this duration together, wherever they are.
    #[track_caller]
    pub(crate) fn took_together(&self, names: &[&str], measured: Duration) {
        if CAPTURED {
            let took: Duration = names.iter().flat_map(|name| self.functions(name)).map(ProfileNode::duration).sum();
            // Each of them may be off.
            let tolerance = TOLERANCE * names.len() as u32;
            let tolerance = tolerance + self.functions("[running]").map(ProfileNode::duration).sum();
            assert!(took.abs_diff(measured) <= tolerance, "{names:?} measured {measured:?}, but see\n{self}");
        }
    }

    #[track_caller]
    pub(crate) fn has_no(&self, name: &str) {
        assert!(self.functions(name).next().is_none(), "{name} in\n{self}");
    }

    /// The whole request is of this duration.
    #[track_caller]
    pub(crate) fn lasted(&self, measured: Duration) {
        self.is_as_measured(&self.root, measured);
    }

    #[track_caller]
    fn is_as_measured(&self, node: &ProfileNode, measured: Duration) {
        self.is_within(node, measured, Duration::ZERO);
    }

    #[track_caller]
    fn is_within(&self, node: &ProfileNode, measured: Duration, slack: Duration) {
        // When the machine interrupts a poll, nobody knows whose time that was: that of any tree that begins or ends with it.
        let all = nodes_of(self.whole.root()).chain(self.nodes()).map(|(_, node)| node);
        let is_machines = |other: &&ProfileNode| ["[running]", FIRST_POLL].contains(&function(other));
        let running = all.filter(is_machines).filter(|other| !std::ptr::eq(*other, node));
        let tolerance = TOLERANCE + running.map(ProfileNode::duration).sum();
        let expected = measured.saturating_sub(tolerance)..=measured + slack + tolerance;
        let function = function(node);
        assert!(expected.contains(&node.duration()), "{function} measured {measured:?} (+ {slack:?}), but see\n{self}");
    }

    /// How long the function was on the stack, wherever it is, once or more than once.
    pub(crate) fn time_of(&self, name: &str) -> Duration {
        fn below(node: &ProfileNode, name: &str) -> Duration {
            if function(node) == name {
                return node.duration();
            }
            node.children().iter().map(|child| below(child, name)).sum()
        }
        below(&self.root, name)
    }

    /// The function calls no other one than `callee`.
    #[track_caller]
    pub(crate) fn calls_only(&self, name: &str, callee: &str) {
        let mut callees = self.functions(name).flat_map(ProfileNode::children).map(function);
        assert!(callees.all(|other| other == callee), "{name} calls more than {callee} in\n{self}");
    }

    /// Of the whole request.
    pub(crate) fn duration(&self) -> Duration {
        self.root.duration()
    }

    /// The function was called or awaited at `place`, which is `file:line`.
    #[track_caller]
    pub(crate) fn is_awaited_at(&self, name: &str, place: &str) {
        if CAPTURED {
            assert_eq!(self.node(name).signature(), format!("{name} @ {place}"), "in\n{self}");
        }
    }

    /// The machine interrupted polls for so long that a short wait after one of them may have passed unseen.
    pub(crate) fn is_disturbed(&self) -> bool {
        self.functions("[running]").map(ProfileNode::duration).sum::<Duration>() > 2 * TOLERANCE
    }

    /// The machine let it wait for so long that it goes on later than what the program measured.
    pub(crate) fn waited_for_a_worker(&self) -> bool {
        self.functions(SCHEDULED).map(ProfileNode::duration).sum::<Duration>() > TOLERANCE
    }

    /// What the request did meanwhile, by function and in order of start.
    #[track_caller]
    pub(crate) fn has_spans(&self, expected: &[&str]) {
        if CAPTURED {
            let names: Vec<_> = self.whole.spans().iter().map(last_name).collect();
            assert_eq!(names, expected, "in\n{self}");
        }
    }

    /// Spans that are not shown.
    pub(crate) fn left_out(&self) -> u64 {
        self.whole.spans_left_out()
    }

    /// The one span of this function took so long.
    #[track_caller]
    pub(crate) fn span_took(&self, name: &str, measured: Duration) {
        self.span(name).lasted(measured);
    }

    /// The tree of the one span of this function.
    #[track_caller]
    pub(crate) fn span(&self, name: &str) -> Self {
        Self { whole: self.whole.clone(), root: self.profile_span(name).root().clone() }
    }

    /// The tree of the one span that this function is in.
    #[track_caller]
    pub(crate) fn span_with(&self, name: &str) -> Self {
        let mut spans = self.spans().map(|(_, tree)| tree).filter(|tree| tree.functions(name).next().is_some());
        match (spans.next(), spans.next()) {
            (Some(tree), None) => tree,
            (found, _) => panic!("{} span with {name} in\n{self}", found.map_or("no", |_| "more than one")),
        }
    }

    /// The one span of this function, for what its tree does not tell.
    #[track_caller]
    pub(crate) fn profile_span(&self, name: &str) -> &ProfileSpan {
        let mut spans = self.whole.spans().iter().filter(|span| last_name(span) == name);
        match (spans.next(), spans.next()) {
            (Some(span), None) => span,
            (found, _) => panic!("{} span {name} in\n{self}", found.map_or("no", |_| "more than one")),
        }
    }

    /// What the request did meanwhile, each with its tree.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (&ProfileSpan, Self)> {
        let tree = |span: &ProfileSpan| Self { whole: self.whole.clone(), root: span.root().clone() };
        self.whole.spans().iter().map(move |span| (span, tree(span)))
    }

    /// Depths, functions and durations, parents before their children.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str, Duration)> {
        self.nodes().map(|(depth, node)| (depth, function(node), node.duration()))
    }

    #[track_caller]
    pub(crate) fn is_finished(&self) {
        assert!(self.whole.is_finished(), "unfinished:\n{self}");
    }

    #[track_caller]
    pub(crate) fn is_unfinished(&self) {
        assert!(!self.whole.is_finished(), "finished:\n{self}");
    }

    #[track_caller]
    fn node(&self, name: &str) -> &ProfileNode {
        let mut nodes = self.functions(name);
        match (nodes.next(), nodes.next()) {
            (Some(node), None) => node,
            (found, _) => panic!("{} {name} in\n{self}", found.map_or("no", |_| "more than one")),
        }
    }

    fn functions(&self, name: &str) -> impl Iterator<Item = &ProfileNode> {
        self.nodes().map(|(_, node)| node).filter(move |node| function(node) == name)
    }

    fn nodes(&self) -> impl Iterator<Item = (usize, &ProfileNode)> {
        nodes_of(&self.root)
    }
}

/// All nodes with their depths, parents before their children.
fn nodes_of(root: &ProfileNode) -> impl Iterator<Item = (usize, &ProfileNode)> {
    let mut ahead = vec![(0, root)];
    std::iter::from_fn(move || {
        let (depth, node) = ahead.pop()?;
        ahead.extend(node.children().iter().rev().map(|child| (depth + 1, child)));
        Some((depth, node))
    })
}

impl From<&ProfileTree> for Tree {
    fn from(tree: &ProfileTree) -> Self {
        Self { whole: tree.clone(), root: tree.root().clone() }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whole.fmt(f)
    }
}

fn function(node: &ProfileNode) -> &str {
    node.signature().split_once(" @ ").map_or(node.signature(), |(function, _)| function)
}

/// The function alone, without its path.
fn last_name(span: &ProfileSpan) -> &str {
    span.name().rsplit("::").next().unwrap_or_default()
}
