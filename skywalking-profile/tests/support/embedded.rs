//! A layer in embedded mode, and the trees of what it profiles.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use skywalking_profile::{ProfileConfig, ProfileLayer};

use super::FOREVER;
use super::tree::Tree;

/// Without samples of what runs: on a busy machine any poll lasts long enough for one, and its frames would be in the way.
pub(crate) fn embedded() -> (ProfileLayer, Trees) {
    embedded_with(unsampled())
}

/// As a user gets it.
pub(crate) fn sampled() -> (ProfileLayer, Trees) {
    embedded_with(ProfileConfig::new("test").expect("a name"))
}

/// Sampled as often as can be.
pub(crate) fn finely_sampled() -> ProfileConfig {
    ProfileConfig::new("test").expect("a name").sampling_tick(Duration::from_millis(1)).expect("a millisecond")
}

pub(crate) fn unsampled() -> ProfileConfig {
    ProfileConfig::new("test").expect("a name").running_samples(false)
}

pub(crate) fn embedded_with(config: ProfileConfig) -> (ProfileLayer, Trees) {
    let (sender, trees) = mpsc::channel();
    // Nobody listens any more when a test ends before its layer.
    let config = config.on_profile(move |tree| drop(sender.send(Tree::from(tree))));
    (ProfileLayer::new(config), Trees(trees))
}

/// The trees of a layer, as they come.
#[derive(Debug)]
pub(crate) struct Trees(Receiver<Tree>);

impl Trees {
    #[track_caller]
    pub(crate) fn next(&self) -> Tree {
        self.0.recv_timeout(FOREVER).expect("a tree")
    }

    /// Expects no tree until the agent has ended: for a layer that is shut down or dropped.
    #[track_caller]
    pub(crate) fn no_more(&self) {
        match self.0.recv_timeout(FOREVER) {
            Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => panic!("the agent goes on"),
            Ok(tree) => panic!("one more tree:\n{tree}"),
        }
    }
}
