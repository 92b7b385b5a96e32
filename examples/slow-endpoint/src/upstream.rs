//! The upstream of the orders, in this process, on loopback: slow to greet, slow to answer, slow to send.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use futures_util::{StreamExt, stream};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::debug;

/// What it says on a new connection, before it takes requests.
pub(crate) const GREETING: [u8; 6] = *b"ready\n";

const GREETS_AFTER: Duration = Duration::from_millis(30);
const ANSWERS_AFTER: Duration = Duration::from_millis(80);
const BETWEEN_ITEMS: Duration = Duration::from_millis(20);

/// Starts it; it ends with the runtime.
pub(crate) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(serve(listener));
    Ok(address)
}

async fn serve(mut listener: TcpListener) {
    loop {
        // axum's, which waits where accepting fails.
        let (socket, _) = Listener::accept(&mut listener).await;
        tokio::spawn(async move {
            if let Err(error) = converse(socket).await {
                debug!("a client of the upstream has gone: {error}");
            }
        });
    }
}

/// Ends when the client does.
async fn converse(mut socket: TcpStream) -> Result<(), Box<dyn Error + Send + Sync>> {
    // Each item is on its way at once, instead of with the next.
    socket.set_nodelay(true)?;
    sleep(GREETS_AFTER).await;
    socket.write_all(&GREETING).await?;
    http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(respond)).await?;
    Ok(())
}

/// `/orders/7/items/5`: five items, a line each.
async fn respond(request: Request<Incoming>) -> Result<Response, Infallible> {
    let Some(items) = request.uri().path().rsplit('/').next().and_then(|items| items.parse::<u8>().ok()) else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    sleep(ANSWERS_AFTER).await;
    let items = stream::iter(1..=items).then(|item| async move {
        sleep(BETWEEN_ITEMS).await;
        Ok::<_, Infallible>(format!("{{\"item\":{item}}}\n"))
    });
    Ok(Body::from_stream(items).into_response())
}
