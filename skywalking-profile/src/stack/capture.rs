//! What is captured of a leaf: its native stack or, where that names no functions, the application's annotations.
#![expect(unsafe_code, reason = "captures the stack")]

use std::sync::OnceLock;

use super::annotation::{self, Annotated, AroundPoll};
use super::native::{self, Image, PollFrame};

/// What comes first. The other is for leaves of which the first has nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preferred {
    Native,
    Annotations,
}

/// Set when the first agent starts; until then both are captured.
static PREFERRED: OnceLock<Preferred> = OnceLock::new();

/// Captures by `preferred` from now on.
pub(crate) fn prefer(preferred: Preferred) {
    PREFERRED.get_or_init(|| preferred);
}

/// Whether there is room for a capture of any size.
pub(crate) fn has_room() -> bool {
    native::has_room() && annotation::has_room()
}

/// Where a leaf registered.
#[derive(Debug)]
pub(crate) enum Capture {
    Native(Image),
    Annotated(Annotated),
    Both(Box<(Image, Annotated)>),
}

impl Capture {
    /// Captures what lies between the poll and the caller; `None` if neither source has anything.
    ///
    /// # Safety
    /// - `frame` was taken on this thread, in a function that has not returned yet.
    pub(crate) unsafe fn take(frame: Option<&PollFrame>, around: &AroundPoll) -> Option<Self> {
        // SAFETY: the caller vouches for `frame`.
        let native = || frame.and_then(|frame| unsafe { Image::capture(frame) });
        let annotated = || Annotated::capture(around);
        match PREFERRED.get() {
            Some(Preferred::Native) => native().map(Self::Native).or_else(|| annotated().map(Self::Annotated)),
            Some(Preferred::Annotations) => annotated().map(Self::Annotated).or_else(|| native().map(Self::Native)),
            None => match (native(), annotated()) {
                (Some(native), Some(annotated)) => Some(Self::Both(Box::new((native, annotated)))),
                (native, annotated) => native.map(Self::Native).or(annotated.map(Self::Annotated)),
            },
        }
    }

    /// What is to be shown of it. Waits until that is known.
    pub(crate) fn preferred(&self) -> Shown<'_> {
        match self {
            Self::Both(both) if *PREFERRED.wait() == Preferred::Annotations => Shown::Annotated(&both.1),
            other => other.native_first(),
        }
    }

    /// Its native stack, if there is one.
    pub(crate) fn native_first(&self) -> Shown<'_> {
        match self {
            Self::Native(image) => Shown::Native(image),
            Self::Annotated(annotated) => Shown::Annotated(annotated),
            Self::Both(both) => Shown::Native(&both.0),
        }
    }
}

/// One of the sources.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shown<'a> {
    Native(&'a Image),
    Annotated(&'a Annotated),
}

#[cfg(test)]
#[cfg(feature = "async-backtrace")]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn where_there_is_no_native_stack_annotations_are_captured() {
        let around = AroundPoll::enter();
        // SAFETY: there is no frame.
        let take = || unsafe { Capture::take(None, &around) };
        let capture = pin!(async_backtrace::frame!(async { take() }));
        let Poll::Ready(captured) = capture.poll(&mut Context::from_waker(Waker::noop())) else { panic!("it waits") };
        assert!(matches!(captured.as_ref().map(Capture::preferred), Some(Shown::Annotated(_))), "{captured:?}");
        assert!(take().is_none());
    }
}
