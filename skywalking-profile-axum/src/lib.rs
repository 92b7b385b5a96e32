//! [Apache SkyWalking](https://skywalking.apache.org) trace profiling for [axum].
//!
//! [`ProfileLayer`] is [`skywalking_profile::ProfileLayer`] with endpoints named by axum's matched routes, such as
//! `GET:/orders/{id}`. Add it with [`Router::layer`](axum::Router::layer), after the routes that it is for: a layer around
//! the whole router, outside of it, runs before axum has matched a route.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use skywalking_profile_axum::{ProfileConfig, ProfileLayer};
//!
//! async fn order() -> &'static str {
//!     tokio::time::sleep(std::time::Duration::from_millis(20)).await;
//!     "an order"
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let profile = ProfileLayer::new(ProfileConfig::new("shop")?.with_env()?);
//!     let app = Router::new().route("/orders/{id}", get(order)).layer(profile.clone());
//!
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//!     let stopped = async { tokio::signal::ctrl_c().await.expect("the handler can be set") };
//!     axum::serve(listener, app).with_graceful_shutdown(stopped).await?;
//!     // Sends what has not been sent yet.
//!     profile.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! # Features
//!
//! `async-backtrace` and `tracing-spans` are those of [`skywalking_profile`].

#![forbid(unsafe_code)]

use axum::extract::MatchedPath;
use http::Extensions;
use tower_layer::Layer;

pub use skywalking_profile::{
    ConfigError, Frames, InCurrentRequest, InRequest, Profile, ProfileConfig, ProfileNode, ProfileSpan, ProfileTask,
    ProfileTree, TaskError, spawn, spawn_blocking,
};

#[cfg(feature = "tracing-spans")]
pub use skywalking_profile::SpanLayer;

/// The layer of `skywalking-profile`, with endpoints named by axum's matched routes. See the [crate]'s page.
#[derive(Clone, Debug)]
pub struct ProfileLayer(skywalking_profile::ProfileLayer);

impl ProfileLayer {
    /// As [`skywalking_profile::ProfileLayer::new`].
    #[must_use]
    // As that one, and what it calls, it is compiled with the caller's crate.
    #[inline]
    pub fn new(config: ProfileConfig) -> Self {
        Self(skywalking_profile::ProfileLayer::new(config).with_route(matched_path))
    }

    /// As [`skywalking_profile::ProfileLayer::profile`].
    ///
    /// # Errors
    /// The same.
    pub fn profile(&self, task: ProfileTask) -> Result<(), TaskError> {
        self.0.profile(task)
    }

    /// As [`skywalking_profile::ProfileLayer::shutdown`].
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

fn matched_path(extensions: &Extensions) -> Option<&str> {
    extensions.get::<MatchedPath>().map(MatchedPath::as_str)
}

impl<S> Layer<S> for ProfileLayer {
    type Service = Profile<S>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}
