//! No OAP: profiles are analysed in this process, as the OAP would, and handed to the application or printed.

use std::io::{self, Write};
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
        let Some(root) = analyse(&sample.snapshots).first().map(|root| node(sample, root)) else { return };
        let tree = ProfileTree { root, is_finished: sample.is_finished };
        match &self.on_profile {
            Some(on_profile) => on_profile(&tree),
            // Nowhere to complain to if standard output is closed.
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
