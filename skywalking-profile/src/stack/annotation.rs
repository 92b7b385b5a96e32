//! Frames that the application marks itself: `#[async_backtrace::framed]` functions and `tracing` spans.
//!
//! They stand in for native stacks where those name no functions. They are read where a leaf registers, and interned to
//! addresses that no code has, so that from there on they are stacks like any other. An annotation tells the function but
//! not where in it the next one is awaited, nor whether it awaits several at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::frame::{CUT_OFF, Frame, UNKNOWN};
#[cfg(any(feature = "async-backtrace", feature = "tracing-spans"))]
use super::name::Name;
#[cfg(feature = "tracing-spans")]
use crate::spans::{PollSpans, Span};

/// Frames kept of one leaf, the innermost.
const DEEPEST: usize = 128;

/// Frames that all leaves of the process may hold together, some 30 MB.
const ALL: usize = 1_000_000;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Whether there is room for those of any leaf.
pub(crate) fn has_room() -> bool {
    HELD.load(Ordering::Relaxed) + DEEPEST <= ALL
}

/// A marked frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Annotation {
    #[cfg(feature = "async-backtrace")]
    Framed(async_backtrace::Location),
    #[cfg(feature = "tracing-spans")]
    Span(Span),
}

impl Annotation {
    fn frame(self) -> Frame {
        match self {
            #[cfg(feature = "async-backtrace")]
            Self::Framed(location) => {
                Frame::annotated(Name::of_type(location.name().unwrap_or(UNKNOWN)), Some(location.file()))
            }
            // The target of `#[instrument]` is the module, its name the function.
            #[cfg(feature = "tracing-spans")]
            Self::Span(Span(metadata)) => {
                Frame::annotated(Name::of_path(format!("{}::{}", metadata.target(), metadata.name())), metadata.file())
            }
        }
    }
}

/// The annotations around a poll: those of its leaves are below.
#[derive(Debug)]
pub(crate) struct AroundPoll {
    #[cfg(feature = "async-backtrace")]
    framed: usize,
    #[cfg(feature = "tracing-spans")]
    spans: PollSpans,
}

impl AroundPoll {
    /// To be kept until the poll is over.
    pub(crate) fn enter() -> Self {
        Self {
            #[cfg(feature = "async-backtrace")]
            framed: async_backtrace::backtrace().map_or(0, |outer| outer.len()),
            #[cfg(feature = "tracing-spans")]
            spans: PollSpans::enter(),
        }
    }

    /// Framed functions or, if there are none, spans; root first.
    fn annotations(&self) -> Option<Vec<Annotation>> {
        let annotations = None;
        #[cfg(feature = "async-backtrace")]
        let annotations = annotations.or_else(|| self.framed());
        #[cfg(feature = "tracing-spans")]
        let annotations = annotations.or_else(|| self.spans());
        annotations
    }

    /// The active frame is a thread-local pointer, and the way from there to the root is read without locks.
    #[cfg(feature = "async-backtrace")]
    fn framed(&self) -> Option<Vec<Annotation>> {
        let locations = async_backtrace::backtrace()?;
        let own = locations.len().checked_sub(self.framed).filter(|own| *own > 0)?;
        let mut annotations = Vec::new();
        annotations.try_reserve_exact(own.min(DEEPEST + 1)).ok()?;
        annotations.extend(locations[..own].iter().take(DEEPEST + 1).rev().copied().map(Annotation::Framed));
        Some(annotations)
    }

    #[cfg(feature = "tracing-spans")]
    fn spans(&self) -> Option<Vec<Annotation>> {
        let own = self.spans.len();
        let mut annotations = Vec::new();
        annotations.try_reserve_exact(own).ok()?;
        self.spans.each(|span| annotations.push(Annotation::Span(span)));
        (own > 0).then_some(annotations)
    }
}

/// The annotations of one leaf, root first: never none.
#[derive(Debug)]
pub(crate) struct Annotated {
    frames: Vec<Annotation>,
    /// There are more at the root.
    is_cut: bool,
}

impl Annotated {
    /// Those between the poll and here. Neither blocks nor panics.
    ///
    /// `None` if there are none, or if the leaves of the process hold all that they may.
    pub(crate) fn capture(around: &AroundPoll) -> Option<Self> {
        let frames = has_room().then(|| around.annotations()).flatten()?;
        HELD.fetch_add(frames.len(), Ordering::Relaxed);
        Some(Self { is_cut: frames.len() > DEEPEST, frames })
    }
}

impl Drop for Annotated {
    fn drop(&mut self) {
        HELD.fetch_sub(self.frames.len(), Ordering::Relaxed);
    }
}

/// No code of a process lies in the upper half of the address space.
const MARK: u64 = 1 << 63;

/// Annotations that are told apart: more than any service has in its code.
const TOLD_APART: usize = 20_000;

/// The addresses of annotations, and back.
#[derive(Debug)]
pub(crate) struct Annotations {
    addresses: HashMap<Annotation, u64>,
    /// By address, without the mark.
    frames: Vec<Arc<[Frame]>>,
}

impl Annotations {
    const UNKNOWN: u64 = MARK;
    const CUT_OFF: u64 = MARK + 1;

    pub(crate) fn new() -> Self {
        let nameless = [UNKNOWN, CUT_OFF].map(|name| Arc::from([Frame::new(name, None)]));
        Self { addresses: HashMap::new(), frames: nameless.into() }
    }

    pub(crate) fn addresses(&mut self, annotated: &Annotated) -> Vec<u64> {
        let cut_off = annotated.is_cut.then_some(Self::CUT_OFF);
        cut_off.into_iter().chain(annotated.frames.iter().map(|annotation| self.address(*annotation))).collect()
    }

    fn address(&mut self, annotation: Annotation) -> u64 {
        if let Some(address) = self.addresses.get(&annotation) {
            return *address;
        }
        if self.frames.len() >= TOLD_APART {
            return Self::UNKNOWN;
        }
        let address = MARK + self.frames.len() as u64;
        self.frames.push([annotation.frame()].into());
        self.addresses.insert(annotation, address);
        address
    }

    /// The frame at `address`, if that is an annotation's.
    pub(crate) fn at(&self, address: u64) -> Option<Arc<[Frame]>> {
        let frame = address.checked_sub(MARK)?;
        self.frames.get(usize::try_from(frame).ok()?).map(Arc::clone)
    }
}

#[cfg(test)]
#[cfg(feature = "async-backtrace")]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll};

    use super::*;

    /// What is captured at the innermost of these, relative to a poll at the outermost.
    struct Capture(Option<AroundPoll>);

    impl Future for Capture {
        type Output = Option<Annotated>;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Ready(Annotated::capture(&self.get_mut().0.take().unwrap_or_else(AroundPoll::enter)))
        }
    }

    #[async_backtrace::framed]
    async fn order(around: Option<AroundPoll>) -> Option<Annotated> {
        load_order(around).await
    }

    #[async_backtrace::framed]
    async fn load_order(around: Option<AroundPoll>) -> Option<Annotated> {
        Capture(around).await
    }

    fn deep(depth: usize, around: AroundPoll) -> Pin<Box<dyn Future<Output = Option<Annotated>>>> {
        Box::pin(async_backtrace::frame!(async move {
            if depth > 1 { deep(depth - 1, around).await } else { Capture(Some(around)).await }
        }))
    }

    fn ready<T>(future: impl Future<Output = T>) -> T {
        let Poll::Ready(output) = pin!(future).poll(&mut Context::from_waker(std::task::Waker::noop())) else {
            panic!("it waits")
        };
        output
    }

    fn names(annotations: &mut Annotations, annotated: &Annotated) -> Vec<String> {
        let addresses = annotations.addresses(annotated);
        addresses.iter().map(|address| annotations.at(*address).unwrap()[0].name.path().to_owned()).collect()
    }

    #[test]
    fn framed_functions_are_named_from_the_root_on() {
        let annotated = ready(order(Some(AroundPoll::enter()))).unwrap();
        let names = names(&mut Annotations::new(), &annotated);
        let here = |function| format!("{}::{function}", module_path!());
        assert_eq!(names, [here("order"), here("load_order")]);
    }

    #[test]
    fn what_is_around_the_poll_is_left_out() {
        assert!(ready(order(None)).is_none());
    }

    #[test]
    fn an_annotation_tells_its_file_but_no_place_in_it() {
        let mut annotations = Annotations::new();
        let addresses = annotations.addresses(&ready(order(Some(AroundPoll::enter()))).unwrap());
        let frame = &annotations.at(addresses[0]).unwrap()[0];
        let source = frame.source.as_ref().unwrap();
        assert_eq!((&*source.file, source.line, source.library), ("annotation.rs", None, false));
        assert!(!frame.name.closure, "whether it awaits several at once is not known");
    }

    #[test]
    fn equal_annotations_have_one_address_which_no_code_has() {
        let mut annotations = Annotations::new();
        let mut addresses = || annotations.addresses(&ready(order(Some(AroundPoll::enter()))).unwrap());
        let (first, second) = (addresses(), addresses());
        assert_eq!(first, second);
        assert!(first.iter().all(|address| *address >= MARK));
        assert!(annotations.at(framed_functions_are_named_from_the_root_on as *const () as u64).is_none());
    }

    #[test]
    fn a_deep_recursion_is_cut_at_its_root() {
        let mut annotations = Annotations::new();
        let whole = ready(deep(DEEPEST, AroundPoll::enter())).unwrap();
        assert_eq!(annotations.addresses(&whole).len(), DEEPEST);
        let cut = ready(deep(4 * DEEPEST, AroundPoll::enter())).unwrap();
        let names = names(&mut annotations, &cut);
        assert!(names.len() <= DEEPEST + 2 && names[0] == CUT_OFF, "{}", names.len());
    }
}
