//! The demo run: one request per endpoint, each shown with the times that the program itself measured.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::Request;
use hyper_util::rt::TokioIo;
use skywalking_profile_axum::ProfileTree;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::endpoints;

/// A callback for the layer, and what it was called with.
pub(crate) fn profiles() -> (impl Fn(&ProfileTree), UnboundedReceiver<ProfileTree>) {
    let (sender, receiver) = unbounded_channel();
    // Once the demo is over, nobody listens.
    (move |tree: &ProfileTree| drop(sender.send(tree.clone())), receiver)
}

/// Calls each endpoint; with `profiles`, waits for each one's tree.
pub(crate) async fn run(
    server: SocketAddr,
    profiles: Option<UnboundedReceiver<ProfileTree>>,
) -> Result<(), Box<dyn Error>> {
    let mut profiles = profiles;
    for endpoint in endpoints::NAMES {
        let timing = call(server, endpoint).await?;
        println!("\n{endpoint}  the program measured {timing}");
        if let Some(profiles) = &mut profiles {
            let tree = timeout(Duration::from_secs(5), profiles.recv()).await?.ok_or("the profiler has stopped")?;
            print!("{tree}");
        }
    }
    Ok(())
}

/// Calls an endpoint on a connection of its own and returns what it says of its times.
async fn call(server: SocketAddr, endpoint: &str) -> Result<String, Box<dyn Error>> {
    let (method, path) = endpoint.split_once(':').ok_or("an endpoint is METHOD:/path")?;
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(TcpStream::connect(server).await?)).await?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", server.to_string()).body(Body::empty())?;
    let response = client.send_request(request).await?;
    let timing =
        response.headers().get("server-timing").ok_or("no server-timing header")?.to_str()?.replace(";dur=", " ");
    response.into_body().collect().await?;
    Ok(timing)
}
