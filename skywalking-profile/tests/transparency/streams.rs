//! Requests that read several streams, or of one stream several elements, at once.

use std::pin::pin;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, Stream, StreamExt};

use super::compare::is_unnoticed;
use super::run::Run;

#[test]
fn streams() {
    is_unnoticed("stream::select", 6, |run| stream::select(odd(&run), even(&run)).collect::<Vec<_>>());
    is_unnoticed("zip", 6, |run| odd(&run).zip(even(&run)).collect::<Vec<_>>());
    is_unnoticed("merge", 6, |run| tokio_stream::StreamExt::merge(odd(&run), even(&run)).collect::<Vec<_>>());
    is_unnoticed("select_all of streams", 6, selected_streams);
    is_unnoticed("buffered", 8, |run| parts(run).buffered(3).collect::<Vec<_>>());
    is_unnoticed("buffer_unordered", 8, |run| parts(run).buffer_unordered(3).collect::<Vec<_>>());
    is_unnoticed("for_each_concurrent", 8, |run| parts(run).for_each_concurrent(3, |part| part.map(drop)));
}

fn odd(run: &Run) -> BoxStream<'static, usize> {
    gates(run, [1, 3, 5])
}

fn even(run: &Run) -> BoxStream<'static, usize> {
    gates(run, [0, 2, 4])
}

/// One after the other.
fn gates(run: &Run, gates: [usize; 3]) -> BoxStream<'static, usize> {
    let run = run.clone();
    stream::iter(gates).then(move |gate| run.gate(gate)).boxed()
}

async fn selected_streams(run: Run) -> Vec<usize> {
    let mut all = pin!(stream::select_all([odd(&run), even(&run)]));
    let mut elements = Vec::new();
    while let Some(element) = all.next().await {
        elements.push(element);
    }
    elements
}

fn parts(run: Run) -> impl Stream<Item = BoxFuture<'static, usize>> {
    stream::iter(0..8).map(move |gate| run.part(run.gate(gate)))
}
