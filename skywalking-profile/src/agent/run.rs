//! The agent's loop: owns all of its state, and waits for events, tasks, orders and the next due time.

use std::collections::HashMap;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::oneshot::Receiver;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Order;
use super::following::{Following, share};
use super::sample::{list_uncovered, sample};
use super::stacks::Stacks;
use super::ticks::Ticks;
use super::track::Track;
use crate::backend::{Backend, News, Port, Report, Spool, spool};
use crate::request::{Ended, Event, EventQueue, Left, QUEUED};
use crate::self_test::{self, Found, Probe};
use crate::stack::Frames;
use crate::task::{ActiveTask, Board, Losses, MOST_ENDPOINTS, Origin, ProfileTask};
use crate::trace::Segment;
use crate::{TARGET, clock};

/// Endpoints that are named when none of a task's was seen.
const LIKE_ENDPOINTS: usize = 5;

/// How often the events of followed requests are looked at: often enough that their queue stays short.
const LOOK: Duration = Duration::from_millis(20);

/// How long the images of an open wait are held, however long the dump period is.
const LONGEST_HELD: Duration = Duration::from_millis(100);

/// How long discovery rests after it met a known endpoint.
const DISCOVERY_RESTS_NS: u64 = 1_000_000_000;

/// The loop's state.
pub(super) struct Run {
    probe: Probe,
    board: Arc<Board>,
    queue: EventQueue,
    stacks: Stacks,
    /// The most segments besides its own that a request may have.
    lanes: usize,
    ticks: Ticks,
    tasks: Vec<RunningTask>,
    /// Tasks of the OAP whose start time has not come.
    scheduled: Vec<(u64, ProfileTask)>,
    /// By the number of the request's own strand.
    following: HashMap<u64, Following>,
    /// The requests of the other strands.
    owners: HashMap<u64, u64>,
    /// When discovery goes on, if it rests.
    discovery_due: Option<u64>,
    reports: Option<Spool>,
    /// When the followed requests were last looked at, one by one.
    swept: u64,
}

struct RunningTask {
    active: Arc<ActiveTask>,
    /// By [`clock::now`].
    ends: Option<u64>,
}

impl Run {
    pub(super) fn new(
        shown: Frames,
        lanes: usize,
        probe: Probe,
        board: Arc<Board>,
        queue: EventQueue,
        ticks: Ticks,
    ) -> Self {
        Self {
            probe,
            board,
            queue,
            stacks: Stacks::new(shown),
            lanes,
            ticks,
            tasks: Vec::new(),
            scheduled: Vec::new(),
            following: HashMap::new(),
            owners: HashMap::new(),
            discovery_due: None,
            reports: None,
            swept: 0,
        }
    }

    /// Reports endpoints that the OAP does not know yet.
    pub(super) fn discovering(self) -> Self {
        self.board.discover();
        self
    }

    /// Runs until it is ordered to shut down, or nobody is left to order it.
    pub(super) async fn with(mut self, backend: impl Backend, mut orders: UnboundedReceiver<Order>) {
        info!(target: TARGET, "skywalking-profile {} {}", env!("CARGO_PKG_VERSION"), backend.description());
        let mut self_test = self_test::start(self.probe, self.ticks.settings());
        let (spool, reports) = spool();
        let held = spool.held();
        let (news_sender, mut news) = mpsc::channel(16);
        self.reports = Some(spool);
        let mut backend = pin!(backend.run(Port { news: news_sender, reports }));

        let within = loop {
            tokio::select! {
                // Sends the reports; ends only after them.
                () = &mut backend => {}
                order = orders.recv() => match order {
                    Some(Order::Profile(active)) => self.track(active),
                    Some(Order::Shutdown { within }) => break within,
                    None => break Duration::ZERO,
                },
                Some(news) = news.recv() => match news {
                    News::Task(task) => self.schedule(task),
                    News::Undiscovered(endpoint) => self.board.forget_endpoint(&endpoint),
                },
                found = found_by(&mut self_test) => found.tell(),
                () = self.queue.worth_a_look() => {}
                () = self.due() => {}
            }
            self.look();
        };
        self.look();
        // A program that ends at once is told, too.
        if let Some(self_test) = self_test
            && let Ok(found) = self_test.await
        {
            found.tell();
        }
        while let Some(task) = self.tasks.pop() {
            self.finish(task, "the layer shut down");
        }
        for (_, task) in std::mem::take(&mut self.scheduled) {
            self.report(Report::Finish(task.id().to_owned()));
        }
        // What goes on is no longer looked at.
        self.board.close();
        self.reports = None;
        if timeout(within, backend).await.is_err() {
            let lost = held.samples();
            warn!(target: TARGET, lost, "the OAP could not be told everything before the layer shut down");
        }
    }

    /// Waits for the next time at which there is something to do without an event.
    async fn due(&self) {
        let now = clock::now();
        let look = (!self.following.is_empty()).then(|| now + clock::nanos(LOOK));
        let ends = self.tasks.iter().filter_map(|task| task.ends);
        let starts = self.scheduled.iter().map(|(start, _)| *start);
        match ends.chain(starts).chain(look).chain(self.discovery_due).min() {
            Some(due) => sleep(Duration::from_nanos(due.saturating_sub(now))).await,
            None => pending().await,
        }
    }

    fn look(&mut self) {
        // No more than the queue holds: if need be, events come as fast as they are read.
        for _ in 0..QUEUED {
            let Some(event) = self.queue.next() else { break };
            self.handle(event);
        }
        let now = clock::now();
        if self.discovery_due.is_some_and(|due| due <= now) {
            self.discovery_due = None;
            self.board.discover();
        }
        if now.saturating_sub(self.swept) >= clock::nanos(LOOK) {
            self.swept = now;
            self.sweep(now);
        }
        while let Some(i) = self.scheduled.iter().position(|(start, _)| *start <= now) {
            let (_, task) = self.scheduled.swap_remove(i);
            let active = self.board.put_up(task);
            self.track(active);
        }
        while let Some(i) = self.tasks.iter().position(|task| task.ends.is_some_and(|ends| ends <= now)) {
            let task = self.tasks.swap_remove(i);
            self.finish(task, "its time is over");
        }
    }

    /// Looks at each followed request: bounds its timeline, frees the images of a wait that lasts, and drops what is known
    /// of requests whose end was lost.
    fn sweep(&mut self, now: u64) {
        let share = share(self.following.len() + self.owners.len());
        let stacks = &mut self.stacks;
        let mut gone = Vec::new();
        for (request, following) in &mut self.following {
            following.keep(share);
            let period = following.started.task.task.dump_period.min(LONGEST_HELD);
            following.take_open_waits(now.saturating_sub(clock::nanos(period)), stacks);
            // Its last event was queued before, and what the queue held has been read since the last sweep.
            let is_gone = following.has_left();
            if std::mem::replace(&mut following.is_gone, is_gone) {
                gone.push(*request);
            }
        }
        for following in gone.into_iter().filter_map(|request| self.forget(request)) {
            following.started.task.give_back();
        }
    }

    fn forget(&mut self, request: u64) -> Option<Following> {
        let following = self.following.remove(&request)?;
        for strand in following.children.keys() {
            self.owners.remove(strand);
        }
        Some(following)
    }

    fn handle(&mut self, event: Event) {
        let Self { following, owners, stacks, ticks, .. } = self;
        match event {
            Event::Started(started) => {
                // A task that has ended looks at no request any more.
                if !started.task.has_ended() {
                    following.insert(started.strand.id.request, Following::new(started));
                }
            }
            Event::Began(began) => {
                let id = began.strand.id;
                if let Some(following) = following.get_mut(&id.request) {
                    owners.insert(id.number, id.request);
                    following.began(began);
                }
            }
            Event::Ran { strand, from, to } => {
                if let Some((track, losses)) = track(following, owners, strand) {
                    track.ran(from, to, losses);
                }
            }
            Event::Waited { strand, wait, ready, to } => {
                if let Some((track, losses)) = track(following, owners, strand) {
                    track.waited(*wait, ready, to, stacks, losses);
                }
            }
            Event::WaitEnded { strand, ready, to } => {
                if let Some((track, losses)) = track(following, owners, strand) {
                    track.end_taken_wait(ready, to, losses);
                }
            }
            Event::Sampled(sample) => {
                if let Some((track, losses)) = track(following, owners, sample.strand)
                    && !track.sampled(sample, stacks, losses)
                {
                    ticks.lose();
                }
            }
            Event::Left { strand, at, how, untold } => {
                if let Some(following) = owners.get(&strand).and_then(|request| following.get_mut(request)) {
                    following.left(strand, at, how, &untold);
                    if how == Left::Inline {
                        owners.remove(&strand);
                    }
                }
            }
            Event::Ended(ended) => {
                if let Some(mut following) = self.forget(ended.request) {
                    following.own.end(&ended.untold);
                    following.cut(ended.at, &mut self.stacks);
                    self.ended(&following, &ended);
                }
            }
            Event::Discovered { endpoint, started, took_ns, status } => {
                let mut segment = Segment::new(Arc::clone(&endpoint), started, took_ns, None);
                segment.first.set_status(status);
                if !self.report(Report::Discovery(Box::new(segment))) {
                    self.board.forget_endpoint(&endpoint);
                }
            }
            Event::NothingNew => self.discovery_due = Some(clock::now() + DISCOVERY_RESTS_NS),
            Event::TooManyEndpoints => warn!(
                target: TARGET,
                "more than {MOST_ENDPOINTS} endpoints: the OAP is told of no others; name them by routes, not by raw paths \
                 (`ProfileLayer::with_route`)"
            ),
        }
    }

    fn ended(&mut self, following: &Following, ended: &Ended) {
        let active = &following.started.task;
        if !active.keeps(Duration::from_nanos(ended.at.saturating_sub(following.started.at))) {
            return;
        }
        self.report_sample(following, ended.at, Some(ended));
        if active.is_complete()
            && let Some(i) = self.tasks.iter().position(|task| Arc::ptr_eq(&task.active, active))
        {
            let task = self.tasks.swap_remove(i);
            self.finish(task, "all its samples are in");
        }
    }

    /// A task of the OAP: begins at its start time, and ends by it, whenever it arrived.
    fn schedule(&mut self, task: ProfileTask) {
        let Origin::Oap { id, start } = &task.origin else { return };
        let mut starts = clock::now();
        match start.duration_since(SystemTime::now()) {
            Ok(ahead) if ahead > Duration::from_secs(1) => {
                info!(target: TARGET, task = id, "a profile task begins in {ahead:.0?} by this host's clock");
                starts = starts.saturating_add(clock::nanos(ahead));
            }
            Err(behind) if task.duration.is_some_and(|duration| duration <= behind.duration()) => {
                warn!(target: TARGET, task = id, "a profile task arrived after its end by this host's clock");
                self.report(Report::Finish(id.clone()));
                return;
            }
            Ok(_) | Err(_) => {}
        }
        self.scheduled.push((starts, task));
    }

    /// Watches over a task that is on the board.
    fn track(&mut self, active: Arc<ActiveTask>) {
        let task = &active.task;
        let ends = task.duration.map(|duration| {
            let late = match &task.origin {
                Origin::Code => Duration::ZERO,
                Origin::Oap { start, .. } => start.elapsed().unwrap_or_default(),
            };
            clock::now().saturating_add(clock::nanos(duration.saturating_sub(late)))
        });
        // Who made a task in code knows.
        if let Origin::Oap { id, .. } = &task.origin {
            info!(
                target: TARGET,
                task = id,
                endpoint = task.endpoint,
                samples = task.max_sampling_count,
                threshold = ?task.min_duration_threshold,
                period = ?task.dump_period,
                "profile task begins"
            );
        }
        let task = RunningTask { active, ends };
        // Its requests may have ended before the order to track it was read.
        if task.active.is_complete() {
            self.finish(task, "all its samples are in");
        } else {
            self.tasks.push(task);
            self.sample_threads();
            self.stacks.prepare();
        }
    }

    fn sample_threads(&mut self) {
        self.ticks.sample_for(self.tasks.iter().map(|task| task.active.task.dump_period));
    }

    fn finish(&mut self, RunningTask { active, .. }: RunningTask, why: &str) {
        self.board.take_down(&active);
        let now = clock::now();
        let is_of_task = |(_, following): &(&u64, &Following)| Arc::ptr_eq(&following.started.task, &active);
        let unfinished: Vec<u64> = self.following.iter().filter(is_of_task).map(|(request, _)| *request).collect();
        let mut unfinished: Vec<_> = unfinished.into_iter().filter_map(|request| self.forget(request)).collect();
        // A request that hangs is just what was looked for; the longer, the more.
        unfinished.sort_by_key(|following| following.started.at);
        for mut following in unfinished {
            if following.has_left() {
                active.give_back();
                continue;
            }
            // Whether it is kept or not: its images are freed.
            following.cut(now, &mut self.stacks);
            if !active.is_complete() && active.keeps(Duration::from_nanos(now.saturating_sub(following.started.at))) {
                self.report_sample(&following, now, None);
            }
        }
        let (tally, losses, sampling) = (active.tally(), &active.losses, self.ticks.losses());
        info!(
            target: TARGET,
            task = active.task.id(),
            endpoint = active.task.endpoint,
            seen = tally.seen,
            matched = tally.matched,
            below_threshold = tally.below_threshold,
            profiled = tally.kept,
            not_followed = losses.unfollowed.load(Ordering::Relaxed),
            no_room_to_report = losses.unreported.load(Ordering::Relaxed),
            without_shortest_waits = losses.coarsened.load(Ordering::Relaxed),
            unfollowed_tasks = losses.children.load(Ordering::Relaxed),
            uncovered = list_uncovered(&losses.uncovered()),
            waits_without_stack = losses.stackless.load(Ordering::Relaxed),
            lost_events = losses.events.load(Ordering::Relaxed),
            spans_left_out = losses.spans.load(Ordering::Relaxed),
            samples = losses.samples.load(Ordering::Relaxed),
            cut_samples = losses.cut_samples.load(Ordering::Relaxed),
            missed_samples = sampling.ticks.swap(0, Ordering::Relaxed),
            unanswered_signals = sampling.signals.swap(0, Ordering::Relaxed),
            interrupted_calls = sampling.calls.swap(0, Ordering::Relaxed),
            "profile task ends: {why}"
        );
        if let Origin::Oap { id, .. } = &active.task.origin {
            if tally.matched == 0 {
                let mut seen = self.board.endpoints_like(&active.task.endpoint);
                seen.truncate(LIKE_ENDPOINTS);
                warn!(
                    target: TARGET,
                    task = id,
                    "no request was of endpoint `{}`; most like it: {}",
                    active.task.endpoint,
                    if seen.is_empty() { "none was seen".to_owned() } else { seen.join(", ") },
                );
            }
            self.report(Report::Finish(id.clone()));
        }
        if self.tasks.is_empty() {
            self.sample_threads();
            self.stacks.release();
        }
    }

    fn report_sample(&mut self, following: &Following, end: u64, ended: Option<&Ended>) {
        let sample = sample(following, end, ended, self.lanes, &mut self.stacks);
        if !self.report(Report::Sample(Box::new(sample))) {
            following.started.task.losses.unreported.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether there was room for it.
    fn report(&self, report: Report) -> bool {
        self.reports.as_ref().is_some_and(|spool| spool.put(report))
    }
}

/// A strand of a request that is followed, and what is not seen of its task's.
fn track<'a>(
    following: &'a mut HashMap<u64, Following>,
    owners: &HashMap<u64, u64>,
    strand: u64,
) -> Option<(&'a mut Track, &'a Losses)> {
    let Following { started, own, children, .. } = following.get_mut(owners.get(&strand).unwrap_or(&strand))?;
    let track = if started.strand.id.number == strand { own } else { &mut children.get_mut(&strand)?.track };
    Some((track, &started.task.losses))
}

/// What the self-test found, once it is known, and once only.
async fn found_by(self_test: &mut Option<Receiver<Found>>) -> Found {
    if let Some(receiver) = self_test {
        let found = receiver.await;
        *self_test = None;
        if let Ok(found) = found {
            return found;
        }
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use std::task::{Poll, Waker};

    use super::*;
    use crate::config::Sampling;
    use crate::request::{Events, Followed, MOST_FOLLOWED, events};

    fn run() -> (Run, Events, Arc<ActiveTask>) {
        let (events, queue) = events();
        let ticks = Ticks::new(Sampling::default(), events.clone());
        let mut run = Run::new(Frames::default(), 5, self_test::probe, Arc::default(), queue, ticks);
        let task = run.board.put_up(ProfileTask::new("GET:/").samples(u64::MAX));
        run.track(Arc::clone(&task));
        (run, events, task)
    }

    fn followed(events: &Events, task: &Arc<ActiveTask>) -> Followed {
        Followed::start(events, Arc::clone(task), &http::Request::new(())).unwrap()
    }

    fn finish(run: &mut Run) {
        let task = run.tasks.pop().unwrap();
        run.finish(task, "the test wants it");
    }

    #[test]
    fn a_look_ends_however_fast_events_come() {
        let (mut run, events, task) = run();
        let request = followed(&events, &task);
        let looks = std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                while !task.has_ended() {
                    while events.send(Event::NothingNew) {}
                }
            });
            (0..3).for_each(|_| run.look());
            task.end();
            flood.join()
        });
        looks.unwrap();
        drop(request);
    }

    #[test]
    fn a_request_that_is_told_of_after_its_task_is_not_followed() {
        let (mut run, events, task) = run();
        let _request = followed(&events, &task);
        finish(&mut run);
        run.look();
        assert!(run.following.is_empty());
    }

    #[test]
    fn a_poll_that_outlasts_its_task_leaves_nothing_behind() {
        let (mut run, events, task) = run();
        let mut request = followed(&events, &task);
        run.look();
        let slot = Arc::clone(&run.following.values().next().unwrap().started.slot);
        let polled = request.poll(Waker::noop(), |_| {
            finish(&mut run);
            Poll::<()>::Pending
        });
        assert!(polled.is_pending() && slot.take().is_none());
    }

    #[test]
    fn requests_that_outlast_their_task_leave_room_for_others() {
        let (mut run, events, task) = run();
        let hanging: Vec<_> = (0..MOST_FOLLOWED).map(|_| followed(&events, &task)).collect();
        let start = |task| Followed::start(&events, task, &http::Request::new(()));
        assert!(start(Arc::clone(&task)).is_none());
        finish(&mut run);
        run.look();
        assert!(start(task).is_some());
        drop(hanging);
    }
}
