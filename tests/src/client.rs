//! A client of the example: blocking, with trailers, many requests at a time, and one that goes away.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{
    HeaderMap, Request,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    runtime::{self, Runtime},
    task::JoinSet,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one server on this machine.
pub(crate) struct Client {
    runtime: Runtime,
    server: SocketAddr,
}

impl Client {
    pub(crate) fn new() -> Self {
        // Its one thread reads and writes also while no test waits for a response.
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: runtime.expect("a runtime"), server: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
    }

    pub(crate) fn set_server(&mut self, server: SocketAddr) {
        self.server = server;
    }

    #[track_caller]
    pub(crate) fn open(&self, method: &str, path: &str) -> Arriving<'_> {
        let opened = self.runtime.block_on(within(async {
            let mut connection = Connection::open(self.server).await?;
            let response = connection.send(self.server, method, path).await?;
            Ok((response, connection))
        }));
        let (response, connection) = opened.unwrap_or_else(|error| panic!("no response for {method} {path}: {error}"));
        let (head, body) = response.into_parts();
        let status = head.status.as_u16();
        let server_timing = server_timing(&head.headers);
        Arriving { client: self, _connection: connection, status, server_timing, body }
    }

    pub(crate) fn begin(&self, method: &'static str, path: &'static str) -> Begun {
        let (server, mut client) = (self.server, JoinSet::new());
        let request = async move {
            let mut connection = Connection::open(server).await?;
            let response = connection.send(server, method, path).await?;
            response.into_body().collect().await.map_err(told)?;
            Ok(())
        };
        client.spawn_on(request, self.runtime.handle());
        Begun { _client: client }
    }

    #[track_caller]
    pub(crate) fn give_up(&self, method: &str, path: &str, patience: Duration) {
        let given_up = self.runtime.block_on(async {
            let mut connection = Connection::open(self.server).await?;
            match timeout(patience, connection.send(self.server, method, path)).await {
                Ok(Ok(response)) => Err(format!("it answers {}", response.status())),
                Ok(Err(error)) => Err(error),
                Err(_) => Ok(()),
            }
        });
        given_up.unwrap_or_else(|error| panic!("{method} {path} within {patience:?}: {error}"));
    }

    pub(crate) fn load(&self, clients: usize, requests: &'static [(&'static str, &'static str)]) -> Load<'_> {
        let mut load =
            Load { client: self, clients: JoinSet::new(), is_over: Arc::default(), responses: Arc::default() };
        let server = self.server;
        for client in 0..clients {
            let (is_over, responses) = (Arc::clone(&load.is_over), Arc::clone(&load.responses));
            let client = async move {
                let mut connection = Connection::open(server).await?;
                for (method, path) in requests.iter().cycle().skip(client) {
                    let response = within(connection.send(server, method, path)).await?;
                    let status = response.status();
                    within(async { response.into_body().collect().await.map_err(told) }).await?;
                    if !status.is_success() {
                        return Err(format!("{method} {path} answers {status}"));
                    }
                    responses.fetch_add(1, Ordering::Relaxed);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Ok(())
            };
            load.clients.spawn_on(client, self.runtime.handle());
        }
        load
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.server).finish()
    }
}

/// Dropped, it is closed.
struct Connection {
    requests: SendRequest<Empty<Bytes>>,
    _driver: JoinSet<hyper::Result<()>>,
}

impl Connection {
    async fn open(server: SocketAddr) -> Result<Self, String> {
        let socket = TcpStream::connect(server).await.map_err(told)?;
        let (requests, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(told)?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { requests, _driver: driver })
    }

    async fn send(
        &mut self,
        server: SocketAddr,
        method: &str,
        path: &str,
    ) -> Result<hyper::Response<Incoming>, String> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", server.to_string())
            // Otherwise hyper's server sends none.
            .header("te", "trailers")
            .header("connection", "te")
            .body(Empty::new())
            .map_err(told)?;
        self.requests.ready().await.map_err(told)?;
        self.requests.send_request(request).await.map_err(told)
    }
}

async fn within<T>(answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(format!("nothing within {PATIENCE:?}")))
}

fn told(error: impl fmt::Display) -> String {
    error.to_string()
}

/// A response of which the head is there. Dropped, its client has gone away.
pub struct Arriving<'a> {
    client: &'a Client,
    _connection: Connection,
    status: u16,
    server_timing: Vec<(String, f64)>,
    body: Incoming,
}

impl Arriving<'_> {
    /// Reads it to its end.
    #[track_caller]
    pub fn whole(self) -> Response {
        let Self { status, mut server_timing, body, .. } = self;
        let body = self.client.runtime.block_on(within(async { body.collect().await.map_err(told) }));
        let body = body.unwrap_or_else(|error| panic!("no body: {error}"));
        if let Some(trailers) = body.trailers() {
            server_timing.extend(self::server_timing(trailers));
        }
        let body = String::from_utf8(body.to_bytes().into()).expect("the example sends text");
        Response { status, body, server_timing }
    }

    /// Closes the connection and returns what has come: the head.
    pub fn leave(self) -> Response {
        Response { status: self.status, body: String::new(), server_timing: self.server_timing }
    }
}

impl fmt::Debug for Arriving<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A request whose response nobody looks at. Dropped, its client has gone away.
#[derive(Debug)]
#[must_use = "dropped, the client has gone away"]
pub struct Begun {
    _client: JoinSet<Result<(), String>>,
}

/// Clients that send one request after the other, each on a connection of its own. Dropped, they go away.
#[derive(Debug)]
pub struct Load<'a> {
    client: &'a Client,
    clients: JoinSet<Result<(), String>>,
    is_over: Arc<AtomicBool>,
    responses: Arc<AtomicUsize>,
}

impl Load<'_> {
    /// How many responses have come so far.
    pub fn responses(&self) -> usize {
        self.responses.load(Ordering::Relaxed)
    }

    /// Lets each client have its last response, and panics if one of them missed any.
    #[track_caller]
    pub fn end(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.client.runtime.block_on(self.clients.join_next()) {
            ended.expect("clients do not panic").unwrap_or_else(|error| panic!("a client under load: {error}"));
        }
    }
}

/// A response of the example.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The whole body.
    pub body: String,
    /// The `server-timing` header and then the trailer, each in its order: the inclusive milliseconds that the program
    /// measured, by function name.
    pub server_timing: Vec<(String, f64)>,
}

impl Response {
    /// The milliseconds that the program measured for the function `name`.
    #[track_caller]
    pub fn timing(&self, name: &str) -> f64 {
        let timing = self.server_timing.iter().find(|(function, _)| function == name);
        timing.unwrap_or_else(|| panic!("no {name} in {:?}", self.server_timing)).1
    }
}

#[track_caller]
fn server_timing(headers: &HeaderMap) -> Vec<(String, f64)> {
    let Some(timing) = headers.get("server-timing") else { return Vec::new() };
    let text = timing.to_str().ok();
    text.and_then(parse).unwrap_or_else(|| panic!("malformed server-timing: {timing:?}"))
}

fn parse(server_timing: &str) -> Option<Vec<(String, f64)>> {
    let metric = |metric: &str| {
        let (name, duration) = metric.trim().split_once(";dur=")?;
        Some((String::from(name), duration.parse().ok()?))
    };
    server_timing.split(',').map(metric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_keeps_its_order() {
        let expected = vec![(String::from("method3"), 60.41), (String::from("method2"), 40.2)];
        assert_eq!(parse("method3;dur=60.41, method2;dur=40.2"), Some(expected));
        assert_eq!(parse("method3"), None);
    }
}
