//! Trace segments: of a request, and of what it did beside.

use std::slice;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::sw8::Parent;
use crate::timeline::whole_ms;

/// Spans of one trace that are reported together.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) trace_id: String,
    pub(crate) segment_id: String,
    /// The parent of the others.
    pub(crate) first: Span,
    pub(crate) others: Vec<Span>,
}

/// A stretch of time with a name.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub(crate) name: Arc<str>,
    pub(crate) kind: SpanKind,
    /// Milliseconds since the Unix epoch, as all times that go to the OAP.
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) is_error: bool,
    pub(crate) tags: Vec<(&'static str, String)>,
}

/// The tag of what ended before it was ready.
pub(crate) const CANCELLED: &str = "profile.cancelled";

/// The tag of what still went on when it was reported.
pub(crate) const UNFINISHED: &str = "profile.unfinished";

/// What a span is of.
#[derive(Clone, Debug)]
pub(crate) enum SpanKind {
    /// A request, by that span of the caller's if it told.
    Entry(Option<Parent>),
    /// Something within this process.
    Local,
}

impl Segment {
    /// A segment of the caller's trace, or of a new one, whose span began at `started` and took `took_ns` nanoseconds.
    pub(crate) fn new(endpoint: Arc<str>, started: SystemTime, took_ns: u64, parent: Option<Parent>) -> Self {
        let start_ms = epoch_ms(started);
        Self {
            trace_id: parent.as_ref().map_or_else(new_id, |parent| parent.trace_id.clone()),
            segment_id: new_id(),
            first: Span {
                name: endpoint,
                kind: SpanKind::Entry(parent),
                start_ms,
                end_ms: start_ms + whole_ms(took_ns),
                is_error: false,
                tags: Vec::new(),
            },
            others: Vec::new(),
        }
    }

    /// A segment of the same trace with these spans, at least one, which follow one another. Several have a parent that
    /// covers them.
    pub(crate) fn lane(&self, mut spans: Vec<Span>) -> Self {
        let (first, others) = match cover(&spans) {
            None => (spans.swap_remove(0), Vec::new()),
            Some(cover) => (cover, spans),
        };
        Self { trace_id: self.trace_id.clone(), segment_id: new_id(), first, others }
    }

    /// Of a lane, the spans that it was made of.
    pub(crate) fn lane_spans(&self) -> &[Span] {
        if self.others.is_empty() { slice::from_ref(&self.first) } else { &self.others }
    }

    /// The memory that it holds, about, in bytes.
    pub(crate) fn weight(&self) -> usize {
        /// A request's span with its tags; others have less of them.
        const FIRST: usize = 1_000;
        const OTHER: usize = 200;
        FIRST + OTHER * self.others.len()
    }
}

impl Span {
    pub(crate) fn local(name: Arc<str>, start_ms: i64, end_ms: i64) -> Self {
        Self { name, kind: SpanKind::Local, start_ms, end_ms, is_error: false, tags: Vec::new() }
    }

    /// Tags it as true.
    pub(crate) fn mark(&mut self, tag: &'static str) {
        self.tags.push((tag, "true".to_owned()));
    }

    pub(crate) fn is_marked(&self, tag: &str) -> bool {
        self.tags.iter().any(|(key, value)| *key == tag && value == "true")
    }

    /// The status as SkyWalking's agents report it: 400 and above is an error.
    pub(crate) fn set_status(&mut self, status: u16) {
        self.is_error = status >= 400;
        self.tags.push(("http.status_code", status.to_string()));
    }
}

/// From the first of several spans to the last, named after them.
fn cover(spans: &[Span]) -> Option<Span> {
    let [first, .., last] = spans else { return None };
    Some(Span::local(names(spans).into(), first.start_ms, last.end_ms))
}

/// Each name once, with how many spans have it: `load_order ×2, load_customer`.
fn names(spans: &[Span]) -> String {
    /// What else there is, is not named.
    const LONGEST: usize = 80;
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for span in spans {
        match counts.iter_mut().find(|(name, _)| *name == &*span.name) {
            Some((_, count)) => *count += 1,
            None => counts.push((&span.name, 1)),
        }
    }
    let mut names = String::new();
    for (name, count) in counts {
        if !names.is_empty() {
            names += ", ";
            if names.chars().count() + name.chars().count() > LONGEST {
                return names + "…";
            }
        }
        names += name;
        if count > 1 {
            names += &format!(" ×{count}");
        }
    }
    names
}

/// An identifier for a trace, a segment or an instance.
pub(crate) fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The nearest millisecond since the Unix epoch.
pub(crate) fn epoch_ms(time: SystemTime) -> i64 {
    const HALF: Duration = Duration::from_micros(500);
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.saturating_add(HALF).as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover_of(names: &[&str]) -> String {
        let spans: Vec<_> = names.iter().map(|name| Span::local((*name).into(), 0, 1)).collect();
        cover(&spans).map_or(String::new(), |cover| cover.name.to_string())
    }

    #[test]
    fn a_segments_times_are_the_nearest_milliseconds() {
        for (started_us, took_us, start_ms, end_ms) in
            [(7_000, 5_400, 7, 12), (7_499, 5_400, 7, 12), (7_500, 5_400, 8, 13), (7_999, 5_500, 8, 14)]
        {
            let started = SystemTime::UNIX_EPOCH + Duration::from_micros(started_us);
            let segment = Segment::new("GET:/".into(), started, 1_000 * took_us, None);
            assert_eq!((segment.first.start_ms, segment.first.end_ms), (start_ms, end_ms));
        }
    }

    #[test]
    fn a_cover_is_named_after_its_spans() {
        assert_eq!(cover_of(&["load", "load", "load"]), "load ×3");
        assert_eq!(cover_of(&["load", "audit", "load"]), "load ×2, audit");
        let long = ["a", "b", "c"].map(|name| name.repeat(60));
        assert_eq!(cover_of(&[&long[0], &long[1], &long[2]]), format!("{}, …", long[0]));
    }
}
