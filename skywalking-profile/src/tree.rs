//! The analysed profile of one request, as SkyWalking's UI would show it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where one request's time went, by the OAP's own arithmetic. Its `Display` is a tree of lines:
///
/// ```text
///     ms   self
///    562      0  POST:/
///    562      1  └─ shop::order
///     61      0     ├─ shop::load @ main.rs:12
///     61     61     │  └─ tokio::time::sleep::Sleep @ main.rs:30
///    500    500     └─ tokio::time::sleep::Sleep @ main.rs:13
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileTree {
    pub(crate) root: ProfileNode,
    pub(crate) is_finished: bool,
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

    /// Whether the request had ended when this was made; otherwise its task had, before it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished
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

    /// Writes this node's line with `prefix` before its name, then those below it with `indent`.
    fn write(&self, f: &mut fmt::Formatter<'_>, prefix: &str, indent: &str) -> fmt::Result {
        let (duration, own) = (self.duration.as_millis(), self.self_duration.as_millis());
        writeln!(f, "{duration:>6} {own:>6}  {prefix}{}", self.signature)?;
        for (i, child) in self.children.iter().enumerate() {
            let (branch, below) = if i + 1 < self.children.len() { ("├─ ", "│  ") } else { ("└─ ", "   ") };
            child.write(f, &format!("{indent}{branch}"), &format!("{indent}{below}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for ProfileTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>6} {:>6}", "ms", "self")?;
        self.root.write(f, "", "")?;
        if !self.is_finished {
            writeln!(f, "{:>6} {:>6}  unfinished when the task ended", "", "")?;
        }
        Ok(())
    }
}

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

    #[test]
    fn a_tree_is_drawn_with_lines() {
        let load = node("shop::load @ main.rs:12", 61, 0, vec![node("Sleep @ main.rs:30", 61, 61, vec![])]);
        let order = node("shop::order", 562, 1, vec![load, node("Sleep @ main.rs:13", 500, 500, vec![])]);
        let tree = ProfileTree { root: node("POST:/", 562, 0, vec![order]), is_finished: false };
        let expected = "    ms   self
   562      0  POST:/
   562      1  └─ shop::order
    61      0     ├─ shop::load @ main.rs:12
    61     61     │  └─ Sleep @ main.rs:30
   500    500     └─ Sleep @ main.rs:13
               unfinished when the task ended
";
        assert_eq!(tree.to_string(), expected);
    }
}
