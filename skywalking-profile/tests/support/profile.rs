//! One profiled request.

use std::convert::Infallible;
use std::future::Future;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Response;
use http_body_util::Empty;
use skywalking_profile::{ProfileConfig, ProfileTask};
use tower::{Layer, ServiceExt, service_fn};

use super::embedded::{embedded_with, unsampled};
use super::get;
use super::tree::Tree;

/// Profiles a request that is answered by `handler` and polled by `executor`: its tree, and what the handler returned.
pub(crate) fn profile<T, F>(
    handler: impl Fn() -> F + Clone + Send + 'static,
    executor: impl FnOnce(BoxFuture<'static, Response<()>>) -> Response<()>,
) -> (Tree, T)
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
{
    profile_with(unsampled(), handler, executor)
}

pub(crate) fn profile_with<T, F>(
    config: ProfileConfig,
    handler: impl Fn() -> F + Clone + Send + 'static,
    executor: impl FnOnce(BoxFuture<'static, Response<()>>) -> Response<()>,
) -> (Tree, T)
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
{
    profile_all(config, handler, [executor]).pop().expect("one request")
}

/// Polls a request to its response.
type Executor = fn(BoxFuture<'static, Response<()>>) -> Response<()>;

/// Profiles a request per executor, by one task: a debug build takes a second to read what names the stacks.
pub(crate) fn profile_each<T, F, const N: usize>(
    handler: impl Fn() -> F + Clone + Send + 'static,
    executors: [Executor; N],
) -> Vec<(Tree, T)>
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
{
    profile_all(unsampled(), handler, executors)
}

/// As `profile_each`, but again if the machine interrupted a poll for as long as what is to be seen.
#[track_caller]
pub(crate) fn profile_undisturbed<T, F, const N: usize>(
    handler: impl Fn() -> F + Clone + Send + 'static,
    executors: [Executor; N],
) -> Vec<(Tree, T)>
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
{
    const ATTEMPTS: usize = 10;
    (0..ATTEMPTS)
        .map(|_| profile_each(handler.clone(), executors))
        .find(|profiled| profiled.iter().all(|(tree, _)| !tree.is_disturbed()))
        .expect("a machine with time for a request")
}

fn profile_all<T, F, E, const N: usize>(
    config: ProfileConfig,
    handler: impl Fn() -> F + Clone + Send + 'static,
    executors: [E; N],
) -> Vec<(Tree, T)>
where
    T: Clone + Send + Sync + 'static,
    F: Future<Output = T> + Send + 'static,
    E: FnOnce(BoxFuture<'static, Response<()>>) -> Response<()>,
{
    let (layer, trees) = embedded_with(config);
    layer.profile(ProfileTask::new("GET:/").samples(N as u64)).expect("an active layer");
    let profile = |executor: E| {
        let handler = handler.clone();
        // No function of the tests' may stand between the layer and the handler.
        let service = layer.layer(service_fn(move |_| {
            handler().map(|output| {
                let mut response = Response::new(Empty::<&[u8]>::new());
                response.extensions_mut().insert(output);
                Ok::<_, Infallible>(response)
            })
        }));
        let response = executor(service.oneshot(get("/")).map(|Ok(response)| response.map(drop)).boxed());
        (trees.next(), response.extensions().get().cloned().expect("the handler's output"))
    };
    executors.into_iter().map(profile).collect()
}
