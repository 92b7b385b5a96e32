//! A server with slow endpoints, followed by skywalking-profile.
//!
//! ```sh
//! cargo run --release -p slow-endpoint -- --demo     # calls its own endpoints, prints a tree of each, exits
//! cargo run --release -p slow-endpoint               # serves on port 19090, prints a tree per request
//! SW_AGENT_COLLECTOR_BACKEND_SERVICES=127.0.0.1:11800 \
//! cargo run --release -p slow-endpoint               # the same, profiled by an OAP's profile tasks
//! ```

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example shows its results on the terminal")]

mod blocking;
mod cancel;
mod chunks;
mod computing;
mod cpu;
mod demo;
mod endpoints;
mod fanout;
mod hang;
mod join;
mod orders;
mod select;
mod server_timing;
mod spawn;
mod starved;
mod timeout;
mod upstream;

use std::env;
use std::error::Error;
use std::io::{self, IsTerminal};
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use axum::serve::ListenerExt;
use skywalking_profile_axum::{ProfileConfig, ProfileLayer, ProfileTask};
use tokio::net::TcpListener;
use tokio::signal;
use tokio::time::sleep;
use tracing::Level;

/// How long the last requests may take once the server is to end.
const LAST_REQUESTS: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slow-endpoint: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let is_demo = env::args().skip(1).any(|argument| argument == "--demo");
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // The demo's output is its trees.
        .with_max_level(if is_demo { Level::WARN } else { Level::INFO })
        .init();

    let mut config = ProfileConfig::new("slow-endpoint")?.with_env()?;
    let is_embedded = env::var("SW_AGENT_COLLECTOR_BACKEND_SERVICES").unwrap_or_default().trim().is_empty();
    let (on_profile, profiles) = demo::profiles();
    if is_demo {
        config = config.on_profile(on_profile);
    }
    let profile = ProfileLayer::new(config);
    if is_embedded {
        for endpoint in endpoints::NAMES {
            // Refused where `SW_AGENT_PROFILE_ACTIVE` turns profiling off; the server serves all the same.
            if let Err(error) = profile.profile(ProfileTask::new(endpoint).samples(u64::MAX)) {
                eprintln!("slow-endpoint: {endpoint} is not profiled: {error}");
            }
        }
    }
    let app = endpoints::router(upstream::start().await?).layer(profile.clone());

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port(is_demo)?)).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    // What is streamed arrives when it was sent, instead of with the next piece.
    let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
    let server = axum::serve(listener, app);
    if is_demo {
        tokio::select! {
            served = server => served?,
            shown = demo::run(address, is_embedded.then_some(profiles)) => shown?,
        }
    } else {
        tokio::select! {
            served = server.with_graceful_shutdown(stopped()) => served?,
            // Some requests never end.
            () = async { stopped().await; sleep(LAST_REQUESTS).await } => {}
        }
    }
    profile.shutdown().await;
    Ok(())
}

/// `PORT`, or 19090 as in SkyWalking's own demo of trace profiling; the demo run takes any.
fn port(is_demo: bool) -> Result<u16, Box<dyn Error>> {
    match env::var("PORT") {
        Ok(port) => port.parse().map_err(|_| format!("PORT is `{port}`, which is no port").into()),
        Err(_) => Ok(if is_demo { 0 } else { 19090 }),
    }
}

/// Ctrl-C, or the SIGTERM of whoever stops services.
async fn stopped() {
    #[cfg(unix)]
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending();
    tokio::select! {
        // Without the handler there is nothing to wait for but the process's end.
        Ok(()) = signal::ctrl_c() => {}
        () = terminated => {}
    }
}
