//! No OAP: profiles are analysed in this process, as the OAP would, and handed to the application or printed.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::{Backend, Port, Report, Sample};
use crate::config::OnProfile;
use crate::timeline::{Node, analyse};
use crate::tree::{ProfileNode, ProfileTree};

/// The backend of a layer without an OAP's address.
pub(crate) struct Embedded {
    on_profile: Option<OnProfile>,
}

impl Embedded {
    pub(crate) fn new(on_profile: Option<OnProfile>) -> Self {
        Self { on_profile }
    }

    fn show(&self, sample: &Sample) {
        // All stacks begin with the endpoint: one tree.
        let Some(root) = analyse(&sample.main.snapshots).first().map(|root| node(sample, root)) else { return };
        let tree = ProfileTree {
            root,
            is_finished: sample.is_finished,
            lost_events: sample.lost_events,
            shortest_shown: Duration::from_nanos(sample.least_ns),
        };
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

fn node(sample: &Sample, node: &Node) -> ProfileNode {
    let ms = |ms: i64| Duration::from_millis(ms.try_into().unwrap_or(0));
    ProfileNode {
        signature: sample.signature(node.signature),
        duration: ms(node.duration_ms),
        self_duration: ms(node.self_ms),
        dump_count: node.count,
        children: node.children.iter().map(|child| self::node(sample, child)).collect(),
    }
}

/// Whether standard output understands colours, and its user wants them.
fn can_dim(is_terminal: bool, variable: impl Fn(&'static str) -> Option<OsString>) -> bool {
    let is_unwanted = variable("NO_COLOR").is_some_and(|no_color| !no_color.is_empty());
    is_terminal && !is_unwanted && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

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
