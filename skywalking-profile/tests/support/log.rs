//! What the agents of this process log, told apart by their threads, or all together.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());
static NEWS: Condvar = Condvar::new();

/// The log of one agent, or of all.
#[derive(Debug)]
pub(crate) struct Log {
    /// How the agent's first line ends.
    names: Option<String>,
}

/// A line of it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) level: Level,
    pub(crate) message: String,
    fields: HashMap<&'static str, String>,
    thread: ThreadId,
}

impl Log {
    /// Of the agent with these names. To be called before it starts.
    pub(crate) fn of(service: &str, instance: &str) -> Self {
        Self::with(Some(format!(" as {service} / {instance}")))
    }

    /// Of all agents, their samplers included. To be called before they start.
    pub(crate) fn of_all() -> Self {
        Self::with(None)
    }

    fn with(names: Option<String>) -> Self {
        static RECORDS: OnceLock<()> = OnceLock::new();
        RECORDS.get_or_init(|| {
            let recorder = tracing_subscriber::registry().with(Recorder);
            tracing::subscriber::set_global_default(recorder).expect("the only one of this process");
        });
        Self { names }
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines_among(&lines())
    }

    pub(crate) fn lines_with(&self, message: &str) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.message.starts_with(message)).collect()
    }

    /// The only line that begins so; waits for it.
    #[track_caller]
    pub(crate) fn line(&self, message: &str, within: Duration) -> Line {
        self.only(message, within, |line| line.message.starts_with(message))
    }

    /// The only line about the task that begins so; waits for it.
    #[track_caller]
    pub(crate) fn line_of(&self, task: &str, message: &str, within: Duration) -> Line {
        let is_of = |line: &Line| line.fields.get("task").is_some_and(|id| id == task);
        self.only(&format!("{message} (task {task})"), within, |line| is_of(line) && line.message.starts_with(message))
    }

    #[track_caller]
    fn only(&self, what: &str, within: Duration, is_it: impl Fn(&Line) -> bool) -> Line {
        let start = Instant::now();
        let mut all = lines();
        loop {
            let found: Vec<_> = self.lines_among(&all).into_iter().filter(&is_it).collect();
            let left = within.saturating_sub(start.elapsed());
            match found.as_slice() {
                [line] => return line.clone(),
                [] if !left.is_zero() => {
                    all = NEWS.wait_timeout(all, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                found => {
                    let times = found.len();
                    drop(all);
                    panic!("{times} times after {:?}: {what}\n{self}", start.elapsed());
                }
            }
        }
    }

    fn lines_among(&self, all: &[Line]) -> Vec<Line> {
        let Some(names) = &self.names else { return all.to_vec() };
        let Some(first) = all.iter().find(|line| line.message.ends_with(names)) else { return Vec::new() };
        all.iter().filter(|line| line.thread == first.thread).cloned().collect()
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Line {
    #[track_caller]
    pub(crate) fn text(&self, field: &str) -> &str {
        self.fields.get(field).unwrap_or_else(|| panic!("no {field} in {self}"))
    }

    #[track_caller]
    pub(crate) fn number(&self, field: &str) -> usize {
        self.text(field).parse().unwrap_or_else(|_| panic!("{field} is no number in {self}"))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5} {} {:?}", self.level, self.message, self.fields)
    }
}

struct Recorder;

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "skywalking_profile" {
            return;
        }
        let mut line = Line {
            at: Instant::now(),
            level: *event.metadata().level(),
            message: String::new(),
            fields: HashMap::new(),
            thread: thread::current().id(),
        };
        event.record(&mut line);
        lines().push(line);
        NEWS.notify_all();
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => drop(self.fields.insert(name, format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

fn lines() -> MutexGuard<'static, Vec<Line>> {
    LINES.lock().unwrap_or_else(PoisonError::into_inner)
}
