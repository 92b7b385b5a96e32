//! What async functions should not do: they block the thread that polls them, with a sleep and with a read.

use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use axum::response::Response;
use serde_json::json;

use crate::server_timing::ServerTiming;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/blocking";

const SLEEPS: Duration = Duration::from_millis(60);
const READ_TIMEOUT: Duration = Duration::from_millis(30);

/// The response tells how the read ended: by its timeout, which is `WouldBlock` or `TimedOut`, whoever looks at the thread
/// meanwhile.
pub(crate) async fn blocking() -> Response {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    sleep_blocking(&mut timing).await;
    let read = match read_blocking(&mut timing).await {
        Ok(length) => format!("{length} bytes"),
        Err(error) => format!("{:?}", error.kind()),
    };
    timing.note("blocking", start);
    timing.note("total", start);
    timing.response(json!({"read": read}))
}

async fn sleep_blocking(timing: &mut ServerTiming) {
    let start = Instant::now();
    thread::sleep(SLEEPS);
    timing.note("sleep_blocking", start);
}

/// From a peer that says nothing.
async fn read_blocking(timing: &mut ServerTiming) -> io::Result<usize> {
    let start = Instant::now();
    let peer = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut socket = TcpStream::connect(peer.local_addr()?)?;
    socket.set_read_timeout(Some(READ_TIMEOUT))?;
    let read = socket.read(&mut [0]);
    timing.note("read_blocking", start);
    read
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn the_read_ends_with_its_timeout() {
        let body = blocking().await.into_body().collect().await.unwrap().to_bytes();
        assert!(
            [r#"{"read":"WouldBlock"}"#, r#"{"read":"TimedOut"}"#].map(str::as_bytes).contains(&&body[..]),
            "{body:?}"
        );
    }
}
