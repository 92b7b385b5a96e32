//! Requests that wait for what their own tasks send, give back or tell: what the task did until then shows below the wait.

use std::sync::Arc;

use skywalking_profile::spawn;
use tokio::sync::{Mutex, Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::sleep;

use super::expect::{Clock, Span, shows, span};
use super::support::ms;

const TASK: [&str; 3] = ["task", "  work : work", "    tokio::time::sleep::Sleep : work"];

async fn work(clock: &Clock) {
    let _watch = clock.watch("work", 30);
    sleep(ms(30)).await;
}

/// The request waits by `wait` for the work of its task.
#[track_caller]
fn shows_work<F>(handler: impl Fn(Clock) -> F + Clone + Send + 'static, wait: &str)
where
    F: Future<Output = ()> + Send + 'static,
{
    let wait = format!("  {wait} : wait");
    let main = ["_", &wait, "    task : wait", "      work : work", "        tokio::time::sleep::Sleep : work"];
    shows(handler, &main, &[task(&TASK)]);
}

fn task<'a>(tree: &'a [&'a str]) -> Span<'a> {
    span("task", "task", tree)
}

#[test]
fn what_a_task_did_is_below_the_wait_for_what_it_sends() {
    shows_work(oneshots, "tokio::sync::oneshot::Receiver");
    shows_work(messages, "tokio::sync::mpsc::bounded::Receiver::recv");
    shows_work(unbounded, "tokio::sync::mpsc::unbounded::UnboundedReceiver::recv");
    shows_work(broadcasts, "tokio::sync::broadcast::Receiver::recv");
    shows_work(changes, "tokio::sync::watch::Receiver::changed");
}

async fn oneshots(clock: Clock) {
    async fn task(clock: Clock, sender: oneshot::Sender<()>) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        sender.send(()).expect("a receiver");
    }
    let (sender, receiver) = oneshot::channel();
    spawn(task(clock.clone(), sender));
    let _watch = clock.watch("wait", 30);
    receiver.await.expect("a sender");
}

async fn messages(clock: Clock) {
    async fn task(clock: Clock, sender: mpsc::Sender<()>) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        sender.send(()).await.expect("a receiver");
    }
    let (sender, mut receiver) = mpsc::channel(1);
    spawn(task(clock.clone(), sender));
    let _watch = clock.watch("wait", 30);
    receiver.recv().await.expect("a sender");
}

async fn unbounded(clock: Clock) {
    async fn task(clock: Clock, sender: mpsc::UnboundedSender<()>) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        sender.send(()).expect("a receiver");
    }
    let (sender, mut receiver) = mpsc::unbounded_channel();
    spawn(task(clock.clone(), sender));
    let _watch = clock.watch("wait", 30);
    receiver.recv().await.expect("a sender");
}

async fn broadcasts(clock: Clock) {
    async fn task(clock: Clock, sender: broadcast::Sender<()>) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        sender.send(()).expect("a receiver");
    }
    let (sender, mut receiver) = broadcast::channel(1);
    spawn(task(clock.clone(), sender));
    let _watch = clock.watch("wait", 30);
    receiver.recv().await.expect("a sender");
}

async fn changes(clock: Clock) {
    async fn task(clock: Clock, sender: watch::Sender<()>) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        sender.send(()).expect("a receiver");
    }
    let (sender, mut receiver) = watch::channel(());
    spawn(task(clock.clone(), sender));
    let _watch = clock.watch("wait", 30);
    receiver.changed().await.expect("a sender");
}

#[test]
fn what_a_task_did_is_below_the_wait_for_what_it_gives_back() {
    shows_work(notified, "tokio::sync::notify::Notified");
    shows_work(locked, "tokio::sync::mutex::Mutex::lock");
    shows_work(permitted, "tokio::sync::semaphore::Semaphore::acquire");
}

async fn notified(clock: Clock) {
    async fn task(clock: Clock, notify: Arc<Notify>) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        notify.notify_one();
    }
    let notify = Arc::new(Notify::new());
    spawn(task(clock.clone(), Arc::clone(&notify)));
    let _watch = clock.watch("wait", 30);
    notify.notified().await;
}

async fn locked(clock: Clock) {
    async fn task(clock: Clock, lock: tokio::sync::OwnedMutexGuard<()>) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        drop(lock);
    }
    let mutex = Arc::new(Mutex::new(()));
    let lock = Arc::clone(&mutex).lock_owned().await;
    spawn(task(clock.clone(), lock));
    let _watch = clock.watch("wait", 30);
    drop(mutex.lock().await);
}

async fn permitted(clock: Clock) {
    async fn task(clock: Clock, permit: tokio::sync::OwnedSemaphorePermit) {
        let _watch = clock.watch("task", 30);
        work(&clock).await;
        drop(permit);
    }
    let semaphore = Arc::new(Semaphore::new(1));
    let permit = Arc::clone(&semaphore).acquire_owned().await.expect("open");
    spawn(task(clock.clone(), permit));
    let _watch = clock.watch("wait", 30);
    drop(semaphore.acquire().await.expect("open"));
}

#[test]
fn what_a_task_does_after_its_answer_is_not_below_the_wait_for_it() {
    let main = [
        "_",
        "  tokio::sync::oneshot::Receiver : wait",
        "    goes_on : wait",
        "      work : work",
        "        tokio::time::sleep::Sleep : work",
        "  own : own",
        "    tokio::time::sleep::Sleep : own",
    ];
    let tree = [
        "goes_on : goes on",
        "  work : work",
        "    tokio::time::sleep::Sleep : work",
        "  rest : rest",
        "    tokio::time::sleep::Sleep : rest",
    ];
    shows(goes_on_after_its_answer, &main, &[span("goes_on", "goes on", &tree)]);
}

async fn goes_on_after_its_answer(clock: Clock) {
    let (sender, receiver) = oneshot::channel();
    spawn(goes_on(clock.clone(), sender));
    let wait = clock.watch("wait", 30);
    receiver.await.expect("a sender");
    drop(wait);
    own(&clock).await;
}

async fn goes_on(clock: Clock, sender: oneshot::Sender<()>) {
    let _watch = clock.watch("goes on", 50);
    work(&clock).await;
    sender.send(()).expect("a receiver");
    rest(&clock).await;
}

async fn rest(clock: &Clock) {
    let _watch = clock.watch("rest", 20);
    sleep(ms(20)).await;
}

async fn own(clock: &Clock) {
    let _watch = clock.watch("own", 50);
    sleep(ms(50)).await;
}

#[test]
fn of_several_messages_each_wait_is_for_what_was_done_meanwhile() {
    let main = [
        "_",
        "  tokio::sync::mpsc::bounded::Receiver::recv : wait",
        "    produce",
        "      work",
        "        tokio::time::sleep::Sleep",
        "  handle : handled",
        "    tokio::time::sleep::Sleep : handled",
    ];
    let tree = ["produce : produced", "  work : work", "    tokio::time::sleep::Sleep : work"];
    shows(several_messages, &main, &[span("produce", "produced", &tree)]);
}

/// It handles one while the next is being produced.
async fn several_messages(clock: Clock) {
    let (sender, mut receiver) = mpsc::channel(4);
    spawn(produce(clock.clone(), sender));
    for time in [30, 15, 15] {
        let wait = clock.watch("wait", time);
        receiver.recv().await.expect("a sender");
        drop(wait);
        handle(&clock).await;
    }
}

async fn produce(clock: Clock, sender: mpsc::Sender<()>) {
    let _watch = clock.watch("produced", 90);
    for _ in 0..3 {
        work(&clock).await;
        sender.send(()).await.expect("a receiver");
    }
}

async fn handle(clock: &Clock) {
    let _watch = clock.watch("handled", 15);
    sleep(ms(15)).await;
}

#[test]
fn what_a_task_is_asked_for_is_waited_for_by_it() {
    let main = [
        "_",
        "  own : own",
        "    tokio::time::sleep::Sleep : own",
        "  tokio::sync::oneshot::Receiver : wait",
        "    answers : wait",
        "      work : work",
        "        tokio::time::sleep::Sleep : work",
    ];
    let tree = [
        "answers : answers",
        "  tokio::sync::oneshot::Receiver : own",
        "  work : work",
        "    tokio::time::sleep::Sleep : work",
    ];
    shows(asks, &main, &[span("answers", "answers", &tree)]);
}

async fn asks(clock: Clock) {
    let (question, asked) = oneshot::channel();
    let (answer, answered) = oneshot::channel();
    spawn(answers(clock.clone(), asked, answer));
    own(&clock).await;
    question.send(()).expect("a receiver");
    let _watch = clock.watch("wait", 30);
    answered.await.expect("an answer");
}

async fn answers(clock: Clock, asked: oneshot::Receiver<()>, answer: oneshot::Sender<()>) {
    let _watch = clock.watch("answers", 80);
    asked.await.expect("a question");
    work(&clock).await;
    answer.send(()).expect("a receiver");
}
