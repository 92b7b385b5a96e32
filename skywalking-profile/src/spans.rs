//! [`SpanLayer`]: the `tracing` spans that a poll is in, where a capture can read them.
//!
//! A capture runs under other people's locks and must not ask the subscriber, whose locks are not known. So the layer keeps
//! a copy on each thread, of the spans that were entered within the polls of followed requests; while there is no such
//! poll a span costs the look at a thread-local number.

use std::cell::Cell;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::span::Id;
use tracing::{Dispatch, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Spans kept of one thread; what is entered further in is not shown.
const MOST: usize = 64;

static IS_INSTALLED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static CURRENT: Current = const { Current { polls: Cell::new(0), len: Cell::new(0), spans: [const { Cell::new(None) }; MOST] } };
}

/// A layer of `tracing_subscriber` that lets waits be shown by the spans that they are in, where native stacks name no
/// functions: in a binary without debug information, or on a platform whose stacks are not captured.
///
/// Only the names of spans are looked at, and nothing is done while no request is followed. Like any layer without a filter
/// of its own it enables all spans that no other filter disables: put a global filter below it, or give it one.
///
/// ```
/// use skywalking_profile::SpanLayer;
/// use tracing_subscriber::filter::LevelFilter;
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(SpanLayer::new());
/// # drop(subscriber);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SpanLayer;

impl SpanLayer {
    /// A layer. One is enough.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for SpanLayer {
    fn on_register_dispatch(&self, _: &Dispatch) {
        IS_INSTALLED.store(true, Ordering::Relaxed);
    }

    fn on_enter(&self, id: &Id, cx: Context<'_, S>) {
        if CURRENT.with(Current::is_within_poll)
            && let Some(metadata) = cx.metadata(id)
        {
            CURRENT.with(|current| current.enter(id, Span(metadata)));
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        CURRENT.with(|current| current.exit(id));
    }
}

/// Whether a subscriber with a [`SpanLayer`] was made.
pub(crate) fn is_installed() -> bool {
    IS_INSTALLED.load(Ordering::Relaxed)
}

/// What is known of a span's place in the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span(pub(crate) &'static Metadata<'static>);

impl PartialEq for Span {
    fn eq(&self, other: &Self) -> bool {
        self.0.callsite() == other.0.callsite()
    }
}

impl Eq for Span {}

impl Hash for Span {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.callsite().hash(state);
    }
}

/// A poll of a followed request, for as long as this lives.
#[derive(Debug)]
pub(crate) struct PollSpans {
    /// How many spans of outer polls there are.
    outer: usize,
    /// Belongs to its thread.
    _local: PhantomData<*const ()>,
}

impl PollSpans {
    pub(crate) fn enter() -> Self {
        CURRENT.with(|current| {
            current.polls.set(current.polls.get() + 1);
            Self { outer: current.len.get(), _local: PhantomData }
        })
    }

    /// How many spans were entered within this poll and not left since.
    pub(crate) fn len(&self) -> usize {
        CURRENT.with(|current| current.len.get().saturating_sub(self.outer))
    }

    /// Calls `each` with these spans, outer ones first.
    pub(crate) fn each(&self, mut each: impl FnMut(Span)) {
        CURRENT.with(|current| {
            let entered = current.spans[..current.len.get()].iter().skip(self.outer);
            entered.filter_map(Cell::get).for_each(|(_, span)| each(span));
        });
    }
}

impl Drop for PollSpans {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            current.polls.set(current.polls.get() - 1);
            // A span that was not left is no span of the next poll.
            current.len.set(self.outer.min(current.len.get()));
        });
    }
}

/// The spans of one thread.
struct Current {
    polls: Cell<usize>,
    len: Cell<usize>,
    /// The first `len` are there.
    spans: [Cell<Option<(u64, Span)>>; MOST],
}

impl Current {
    fn is_within_poll(&self) -> bool {
        self.polls.get() > 0
    }

    fn enter(&self, id: &Id, span: Span) {
        let len = self.len.get();
        if let Some(next) = self.spans.get(len) {
            next.set(Some((id.into_u64(), span)));
            self.len.set(len + 1);
        }
    }

    /// Spans may be left in another order than they were entered. One that was entered before the poll is not known.
    fn exit(&self, id: &Id) {
        let len = self.len.get();
        let is_it = |span: &Cell<Option<(u64, Span)>>| span.get().is_some_and(|(of, _)| of == id.into_u64());
        if let Some(left) = self.spans[..len].iter().rposition(is_it) {
            (left + 1..len).for_each(|i| self.spans[i - 1].set(self.spans[i].get()));
            self.len.set(len - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn names(poll: &PollSpans) -> Vec<&'static str> {
        let mut names = Vec::new();
        poll.each(|span| names.push(span.0.name()));
        names
    }

    fn with_layer(test: impl FnOnce()) {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(SpanLayer::new()), test);
    }

    #[test]
    fn spans_of_the_poll_are_seen_until_they_are_left() {
        with_layer(|| {
            let poll = PollSpans::enter();
            let (outer, inner) = (info_span!("outer").entered(), info_span!("inner").entered());
            assert_eq!(names(&poll), ["outer", "inner"]);
            drop(outer);
            assert_eq!(names(&poll), ["inner"]);
            drop(inner);
            assert!(names(&poll).is_empty());
        });
        assert!(is_installed());
    }

    #[test]
    fn spans_around_the_poll_are_not_its_own() {
        with_layer(|| {
            let around = info_span!("around").entered();
            let poll = PollSpans::enter();
            let _request = info_span!("request").entered();
            drop(around);
            {
                let inner = PollSpans::enter();
                assert!(names(&inner).is_empty());
            }
            assert_eq!(names(&poll), ["request"]);
        });
    }

    #[test]
    fn a_span_that_was_not_left_is_forgotten_with_its_poll() {
        with_layer(|| {
            let poll = PollSpans::enter();
            let kept = info_span!("kept").entered();
            drop(poll);
            let next = PollSpans::enter();
            assert!(names(&next).is_empty());
            drop(kept);
            assert!(names(&next).is_empty());
        });
    }

    #[test]
    fn spans_within_spans_are_bounded() {
        with_layer(|| {
            let poll = PollSpans::enter();
            let spans: Vec<_> = (0..2 * MOST).map(|_| info_span!("again").entered()).collect();
            assert_eq!(names(&poll).len(), MOST);
            drop(spans);
            assert!(names(&poll).is_empty());
        });
    }
}
