//! [Apache SkyWalking](https://skywalking.apache.org) trace profiling for async Rust: a [`tower`](tower_layer) layer that
//! shows, exact to the millisecond, where the time of a request went.
//!
//! A *profile task* names an endpoint. While it is active, every matching request is followed from the call of the service
//! to the end of its response body: where it is suspended, through its whole await tree; where it computes or blocks its
//! thread while it is being polled, through thread stacks; and where it was woken but waits for a worker. The task comes from
//! the UI of a SkyWalking OAP, which then shows the tree; or, without an OAP, from code ([`ProfileLayer::profile`]), and the
//! tree is printed.
//!
//! What you have to do:
//! - Add [`ProfileLayer`] to your service. With axum, take the crate `skywalking-profile-axum`: it names endpoints by their
//!   routes.
//! - Give the release profile debug information, so that functions have names:
//!   ```toml
//!   [profile.release]
//!   debug = "limited"
//!   [profile.release.package."*"]
//!   debug = false
//!   ```
//! - Make what a request has done elsewhere part of it, where you want to see it: [`spawn`], [`spawn_blocking`], or
//!   [`in_current_request`](InCurrentRequest::in_current_request) on futures that are given to other tasks and collections.
//! - Call [`ProfileLayer::shutdown`] before the process ends, so that the last reports are sent.
//!
//! What it does not do: change responses or errors, poll a future more often than it would be, or log on the path of a
//! request. While no task is active a request costs one atomic load, and allocates nothing; with an OAP, up to a hundred
//! requests a second also look up whether their endpoint is known to it. A thread that runs while it polls a followed request
//! is sent a signal every few milliseconds ([`ProfileConfig::running_samples`]). Stacks are captured on x86_64 and aarch64
//! Linux; elsewhere waits show as `[pending]`, or by the features below, and what runs as `[running]`.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use http::{Request, Response};
//! use skywalking_profile::{ProfileConfig, ProfileLayer, ProfileTask};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! async fn load_order() {
//!     tokio::time::sleep(Duration::from_millis(20)).await;
//! }
//!
//! async fn order(_: Request<String>) -> Result<Response<String>, Infallible> {
//!     load_order().await;
//!     Ok(Response::new("an order".to_owned()))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let profile = ProfileLayer::new(ProfileConfig::new("shop")?);
//! let service = ServiceBuilder::new().layer(profile.clone()).service(service_fn(order));
//!
//! profile.profile(ProfileTask::new("GET:/orders"))?;
//! let response = service.oneshot(Request::get("/orders").body(String::new())?).await?;
//! // Here a server would send the body; the request ends with it, and its tree is printed.
//! drop(response);
//! profile.shutdown().await;
//! # Ok(())
//! # }
//! ```

//! # Features
//!
//! What native stacks name no functions for, a binary without debug information or another platform, can be shown by what
//! the application marks itself. A line of the log says at the start what can be seen, and by what.
//!
//! - `async-backtrace`: functions marked `#[async_backtrace::framed]`.
//! - `tracing-spans`: `tracing` spans, by `SpanLayer`, where there are no framed functions.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod agent;
mod await_tree;
mod backend;
mod clock;
mod config;
mod error;
mod layer;
mod request;
mod self_test;
#[cfg(feature = "tracing-spans")]
mod spans;
mod spawn;
mod stack;
mod sync;
mod task;
mod thread_stack;
mod timeline;
mod trace;
mod tree;

pub use config::ProfileConfig;
pub use error::ConfigError;
pub use layer::{Profile, ProfileLayer, ResponseBody, ResponseFuture};
#[cfg(feature = "tracing-spans")]
pub use spans::SpanLayer;
pub use spawn::{InCurrentRequest, InRequest, spawn, spawn_blocking};
pub use stack::Frames;
pub use task::{ProfileTask, TaskError};
pub use tree::{ProfileNode, ProfileSpan, ProfileTree};

/// The target of all that is logged, through `tracing`.
const TARGET: &str = "skywalking_profile";
