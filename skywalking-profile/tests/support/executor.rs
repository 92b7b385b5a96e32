//! Who polls a request: tokio in its flavours, or an executor written by hand.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Builder;

/// Polled by whichever worker of a runtime has time.
pub(crate) fn on_workers<T: Send + 'static>(future: BoxFuture<'static, T>) -> T {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::spawn(future).await.expect("no panic") })
}

pub(crate) fn on_one_thread<T>(future: BoxFuture<'static, T>) -> T {
    Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Polled on this thread, without any runtime.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_until_ready(|waker| future.as_mut().poll(&mut Context::from_waker(waker)))
}

/// Polled on this thread and, every second time, on one that ends with the poll.
pub(crate) fn on_a_new_thread<T: Send>(mut future: BoxFuture<'static, T>) -> T {
    let mut away = false;
    poll_until_ready(|waker| {
        away = !away;
        let mut poll = || future.as_mut().poll(&mut Context::from_waker(waker));
        if away { thread::scope(|scope| scope.spawn(poll).join().expect("no panic")) } else { poll() }
    })
}

fn poll_until_ready<T>(mut poll: impl FnMut(&Waker) -> Poll<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match poll(&waker) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A leaf written by hand: woken by a thread of its own, some time after its first poll.
#[derive(Debug)]
pub(crate) struct Timer {
    after: Duration,
    started: Option<Arc<Mutex<State>>>,
}

#[derive(Debug, Default)]
struct State {
    elapsed: bool,
    waker: Option<Waker>,
}

impl Timer {
    pub(crate) fn new(after: Duration) -> Self {
        Self { after, started: None }
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let after = self.after;
        let mut state = locked(self.started.get_or_insert_with(|| {
            let state = Arc::<Mutex<State>>::default();
            let elapsing = Arc::clone(&state);
            thread::spawn(move || {
                thread::sleep(after);
                let mut state = locked(&elapsing);
                state.elapsed = true;
                state.waker.take().map(Waker::wake)
            });
            state
        }));
        if state.elapsed {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
