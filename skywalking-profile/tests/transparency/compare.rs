//! A profiled request against the same one that is not.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use http::Response;
use http_body_util::Empty;
use proptest::prelude::{Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use skywalking_profile::{ProfileLayer, ProfileTask};
use tokio::runtime::Builder;
use tokio::time::timeout;
use tower::{Layer, ServiceExt, service_fn};

use super::gate::Gates;
use super::run::{Run, Seen, counting_waker};
use super::script::{Script, one_by_one, scripts};
use super::support::{Trees, get, sampled};

/// Of each shape.
const SCRIPTS: u32 = 24;

/// Only a request that is not woken takes so long, in paused time.
const NEVER: Duration = Duration::from_secs(3600);

/// Whatever opens its gates, and whether or not it is dropped on the way: the request and each of its leaves is polled as
/// often, in the same order and with the same outcome, and woken no less.
#[track_caller]
pub(crate) fn is_unnoticed<F>(what: &str, gates: usize, handler: impl Fn(Run) -> F)
where
    F: Future<Output: Debug> + 'static,
{
    for_each_script(scripts(gates), |script, executor, layers| {
        layers.compare(what, gates, &handler, script, executor, <[Seen]>::to_vec);
    });
}

/// As `is_unnoticed`, if each gate that opens is dealt with before the next one.
#[track_caller]
pub(crate) fn is_unnoticed_if_settled<F>(what: &str, gates: usize, handler: impl Fn(Run) -> F)
where
    F: Future<Output: Debug> + 'static,
{
    for_each_script(one_by_one(gates), |script, executor, layers| {
        layers.compare(what, gates, &handler, script, executor, <[Seen]>::to_vec);
    });
}

/// As `is_unnoticed_if_settled`, of a request that polls in an order of chance: only its own polls are as many.
#[track_caller]
pub(crate) fn is_unnoticed_by_chance<F>(what: &str, gates: usize, handler: impl Fn(Run) -> F)
where
    F: Future<Output: Debug> + 'static,
{
    for_each_script(one_by_one(gates), |script, executor, layers| {
        let own = |seen: &[Seen]| seen.iter().copied().filter(Seen::is_of_request).collect();
        layers.compare(what, gates, &handler, script, executor, own);
    });
}

#[track_caller]
fn for_each_script(scripts: impl Strategy<Value = Script>, test: impl Fn(Script, Executor, &Layers)) {
    for_each_case(SCRIPTS, scripts, test);
}

#[track_caller]
pub(crate) fn for_each_case<C: Debug>(
    count: u32,
    cases: impl Strategy<Value = C>,
    test: impl Fn(C, Executor, &Layers),
) {
    static LAYERS: LazyLock<Mutex<Layers>> = LazyLock::new(|| Mutex::new(Layers::new()));
    let layers = LAYERS.lock().unwrap_or_else(PoisonError::into_inner);
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let tested = TestRunner::new(config).run(&(cases, executors()), |(case, executor)| {
        test(case, executor, &layers);
        Ok(())
    });
    if let Err(failure) = tested {
        panic!("{failure}");
    }
}

/// Who polls the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Executor {
    /// Another waker in each poll, as in something that polls by turns; otherwise the same, as a task's is.
    has_new_wakers: bool,
    /// Drops the request after so many polls.
    drops_after: Option<usize>,
}

fn executors() -> impl Strategy<Value = Executor> {
    let drops_after = proptest::option::weighted(0.2, 1..6_usize);
    (any::<bool>(), drops_after).prop_map(|(has_new_wakers, drops_after)| Executor { has_new_wakers, drops_after })
}

/// Layers that requests go through.
pub(crate) struct Layers {
    idle: ProfileLayer,
    profiling: ProfileLayer,
    trees: Trees,
}

/// What became of a request.
#[derive(Clone, Debug)]
struct Outcome {
    /// `None` if it was dropped.
    output: Option<String>,
    seen: Vec<Seen>,
    /// Of the request, and of its tasks.
    wakes: [usize; 2],
}

impl Layers {
    fn new() -> Self {
        let ((idle, _), (profiling, trees)) = (sampled(), sampled());
        // The tables that name functions live as long as a task, and a debug build takes a second to make them.
        profiling.profile(ProfileTask::new("GET:/").samples(u64::MAX)).expect("an active layer");
        Self { idle, profiling, trees }
    }

    /// `told` is what of the polls is to be equal.
    pub(crate) fn compare<F>(
        &self,
        what: &str,
        gates: usize,
        handler: impl Fn(Run) -> F,
        script: Script,
        executor: Executor,
        told: impl Fn(&[Seen]) -> Vec<Seen>,
    ) where
        F: Future<Output: Debug> + 'static,
    {
        let outcome = |layer, is_covered| Outcome::of(&handler, gates, script.clone(), executor, layer, is_covered);
        let plain = outcome(None, false);
        for is_covered in [false, true] {
            let without = outcome(None, is_covered);
            let through = outcome(Some(&self.idle), is_covered);
            let followed = outcome(Some(&self.profiling), is_covered);
            let tree = self.trees.next();
            if executor.drops_after.is_none() {
                tree.is_finished();
            }
            for (how, outcome) in [("without a layer", without), ("not followed", through), ("followed", followed)] {
                let which = format!("{what}, {}covered, {how}", if is_covered { "" } else { "un" });
                assert_eq!(outcome.output, plain.output, "output of {which}");
                assert_eq!(told(&outcome.seen), told(&plain.seen), "polls of {which}");
                let is_woken_no_less = outcome.wakes.iter().zip(plain.wakes).all(|(wakes, plain)| *wakes >= plain);
                assert!(is_woken_no_less, "{:?} wakes of {which} instead of {:?}", outcome.wakes, plain.wakes);
            }
        }
    }
}

impl Outcome {
    fn of<F>(
        handler: impl Fn(Run) -> F,
        gates: usize,
        script: Script,
        executor: Executor,
        layer: Option<&ProfileLayer>,
        is_covered: bool,
    ) -> Self
    where
        F: Future<Output: Debug> + 'static,
    {
        let gates = Gates::new(gates);
        let run = Run::new(&gates, is_covered);
        let wakes = Arc::<AtomicUsize>::default();
        let handler = service_fn(|_| {
            run.watch("request", handler(run.clone())).map(|output| {
                let mut response = Response::new(Empty::<&[u8]>::new());
                response.extensions_mut().insert(format!("{output:?}"));
                Ok::<_, Infallible>(response)
            })
        });
        let output = |extensions: &http::Extensions| extensions.get().cloned().expect("the handler's output");
        let request = match layer {
            Some(layer) => {
                layer.layer(handler).oneshot(get("/")).map(|Ok(response)| output(response.extensions())).boxed_local()
            }
            None => handler.oneshot(get("/")).map(|Ok(response)| output(response.extensions())).boxed_local(),
        };
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let (output, seen) = runtime.block_on(async {
            tokio::spawn(script.play(gates));
            let output = timeout(NEVER, executor.execute(request, &wakes)).await.expect("a wake");
            (output, run.take_seen())
        });
        Self { output, seen, wakes: [wakes.load(Ordering::Relaxed), run.wakes_of_tasks()] }
    }
}

impl Executor {
    /// The request's output, unless it is dropped before.
    async fn execute<T>(self, mut request: LocalBoxFuture<'_, T>, wakes: &Arc<AtomicUsize>) -> Option<T> {
        let (mut waker, mut polls) = (None, 0);
        poll_fn(move |cx| {
            if self.has_new_wakers {
                waker = None;
            }
            let waker = waker.get_or_insert_with(|| counting_waker(cx.waker(), wakes));
            polls += 1;
            match request.poll_unpin(&mut Context::from_waker(waker)) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if self.drops_after == Some(polls) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
