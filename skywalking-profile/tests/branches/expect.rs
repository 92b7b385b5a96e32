//! Requests that measure themselves, and what is expected to be shown of them.
//!
//! A tree is written as its functions below the endpoint, two spaces per level, each with the name of what the program
//! measured: `"  second : b"` took as long as the program says that `b` did, `: a + b` as `a` and `b` together. A function may
//! be told by the end of its path; `_` is any.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Response;
use http_body_util::Empty;
use skywalking_profile::{ProfileConfig, ProfileSpan, ProfileTask};
use tower::{Layer, ServiceExt, service_fn};

use super::support::{SCHEDULED, Tree, alone, embedded_with, get, ms, on_one_thread, on_workers};

/// How far a duration may be from what the program measured.
const TOLERANCE: Duration = Duration::from_millis(2);

/// What is sampled, or put together of parts, may seem shorter by so much, at all of its ends.
const ABOUT: Duration = Duration::from_millis(5);

/// By how much the machine may change what a request takes. Otherwise it is profiled again: another part may end first.
const UNDISTURBED: Duration = Duration::from_millis(6);

/// Measures what a request does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    start: Arc<OnceLock<Instant>>,
    measured: Arc<Mutex<Vec<Measured>>>,
}

/// From when to when, since the request's start.
#[derive(Clone, Copy, Debug)]
struct Measured {
    what: &'static str,
    time: Duration,
    from: Duration,
    to: Duration,
}

impl Clock {
    /// Measures until it is dropped, which is to be after so many milliseconds.
    pub(crate) fn watch(&self, what: &'static str, time: u64) -> Watch {
        Watch { what, time: ms(time), from: self.elapsed(), clock: self.clone() }
    }

    /// Since its first call.
    fn elapsed(&self) -> Duration {
        self.start.get_or_init(Instant::now).elapsed()
    }

    fn measured(&self) -> MutexGuard<'_, Vec<Measured>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, what: &str) -> Duration {
        let from = self.measured().iter().filter(|measured| measured.what == what).map(|measured| measured.from).min();
        from.unwrap_or_else(|| panic!("nothing measured of {what}"))
    }

    /// `what` may be a sum.
    fn took(&self, what: &str) -> Duration {
        let took = |what: &str| {
            let measured: Vec<_> = self.measured().iter().filter(|measured| measured.what == what).copied().collect();
            assert!(!measured.is_empty(), "nothing measured of {what}");
            measured.iter().map(|measured| measured.to - measured.from).sum::<Duration>()
        };
        what.split(" + ").map(took).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Watch {
    what: &'static str,
    time: Duration,
    from: Duration,
    clock: Clock,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Self { what, time, from, .. } = *self;
        self.clock.measured().push(Measured { what, time, from, to: self.clock.elapsed() });
    }
}

/// An expected span.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    name: &'a str,
    measured: &'a str,
    tree: &'a [&'a str],
    is_cancelled: bool,
}

/// Of the function `name`, from and to when the program measured `measured`.
pub(crate) fn span<'a>(name: &'a str, measured: &'a str, tree: &'a [&'a str]) -> Span<'a> {
    Span { name, measured, tree, is_cancelled: false }
}

/// As `span`, of what did not come to its end.
pub(crate) fn cancelled_span<'a>(name: &'a str, measured: &'a str, tree: &'a [&'a str]) -> Span<'a> {
    Span { is_cancelled: true, ..span(name, measured, tree) }
}

/// Polls a request to its response.
pub(crate) type Executor = fn(BoxFuture<'static, ()>);

/// The request shows this main tree and these spans, and nothing else, whoever polls it.
#[track_caller]
pub(crate) fn shows<F>(handler: impl Fn(Clock) -> F + Clone + Send + 'static, main: &[&str], spans: &[Span<'_>])
where
    F: Future<Output = ()> + Send + 'static,
{
    for profiled in profile(handler, &[on_workers, on_one_thread]) {
        profiled.shows(main, spans);
    }
}

pub(crate) fn unsampled() -> ProfileConfig {
    ProfileConfig::new("test").expect("a name").running_samples(false)
}

/// A request that was profiled.
#[derive(Debug)]
pub(crate) struct Profiled {
    pub(crate) tree: Tree,
    clock: Clock,
}

pub(crate) fn profile<F>(handler: impl Fn(Clock) -> F + Clone + Send + 'static, executors: &[Executor]) -> Vec<Profiled>
where
    F: Future<Output = ()> + Send + 'static,
{
    profile_at("/", unsampled(), handler, executors)
}

/// Requests of this path, each of them again if the machine kept it from running.
pub(crate) fn profile_at<F>(
    path: &str,
    config: ProfileConfig,
    handler: impl Fn(Clock) -> F + Clone + Send + 'static,
    executors: &[Executor],
) -> Vec<Profiled>
where
    F: Future<Output = ()> + Send + 'static,
{
    const ATTEMPTS: usize = 40;
    let _alone = alone();
    let (layer, trees) = embedded_with(config);
    layer.profile(ProfileTask::new(format!("GET:{path}")).samples(u64::MAX)).expect("an active layer");
    let once = |executor: &Executor| {
        let clock = Clock::default();
        let (handler, own) = (handler.clone(), clock.clone());
        // No function of the tests' may stand between the layer and the handler.
        let service = service_fn(move |_| {
            own.elapsed();
            handler(own.clone()).map(|()| Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new())))
        });
        executor(layer.layer(service).oneshot(get(path)).map(drop).boxed());
        Profiled { tree: trees.next(), clock }
    };
    let undisturbed = |executor: &Executor| {
        let mut profiled = once(executor);
        for _ in 1..ATTEMPTS {
            if !profiled.is_disturbed() {
                break;
            }
            profiled = once(executor);
        }
        profiled
    };
    executors.iter().map(undisturbed).collect()
}

impl Profiled {
    #[track_caller]
    pub(crate) fn shows(&self, main: &[&str], spans: &[Span<'_>]) {
        self.shows_main(main);
        self.shows_spans(spans);
    }

    #[track_caller]
    pub(crate) fn shows_main(&self, main: &[&str]) {
        self.check(&self.tree, main);
    }

    #[track_caller]
    pub(crate) fn shows_spans(&self, expected: &[Span<'_>]) {
        let actual: Vec<_> = self.tree.spans().collect();
        let names = actual.iter().map(|(span, _)| span.name());
        assert_eq!(actual.len(), expected.len(), "{expected:?}, but see {:?} in\n{self}", Vec::from_iter(names));
        let mut ahead: Vec<_> = actual.iter().collect();
        for expected in expected {
            let (start, took) = (self.clock.started(expected.measured), self.clock.took(expected.measured));
            let is_it = |(span, tree): &&(&ProfileSpan, Tree)| {
                let tolerance = self.tolerance(tree);
                is_end_of(expected.name, span.name())
                    && span.is_cancelled() == expected.is_cancelled
                    && span.start().abs_diff(start) <= tolerance
                    && span.duration().abs_diff(took) <= tolerance
            };
            let Some(found) = ahead.iter().position(is_it) else {
                panic!("no {expected:?} from {start:?} for {took:?} in\n{self}");
            };
            let (_, tree) = ahead.remove(found);
            self.check(tree, expected.tree);
        }
    }

    #[track_caller]
    fn check(&self, tree: &Tree, expected: &[&str]) {
        let lines: Vec<_> = shown(tree).filter(|(depth, ..)| *depth > 0).collect();
        let is_alike = lines.len() == expected.len()
            && lines.iter().zip(expected).all(|((depth, function, _), line)| {
                let (name, _) = parts(line);
                let indented = line.len() - line.trim_start().len();
                indented == 2 * (depth - 1) && (name == "_" || is_end_of(name, function))
            });
        assert!(is_alike, "{expected:#?} instead of\n{tree}as part of\n{self}", tree = Lines(tree));
        for ((_, function, took), line) in lines.iter().zip(expected) {
            let Some(what) = parts(line).1 else { continue };
            let measured = self.clock.took(what);
            assert!(
                took.abs_diff(measured) <= self.tolerance(tree),
                "{function} took {took:?}, {what} {measured:?} in\n{self}"
            );
        }
    }

    /// These functions are below each other, and took about as long as the program measured: they were sampled, or are put
    /// together from what several tasks did.
    #[track_caller]
    pub(crate) fn shows_about(&self, tree: &Tree, functions: &[&str], what: &str) {
        let measured = self.clock.took(what);
        let mut ahead = functions.iter().map(|line| parts(line).0).peekable();
        for (_, function, took) in shown(tree).filter(|(depth, ..)| *depth > 0) {
            if ahead.next_if(|name| *name == "_" || is_end_of(name, function)).is_some() {
                let off = took.abs_diff(measured);
                assert!(
                    off <= ABOUT + self.tolerance(tree),
                    "{function} took {took:?}, {what} {measured:?} in\n{self}"
                );
            }
        }
        assert_eq!(ahead.next(), None, "{functions:?} in\n{self}");
    }

    /// What is shown took as long as the program measured.
    #[track_caller]
    pub(crate) fn took(&self, what: &str, shown: Duration) {
        let measured = self.clock.took(what);
        assert!(
            shown.abs_diff(measured) <= self.tolerance(&self.tree),
            "{what} {measured:?}, not {shown:?} in\n{self}"
        );
    }

    /// When the machine interrupts a poll, nobody knows whose time that was.
    fn tolerance(&self, tree: &Tree) -> Duration {
        TOLERANCE + total(&self.tree, "[running]") + total(tree, "[running]")
    }

    fn is_disturbed(&self) -> bool {
        let is_off = |Measured { time, from, to, .. }: &Measured| (*to - *from).abs_diff(*time) > UNDISTURBED;
        let lost = |tree: &Tree| lost(tree) > TOLERANCE || tree.lines().any(|(_, name, _)| name.starts_with(PAUSE));
        self.clock.measured().iter().any(is_off) || lost(&self.tree) || self.tree.spans().any(|(_, tree)| lost(&tree))
    }
}

impl fmt::Display for Profiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tree)?;
        for Measured { what, from, to, .. } in &*self.clock.measured() {
            writeln!(f, "measured {what}: from {from:.1?} to {to:.1?}, {:.1?}", *to - *from)?;
        }
        Ok(())
    }
}

/// A part of a request's tree.
struct Lines<'a>(&'a Tree);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(self.0).try_for_each(|(depth, function, took)| writeln!(f, "{:1$}{function} {took:?}", "", 2 * depth))
    }
}

/// For the executor, the client, or a thread.
const PAUSE: &str = "[waiting for ";

/// Without what the machine may add anywhere.
fn shown(tree: &Tree) -> impl Iterator<Item = (usize, &str, Duration)> {
    tree.lines().filter(|(_, function, _)| !["[running]", SCHEDULED].contains(function))
}

fn lost(tree: &Tree) -> Duration {
    total(tree, "[running]") + total(tree, SCHEDULED)
}

fn total(tree: &Tree, function: &str) -> Duration {
    tree.lines().filter(|(_, other, _)| *other == function).map(|(.., took)| took).sum()
}

fn is_end_of(name: &str, path: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
}

/// The function of an expected line, and what is to be as long.
fn parts(line: &str) -> (&str, Option<&str>) {
    let line = line.trim_start();
    line.split_once(" : ").map_or((line, None), |(name, what)| (name, Some(what)))
}
