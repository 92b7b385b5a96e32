//! A capture from end to end: of a future that waits, the names of its await path.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::{Symbolizer, Unwinder};
use crate::await_tree::{self, Registrations, Strand, StrandId};
use crate::stack::frame::CUT;
use crate::stack::{Capture, Shown};

async fn order() {
    load_order().await;
}

async fn load_order() {
    load_customer().await;
}

async fn load_customer() {
    Leaf::default().await;
}

#[derive(Default)]
struct Leaf(Option<Waker>);

impl Future for Leaf {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0 = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[test]
fn an_await_path_is_named_from_its_root_to_its_leaf() {
    let (mut request, mut registrations) = (pin!(order()), Registrations::default());
    let strand = Arc::new(Strand::new(StrandId::of_request()));
    let polled = await_tree::poll(Waker::noop(), &strand, &mut registrations, |cx| request.as_mut().poll(cx));
    assert!(polled.is_pending());
    let Some(Shown::Native(image)) = registrations.leaves[0].capture.as_ref().map(Capture::preferred) else {
        panic!("{registrations:?}")
    };
    let addresses = Unwinder::new().unwind(image);
    let frames = Symbolizer::new().symbolize(&addresses);
    let ours = frames
        .iter()
        .flat_map(|frames| frames.iter())
        .filter_map(|frame| frame.name.path().strip_prefix(concat!(module_path!(), "::")));
    let [_test, path @ ..] = &*ours.collect::<Vec<_>>() else { panic!("{frames:#?}") };
    assert_eq!(path, ["order", "load_order", "load_customer", "Leaf"], "{frames:#?}");
    assert_ne!(addresses[0], CUT, "{frames:#?}");
}
