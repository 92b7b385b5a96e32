//! The trace side: the segments that a profile hangs on, and the caller's trace that they hang on.

mod segment;
mod sw8;

pub(crate) use segment::{CANCELLED, Segment, Span, SpanKind, UNFINISHED, epoch_ms, new_id};
pub(crate) use sw8::Parent;
