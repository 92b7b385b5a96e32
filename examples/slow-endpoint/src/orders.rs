//! An order: read from an upstream over a connection of its own, then streamed to the client.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::Request;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::server_timing::ServerTiming;
use crate::upstream::GREETING;

/// The endpoint as SkyWalking names it.
pub(crate) const NAME: &str = "GET:/orders/{id}";

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const BETWEEN_ITEMS: Duration = Duration::from_millis(20);

pub(crate) fn router(upstream: SocketAddr) -> Router {
    Router::new().route("/orders/{id}", get(order)).with_state(upstream)
}

/// `/orders/7?items=20`: an order of 20 items takes longer than the usual one.
#[derive(Debug, Deserialize)]
struct Size {
    #[serde(default = "usual_items")]
    items: u8,
}

fn usual_items() -> u8 {
    5
}

/// The header tells the times up to the head of the response, a trailer those of its body.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn order(
    State(upstream): State<SocketAddr>,
    Path(id): Path<u64>,
    Query(size): Query<Size>,
) -> Result<Response, BadGateway> {
    let (mut timing, start) = (ServerTiming::default(), Instant::now());
    let mut upstream = connect_upstream(upstream, &mut timing).await?;
    let response = await_response(&mut upstream, id, size.items, &mut timing).await?;
    let items = read_body(response, &mut timing).await?;
    timing.note("order", start);

    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (SERVER_TIMING, timing.header()),
        (header::TRAILER, SERVER_TIMING.into()),
    ];
    let answer = Answer { items: items.into_iter(), start, streamed: Duration::ZERO, is_told: false };
    Ok((headers, Body::new(StreamBody::new(stream::unfold(answer, stream_answer)))).into_response())
}

/// A connection to the upstream. Dropped, it aborts the task that drives it.
struct Upstream {
    address: SocketAddr,
    requests: SendRequest<Empty<Bytes>>,
    _driver: JoinSet<hyper::Result<()>>,
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn connect_upstream(address: SocketAddr, timing: &mut ServerTiming) -> Result<Upstream, BadGateway> {
    let start = Instant::now();
    let mut socket = TcpStream::connect(address).await?;
    let mut greeting = [0; GREETING.len()];
    socket.read_exact(&mut greeting).await?;
    if greeting != GREETING {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not greet as agreed").into());
    }
    let (requests, connection) = http1::handshake(TokioIo::new(socket)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    timing.note("connect_upstream", start);
    Ok(Upstream { address, requests, _driver: driver })
}

#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn await_response(
    upstream: &mut Upstream,
    id: u64,
    items: u8,
    timing: &mut ServerTiming,
) -> Result<hyper::Response<Incoming>, BadGateway> {
    let start = Instant::now();
    let request = Request::get(format!("/orders/{id}/items/{items}"))
        .header(header::HOST, upstream.address.to_string())
        .body(Empty::new())?;
    let response = upstream.requests.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("it answers {}", response.status())).into());
    }
    timing.note("await_response", start);
    Ok(response)
}

/// The order's items, a line each.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn read_body(response: hyper::Response<Incoming>, timing: &mut ServerTiming) -> Result<Vec<Bytes>, BadGateway> {
    let start = Instant::now();
    let body = response.into_body().collect().await?.to_bytes();
    timing.note("read_body", start);
    Ok(body.split_inclusive(|&byte| byte == b'\n').map(|item| body.slice_ref(item)).collect())
}

/// What has not been streamed yet.
struct Answer {
    items: std::vec::IntoIter<Bytes>,
    /// The handler's.
    start: Instant,
    /// In [`stream_answer`], without what the client takes between its frames.
    streamed: Duration,
    is_told: bool,
}

/// The next frame of the response: 20 ms later the next item, after the last one the times.
#[cfg_attr(feature = "async-backtrace", async_backtrace::framed)]
async fn stream_answer(mut answer: Answer) -> Option<(Result<Frame<Bytes>, Infallible>, Answer)> {
    let start = Instant::now();
    let frame = match answer.items.next() {
        Some(item) => {
            sleep(BETWEEN_ITEMS).await;
            Frame::data(item)
        }
        None if answer.is_told => return None,
        None => {
            answer.is_told = true;
            let mut timing = ServerTiming::default();
            timing.add("stream_answer", answer.streamed);
            timing.note("total", answer.start);
            Frame::trailers(HeaderMap::from_iter([(SERVER_TIMING, timing.header())]))
        }
    };
    answer.streamed += start.elapsed();
    Some((Ok(frame), answer))
}

/// The upstream failed, and why.
struct BadGateway(String);

impl<E: Error> From<E> for BadGateway {
    fn from(error: E) -> Self {
        let mut text = format!("the upstream of the orders failed: {error}");
        let mut source = error.source();
        while let Some(error) = source {
            text += &format!(": {error}");
            source = error.source();
        }
        Self(text + "\n")
    }
}

impl IntoResponse for BadGateway {
    fn into_response(self) -> Response {
        (StatusCode::BAD_GATEWAY, self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream;

    async fn ask(upstream: SocketAddr) -> Response {
        order(State(upstream), Path(7), Query(Size { items: 2 })).await.into_response()
    }

    /// An upstream that takes one request from each client, if it lets them come to that.
    async fn upstream_that_says(greeting: &'static [u8], answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                socket.write_all(greeting).await.unwrap();
                if !answer.is_empty() {
                    assert!(socket.read(&mut [0; 1024]).await.unwrap() > 0);
                    socket.write_all(answer).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn an_order_is_streamed_and_then_its_times() {
        let response = ask(upstream::start().await.unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let functions = |timing: &HeaderValue| -> Vec<String> {
            let times = timing.to_str().unwrap().split(", ");
            times.filter_map(|time| Some(time.split_once(";dur=")?.0.to_owned())).collect()
        };
        let head = functions(&response.headers()[SERVER_TIMING]);
        assert_eq!(head, ["order", "read_body", "await_response", "connect_upstream"]);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(functions(&body.trailers().unwrap()[SERVER_TIMING]), ["total", "stream_answer"]);
        assert_eq!(body.to_bytes(), "{\"item\":1}\n{\"item\":2}\n");
    }

    #[tokio::test]
    async fn an_upstream_that_fails_is_a_bad_gateway() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for (upstream, why) in [
            (nobody, "Connection refused"),
            (upstream_that_says(b"", b"").await, "early eof"),
            (upstream_that_says(b"220 smtp\n", b"").await, "it does not greet as agreed"),
            (upstream_that_says(b"ready\n", b"HTTP/1.1 404 \r\n\r\n").await, "it answers 404 Not Found"),
            (upstream_that_says(b"ready\n", b"HTTP/1.1 ").await, "connection closed before message completed"),
        ] {
            let response = ask(upstream).await;
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
            let text = response.into_body().collect().await.unwrap().to_bytes();
            let text = String::from_utf8_lossy(&text);
            assert!(text.starts_with("the upstream of the orders failed: ") && text.contains(why), "{text}");
        }
    }
}
