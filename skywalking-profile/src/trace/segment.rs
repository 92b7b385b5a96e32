//! A trace segment of one entry span.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::sw8::Parent;
use crate::timeline::span_times;

/// A segment with the entry span of one request.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) trace_id: String,
    pub(crate) segment_id: String,
    pub(crate) endpoint: Arc<str>,
    /// Milliseconds since the Unix epoch, as all times that go to the OAP.
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) is_error: bool,
    pub(crate) tags: Vec<(&'static str, String)>,
    pub(crate) parent: Option<Parent>,
}

impl Segment {
    /// A segment of the caller's trace, or of a new one, whose span began at `wall` and took `took_ns` nanoseconds.
    pub(crate) fn new(endpoint: Arc<str>, wall: WallClock, took_ns: u64, parent: Option<Parent>) -> Self {
        let (start_ms, end_ms) = span_times(wall.fraction_ns, took_ns);
        Self {
            trace_id: parent.as_ref().map_or_else(new_id, |parent| parent.trace_id.clone()),
            segment_id: new_id(),
            endpoint,
            start_ms: wall.ms + start_ms,
            end_ms: wall.ms + end_ms,
            is_error: false,
            tags: Vec::new(),
            parent,
        }
    }

    /// The status as SkyWalking's agents report it: 400 and above is an error.
    pub(crate) fn set_status(&mut self, status: u16) {
        self.is_error = status >= 400;
        self.tags.push(("http.status_code", status.to_string()));
    }
}

/// An identifier for a trace, a segment or an instance.
pub(crate) fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// The one reading of the wall clock that all times of a request are derived from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    /// Whole milliseconds since the Unix epoch.
    pub(crate) ms: i64,
    /// What is left, in nanoseconds, below 1,000,000.
    pub(crate) fraction_ns: u32,
}

impl From<SystemTime> for WallClock {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX), fraction_ns: since.subsec_nanos() % 1_000_000 }
    }
}
