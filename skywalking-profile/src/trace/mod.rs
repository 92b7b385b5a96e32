//! The trace side: the segment that a profile hangs on, and the caller's trace that the segment hangs on.

mod segment;
mod sw8;

pub(crate) use segment::{Segment, WallClock, new_id};
pub(crate) use sw8::Parent;
