//! Requests of random shapes.

use futures_util::future::{self, BoxFuture, Either, join_all, select_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use proptest::collection::vec;
use proptest::prelude::{BoxedStrategy, Just, Strategy, prop_oneof};
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};
use tokio::{join, select};

use super::compare::for_each_case;
use super::run::{Run, Seen};
use super::script::scripts;
use super::support::ms;

const GATES: usize = 8;

const SHAPES: u32 = 256;

#[test]
fn any_shape() {
    for_each_case(SHAPES, (shapes(), scripts(GATES)), |(shape, script), executor, layers| {
        let handler = |run: Run| shape.future(&run);
        layers.compare("the shape", GATES, handler, script, executor, <[Seen]>::to_vec);
    });
}

/// What a future waits for, and in which way.
#[derive(Clone, Debug)]
enum Shape {
    Gate(usize),
    /// Opens the gate, which may wake the request that is being polled.
    Opens(usize),
    Yield,
    Sleep(u64),
    InTurn(Vec<Self>),
    Join(Box<[Self; 2]>),
    JoinAll(Vec<Self>),
    Unordered(Vec<Self>),
    /// The others are dropped.
    Select(Box<[Self; 2]>),
    SelectAll(Vec<Self>),
    /// The other is awaited later.
    Both(Box<[Self; 2]>),
    Timeout(u64, Box<Self>),
    Part(Box<Self>),
    Spawned(Box<Self>),
    /// As `Spawned`, but the request waits for its answer, not for its end.
    Answered(Box<Self>),
}

fn shapes() -> BoxedStrategy<Shape> {
    let leaf = prop_oneof![
        6 => (0..GATES).prop_map(Shape::Gate),
        1 => (0..GATES).prop_map(Shape::Opens),
        1 => Just(Shape::Yield),
        1 => (1..20_u64).prop_map(Shape::Sleep),
    ];
    let grow = |inner: BoxedStrategy<Shape>| {
        let two = || (inner.clone(), inner.clone()).prop_map(|(one, two)| Box::new([one, two]));
        let (some, boxed) = (|| vec(inner.clone(), 1..4), || inner.clone().prop_map(Box::new));
        prop_oneof![
            some().prop_map(Shape::InTurn),
            two().prop_map(Shape::Join),
            some().prop_map(Shape::JoinAll),
            some().prop_map(Shape::Unordered),
            two().prop_map(Shape::Select),
            some().prop_map(Shape::SelectAll),
            two().prop_map(Shape::Both),
            (1..20_u64, boxed()).prop_map(|(time, shape)| Shape::Timeout(time, shape)),
            boxed().prop_map(Shape::Part),
            boxed().prop_map(Shape::Spawned),
            boxed().prop_map(Shape::Answered),
        ]
    };
    leaf.boxed().prop_recursive(4, 24, 3, move |inner| grow(inner.boxed())).boxed()
}

impl Shape {
    /// Tells in its output which part of it ended how.
    fn future(&self, run: &Run) -> BoxFuture<'static, String> {
        let (shape, run) = (self.clone(), run.clone());
        match shape {
            Self::Gate(gate) => run.gate(gate).map(|gate| gate.to_string()).boxed(),
            Self::Opens(gate) => async move {
                run.open(gate);
                format!("opened {gate}")
            }
            .boxed(),
            Self::Yield => run.watch("yield", yield_now()).map(|()| "yielded".to_owned()).boxed(),
            Self::Sleep(time) => run.watch("sleep", sleep(ms(time))).map(|()| "slept".to_owned()).boxed(),
            Self::InTurn(shapes) => async move {
                let mut outputs = Vec::new();
                for shape in shapes {
                    outputs.push(shape.future(&run).await);
                }
                outputs.join(", then ")
            }
            .boxed(),
            Self::Join(shapes) => {
                let [one, two] = shapes.map(|shape| shape.future(&run));
                async move { join!(one, two) }.map(|(one, two)| format!("({one} and {two})")).boxed()
            }
            Self::JoinAll(shapes) => join_all(shapes.iter().map(|shape| shape.future(&run))).map(in_order).boxed(),
            Self::Unordered(shapes) => {
                let unordered: FuturesUnordered<_> = shapes.iter().map(|shape| shape.future(&run)).collect();
                unordered.collect().map(in_order).boxed()
            }
            Self::Select(shapes) => {
                let [one, two] = shapes.map(|shape| shape.future(&run));
                async move {
                    select! { biased; one = one => one, two = two => two }
                }
                .boxed()
            }
            Self::SelectAll(shapes) => {
                let shapes = shapes.iter().map(|shape| shape.future(&run));
                select_all(shapes).map(|(first, ..)| first).boxed()
            }
            Self::Both(shapes) => {
                let [one, two] = shapes.map(|shape| shape.future(&run));
                async move {
                    let (first, other) = match future::select(one, two).await {
                        Either::Left(ended) | Either::Right(ended) => ended,
                    };
                    format!("({first} before {})", other.await)
                }
                .boxed()
            }
            Self::Timeout(time, shape) => {
                let future = timeout(ms(time), shape.future(&run));
                future.map(|ended| ended.unwrap_or_else(|_| "timed out".to_owned())).boxed()
            }
            Self::Part(shape) => run.part(shape.future(&run)),
            Self::Spawned(shape) => async move {
                let task = run.spawn_counted(shape.future(&run));
                run.watch("task's end", task).await.expect("no panic")
            }
            .boxed(),
            Self::Answered(shape) => async move {
                let (answer, receiver) = oneshot::channel();
                let output = shape.future(&run);
                run.spawn(async move { answer.send(output.await) });
                run.watch("answer", receiver).await.expect("an answer")
            }
            .boxed(),
        }
    }
}

fn in_order(outputs: Vec<String>) -> String {
    format!("[{}]", outputs.join(", "))
}
