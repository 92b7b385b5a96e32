//! The agent: one thread, with a runtime of its own, that everything after a capture happens on.
//!
//! [`run`] takes the requests' events and the backend's tasks; [`following`] keeps the strands of each followed request,
//! [`track`] the timeline of each: [`lines`] what it awaited, [`samples`] where it ran. [`critical`] finds what was waited for
//! in the end, [`visits`] puts the strands together, [`beside`] what is left of them, [`uncovered`] counts what is not seen; [`stacks`] names their stacks; [`sample`] makes the report that the backend sends, [`lanes`]
//! what it has besides of what the request did beside. [`ticks`] has threads sampled meanwhile.

mod beside;
mod critical;
mod following;
mod lanes;
mod lines;
mod run;
mod sample;
mod samples;
mod signatures;
mod stacks;
mod strand;
mod ticks;
mod track;
mod uncovered;
mod visits;

use std::fmt;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{process, thread};

use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use self::run::Run;
use self::ticks::Ticks;
use crate::TARGET;
use crate::backend::{Embedded, Oap};
use crate::config::ProfileConfig;
use crate::request::{EventQueue, Events, events};
use crate::self_test::Probe;
use crate::task::{ActiveTask, Board, ProfileTask, TaskError};

const SHUTDOWN: Duration = Duration::from_secs(5);
const DROP: Duration = Duration::from_secs(1);
const SHUT_DOWN: TaskError = TaskError("the layer is inactive or shut down");

/// The layer's handle of the agent. Dropping it stops the thread.
pub(crate) struct Agent {
    /// The process that has the thread: one that was forked from it has none.
    process: u32,
    board: Arc<Board>,
    events: Events,
    embedded: bool,
    orders: mpsc::UnboundedSender<Order>,
    /// Disconnected once the thread has ended.
    alive: Arc<Mutex<Receiver<()>>>,
}

/// What the layer asks of the agent's thread.
#[derive(Debug)]
enum Order {
    /// A task from code, already on the board.
    Profile(Arc<ActiveTask>),
    Shutdown {
        within: Duration,
    },
}

impl Agent {
    /// `probe` is what the self-test looks at.
    pub(crate) fn start(config: ProfileConfig, probe: Probe) -> Self {
        let (events, queue) = events();
        let (orders, inbox) = mpsc::unbounded_channel();
        let (living, alive) = sync_channel(0);
        let board = Arc::<Board>::default();
        let embedded = config.backend_service.is_none();
        if !config.sampling.running {
            events.sampling().forgo();
        }
        if config.active {
            let (board, events) = (Arc::clone(&board), events.clone());
            let started = thread::Builder::new().name("sw-profile".to_owned()).spawn(move || {
                work(config, probe, board, events, queue, inbox);
                drop(living);
            });
            if let Err(error) = started {
                error!(target: TARGET, %error, "cannot start the agent's thread: nothing will be profiled");
            }
        }
        Self { process: process::id(), board, events, embedded, orders, alive: Arc::new(Mutex::new(alive)) }
    }

    /// Whether this process was forked from the agent's.
    pub(crate) fn is_forked(&self) -> bool {
        process::id() != self.process
    }

    pub(crate) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn profile(&self, task: ProfileTask) -> Result<(), TaskError> {
        task.check()?;
        if !self.embedded {
            return Err(TaskError("the layer reports to an OAP, whose UI alone makes profile tasks"));
        }
        if self.orders.is_closed() || self.is_forked() {
            return Err(SHUT_DOWN);
        }
        // On the board at once: the very next request is to be followed.
        let task = self.board.put_up(task);
        if task.has_ended() || self.orders.send(Order::Profile(task)).is_err() {
            return Err(SHUT_DOWN);
        }
        Ok(())
    }

    pub(crate) async fn shutdown(&self) {
        if self.is_forked() || self.orders.send(Order::Shutdown { within: SHUTDOWN }).is_err() {
            return;
        }
        // The caller's runtime may have no timer, and the agent's thread may be held up in the application's callback: the
        // deadline has a thread of its own.
        let (done, ended) = oneshot::channel::<()>();
        let alive = Arc::clone(&self.alive);
        let waits = thread::Builder::new().name("sw-profile-stop".to_owned()).spawn(move || {
            wait_for_end(&alive, SHUTDOWN);
            drop(done);
        });
        if waits.is_ok() {
            // The sender's drop is the answer.
            let _ = ended.await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if !self.is_forked() && self.orders.send(Order::Shutdown { within: DROP }).is_ok() {
            wait_for_end(&self.alive, DROP);
        }
    }
}

/// Nothing is ever sent: this returns with the end of the agent's thread, or of the time.
fn wait_for_end(alive: &Mutex<Receiver<()>>, at_most: Duration) {
    let alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = alive.recv_timeout(at_most);
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("board", &self.board).field("embedded", &self.embedded).finish_non_exhaustive()
    }
}

/// The thread's whole life.
fn work(
    config: ProfileConfig,
    probe: Probe,
    board: Arc<Board>,
    events: Events,
    queue: EventQueue,
    orders: mpsc::UnboundedReceiver<Order>,
) {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return error!(target: TARGET, %error, "cannot start the agent's runtime: nothing will be profiled");
        }
    };
    let _closes = ClosesBoard(Arc::clone(&board));
    runtime.block_on(async move {
        let run = Run::new(config.frames, config.lanes, probe, board, queue, Ticks::new(config.sampling, events));
        match config.backend_service.clone().map(|address| Oap::new(&config, address)) {
            None => run.with(Embedded::new(config.on_profile), orders).await,
            Some(Ok(oap)) => run.discovering().with(oap, orders).await,
            Some(Err(error)) => {
                error!(target: TARGET, %error, "cannot use the OAP's address: nothing will be profiled")
            }
        }
    });
}

/// However the thread ends, by a panic too, requests are no longer followed.
struct ClosesBoard(Arc<Board>);

impl Drop for ClosesBoard {
    fn drop(&mut self) {
        self.0.close();
    }
}
