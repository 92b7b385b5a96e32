//! [`ProfileLayer`].

use std::fmt;
use std::sync::{Arc, Weak};

use http::Extensions;
use tower_layer::Layer;

use super::service::Profile;
use crate::agent::Agent;
use crate::config::ProfileConfig;
use crate::request::{Admitted, Discovery, Followed};
use crate::self_test::{Probe, probe};
use crate::task::{Board, ProfileTask, Route, TaskError};

/// Wraps services in [`Profile`], which follows the requests that a profile task asks for.
///
/// A clone is cheap and shares the agent: one thread per `ProfileLayer::new`. See the [crate]'s page for an
/// example.
#[derive(Clone)]
pub struct ProfileLayer {
    agent: Arc<Agent>,
    /// The route that a request was matched to, where a framework tells; `None` where raw paths name endpoints.
    route: Option<fn(&Extensions) -> Option<&str>>,
}

impl ProfileLayer {
    /// Starts the agent: a thread of its own, with a runtime of its own. Needs no runtime around it.
    ///
    /// Cannot fail: an OAP that is away is tried again, and what else goes wrong is logged under the target
    /// `skywalking_profile` and leaves a layer that does nothing.
    #[must_use]
    // The probe is to be compiled with the caller's crate.
    #[inline]
    pub fn new(config: ProfileConfig) -> Self {
        Self::with_probe(config, probe)
    }

    fn with_probe(config: ProfileConfig, probe: Probe) -> Self {
        Self { agent: Arc::new(Agent::start(config, probe)), route: None }
    }

    /// Names endpoints `METHOD:<route>` by the route that `route` finds among a request's extensions, instead of by its
    /// raw path. For web frameworks that leave it there, as `skywalking-profile-axum` does for axum.
    ///
    /// A request without a route is matched against tasks by its raw path, but never reported for discovery.
    #[must_use]
    pub fn with_route(self, route: fn(&Extensions) -> Option<&str>) -> Self {
        Self { route: Some(route), ..self }
    }

    /// Profiles requests by `task`, in embedded mode. With an OAP, tasks come from its UI alone.
    ///
    /// # Errors
    /// If a value of the task cannot be used, if the layer reports to an OAP, or if it is inactive or shut down.
    pub fn profile(&self, task: ProfileTask) -> Result<(), TaskError> {
        self.agent.profile(task)
    }

    /// Ends all tasks, sends what has not been sent, and stops the agent; takes 5 s at most.
    ///
    /// Requests go on being served, unprofiled. Without it, dropping the last clone of the layer and its services does the
    /// same, but waits at most 1 s.
    pub async fn shutdown(&self) {
        self.agent.shutdown().await;
    }

    /// Whether, and how, the request is followed. Allocates nothing while there is no task and no discovery.
    #[inline]
    pub(super) fn admit<B>(&self, request: &mut http::Request<B>) -> Option<Admitted> {
        if self.agent.board().is_idle() { None } else { self.look_closer(request) }
    }

    #[cold]
    fn look_closer<B>(&self, request: &mut http::Request<B>) -> Option<Admitted> {
        if self.agent.is_forked() {
            return None;
        }
        let (board, events) = (self.agent.board(), self.agent.events());
        // The same layer further out, on a router around this one, has it.
        if request.extensions().get::<FollowedBy>().is_some_and(|by| by.0.as_ptr() == Arc::as_ptr(board)) {
            return None;
        }
        let method = request.method().as_str();
        let matched = self.route.and_then(|route| route(request.extensions()));
        let route = matched.map_or(Route::Raw(request.uri().path()), Route::Matched);
        if let Some(task) = board.matching(method, route) {
            let followed = Followed::start(events, task, request)?;
            request.extensions_mut().insert(FollowedBy(Arc::downgrade(board)));
            return Some(Admitted::Followed(Box::new(followed)));
        }
        if self.route.is_some() && matched.is_none() {
            return None;
        }
        let discovery = Discovery::start(events, board, format_args!("{method}:{}", route.as_str()))?;
        Some(Admitted::Discovered(Box::new(discovery)))
    }
}

/// Marks a followed request by the board of the layer that follows it.
#[derive(Clone)]
struct FollowedBy(Weak<Board>);

impl<S> Layer<S> for ProfileLayer {
    type Service = Profile<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Profile::new(inner, self.clone())
    }
}

impl fmt::Debug for ProfileLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileLayer").field("agent", &self.agent).finish_non_exhaustive()
    }
}
