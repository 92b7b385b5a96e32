//! The OAP server that the tests talk to.

use std::{env, process::Command, sync::OnceLock};

use crate::Graphql;

const HARNESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/oap/oap");

/// A running OAP server.
#[derive(Debug, Clone)]
pub struct Oap {
    grpc_address: String,
    graphql: Graphql,
}

impl Oap {
    /// The server that `OAP_GRPC` (`host:port`) and `OAP_GRAPHQL` (a URL) name. Without them, the one of `oap/oap` on
    /// this machine, which is started if it does not answer and left running for the next test.
    pub fn running() -> Self {
        let given = |name| env::var(name).ok();
        let port = |name, default| given(name).unwrap_or_else(|| String::from(default));
        let grpc_address =
            given("OAP_GRPC").unwrap_or_else(|| format!("127.0.0.1:{}", port("SW_CORE_GRPC_PORT", "11800")));
        let url = given("OAP_GRAPHQL")
            .unwrap_or_else(|| format!("http://127.0.0.1:{}/graphql", port("SW_CORE_REST_PORT", "12800")));

        let graphql = Graphql::new(&url);
        if let Err(silence) = graphql.try_version() {
            let ours = given("OAP_GRPC").is_none() && given("OAP_GRAPHQL").is_none();
            assert!(ours, "no OAP answers at {url}: {silence}");
            start();
            graphql.version();
        }
        Self { grpc_address, graphql }
    }

    /// Where agents connect: `host:port`.
    pub fn grpc_address(&self) -> &str {
        &self.grpc_address
    }

    /// What the UI sees.
    pub fn graphql(&self) -> &Graphql {
        &self.graphql
    }
}

/// At most once in this process; the harness itself sees to other processes.
fn start() {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let output = Command::new(HARNESS).arg("start").output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    if let Err(error) = started {
        panic!("{HARNESS} start failed: {error}");
    }
}
