//! Waiting for what is about to happen.

use std::{
    fmt::Display,
    panic::{RefUnwindSafe, catch_unwind},
    thread,
    time::{Duration, Instant},
};

const INTERVAL: Duration = Duration::from_millis(100);

/// Polls until there is a value; panics with `what` when there is none within `timeout`.
#[track_caller]
pub fn until<T>(what: &str, timeout: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    until_ok(what, timeout, || poll().ok_or("nothing"))
}

/// Like [`until`], with a poll that says what it saw instead: the panic shows the last of it.
#[track_caller]
pub fn until_ok<T, E: Display>(what: &str, timeout: Duration, mut poll: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match poll() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() >= timeout => {
                panic!("no {what} within {timeout:?}, at last: {seen}")
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}

/// On a busy machine threads wait for their turn: timers that elapse one after the other are noticed together, and what happens
/// while the sampler waits is divided by guess. Then a test is tried again, three times in all.
pub fn tried_again(test: impl Fn() + RefUnwindSafe) {
    if (0..2).all(|_| catch_unwind(&test).is_err()) {
        test();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_value() {
        let mut polls = 0;
        let value = until("third poll", Duration::from_secs(10), || {
            polls += 1;
            (polls == 3).then_some("value")
        });
        assert_eq!((value, polls), ("value", 3));
    }

    #[test]
    #[should_panic(expected = "no luck within 0ns, at last: rain")]
    fn panics_with_what_was_seen_last() {
        until_ok("luck", Duration::ZERO, || Err::<(), _>("rain"));
    }
}
