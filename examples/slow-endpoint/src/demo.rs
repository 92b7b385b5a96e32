//! The demo run: one request of each of the telling endpoints, shown with the times that the program itself measured.

use std::env;
use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal};
use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use http_body_util::BodyExt;
use hyper::Request;
use hyper_util::rt::TokioIo;
use skywalking_profile_axum::{ProfileNode, ProfileTree};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::{blocking, cpu, join, orders, spawn, starved};

/// What is called, in this order.
const SHOWN: [&str; 8] =
    ["POST:/", "POST:/diagram", orders::NAME, join::NAME, spawn::NAME, cpu::NAME, blocking::NAME, starved::NAME];

/// A callback for the layer, and what it was called with.
pub(crate) fn profiles() -> (impl Fn(&ProfileTree), UnboundedReceiver<ProfileTree>) {
    let (sender, receiver) = unbounded_channel();
    // Once the demo is over, nobody listens.
    (move |tree: &ProfileTree| drop(sender.send(tree.clone())), receiver)
}

/// Calls the endpoints; with `profiles`, waits for each one's tree.
pub(crate) async fn run(
    server: SocketAddr,
    profiles: Option<UnboundedReceiver<ProfileTree>>,
) -> Result<(), Box<dyn Error>> {
    let mut profiles = profiles;
    if profiles.is_some() {
        println!("\nprogram: milliseconds by the program's own clock; the rest: what the profiler saw, · is zero");
    }
    for endpoint in SHOWN {
        let (method, route) = endpoint.split_once(':').ok_or("an endpoint is METHOD:/path")?;
        let path = route.replace("{id}", "7");
        let measured = call(server, method, &path).await?;
        println!("\n{method} {path} took {} ms", measured.of("total"));
        if let Some(profiles) = &mut profiles {
            let tree = timeout(Duration::from_secs(5), profiles.recv()).await?.ok_or("the profiler has stopped")?;
            show(&tree, &measured);
        } else {
            println!("{measured}");
        }
    }
    Ok(())
}

/// Calls an endpoint on a connection of its own and returns what it says of its times.
async fn call(server: SocketAddr, method: &str, path: &str) -> Result<Measured, Box<dyn Error>> {
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(server).await?)).await?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", server.to_string())
        // A streamed response tells the rest of its times at its end.
        .header("te", "trailers")
        .header("connection", "te")
        .body(Body::empty())?;
    let response = client.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("{method} {path} answers {}", response.status()).into());
    }
    let mut measured = Measured::default();
    measured.read(response.headers())?;
    if let Some(trailers) = response.into_body().collect().await?.trailers() {
        measured.read(trailers)?;
    }
    Ok(measured)
}

/// Functions and their milliseconds, as the program tells them.
#[derive(Debug, Default)]
struct Measured(Vec<(String, String)>);

impl Measured {
    fn read(&mut self, headers: &HeaderMap) -> Result<(), Box<dyn Error>> {
        let timing = headers.get("server-timing").ok_or("no server-timing")?.to_str()?;
        let times = timing.split(", ").filter_map(|time| time.split_once(";dur="));
        self.0.extend(times.map(|(function, ms)| (function.to_owned(), ms.to_owned())));
        Ok(())
    }

    /// Empty if the program has not measured it.
    fn of(&self, function: &str) -> &str {
        self.0.iter().find(|(name, _)| name == function).map_or("", |(_, ms)| ms)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times: Vec<_> = self.0.iter().map(|(function, ms)| format!("{function} {ms}")).collect();
        f.write_str(&times.join(", "))
    }
}

/// Prints the tree, left of each line the milliseconds that the program measured for its node.
fn show(tree: &ProfileTree, measured: &Measured) {
    let text = if is_dimmed() { format!("{tree:#}") } else { tree.to_string() };
    let mut times = vec!["program"];
    times.push(measured.of("total"));
    add_times(tree.root(), 1, None, measured, &mut times);
    for span in tree.spans() {
        times.push(measured.of(last_segment(span.name())));
        add_times(span.root(), 1, Some(span.name()), measured, &mut times);
    }
    let width = times.iter().map(|time| time.len() + 1).max().unwrap_or_default();
    // One line of heads, then one for each node; what comes after those has no time.
    for (line, time) in text.lines().zip(times.into_iter().chain(iter::repeat(""))) {
        println!("{time:>width$}{line}");
    }
}

/// Of the nodes below `parent`, in the order of the tree's lines. A function of the program may be there for only a part of
/// its time, and is then shown without: above the function that a span is `named` after, and below a wait, as what another
/// task did meanwhile.
fn add_times<'a>(
    parent: &ProfileNode,
    depth: usize,
    named: Option<&str>,
    measured: &'a Measured,
    times: &mut Vec<&'a str>,
) {
    for node in parent.children() {
        let function = node.signature().split(" @ ").next().unwrap_or_default();
        let is_own = function.starts_with("slow_endpoint::");
        let named = named.filter(|named| *named != function);
        times.push(match (depth, function) {
            // The handler's own, of all the sleeps.
            (2, "tokio::time::sleep::Sleep") => measured.of("sleep"),
            (_, "[scheduled: waiting for a worker]") => measured.of("scheduled"),
            _ if is_own && named.is_some() => "",
            _ => measured.of(last_segment(function)),
        });
        let named = if is_own { named } else { Some(OF_A_WAIT) };
        add_times(node, depth + 1, named, measured, times);
    }
}

/// No function.
const OF_A_WAIT: &str = "";

fn last_segment(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or_default()
}

/// Whether standard output can show some text dimmed, and may.
fn is_dimmed() -> bool {
    io::stdout().is_terminal()
        && env::var_os("NO_COLOR").is_none_or(|no_color| no_color.is_empty())
        && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
}
