//! The OAP servers that the tests talk to.

use std::{
    env,
    net::{Ipv4Addr, TcpListener},
    process::{self, Command},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
};

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

/// A server of a test's own, which comes back with its data after it was killed. Stopped on drop.
#[derive(Debug)]
pub struct MortalOap {
    oap: Oap,
    settings: Vec<(&'static str, String)>,
}

impl MortalOap {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these settings of `oap/oap`.
    pub fn start_with(settings: &[(&'static str, &str)]) -> Self {
        let [grpc, rest, h2] = [(); 3].map(|()| free_port());
        let oap = Oap {
            grpc_address: format!("127.0.0.1:{grpc}"),
            graphql: Graphql::new(&format!("http://127.0.0.1:{rest}/graphql")),
        };
        let ports = [("SW_CORE_GRPC_PORT", grpc), ("SW_CORE_REST_PORT", rest), ("OAP_H2_PORT", h2)];
        let ports = ports.map(|(name, port)| (name, port.to_string()));
        let settings = settings.iter().map(|(name, value)| (*name, String::from(*value)));
        let oap = Self { oap, settings: ports.into_iter().chain(settings).collect() };
        oap.start_again().unwrap_or_else(|error| panic!("{error}"));
        oap
    }

    /// The server.
    pub fn server(&self) -> &Oap {
        &self.oap
    }

    /// Kills it as nobody can prevent, SIGKILL; returns when it is gone.
    #[track_caller]
    pub fn kill(&self) {
        self.tell("kill").unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts it after a [`kill`](Self::kill), with the data that it has written; returns when it is ready.
    ///
    /// # Errors
    ///
    /// If it ended before, say because it was killed.
    pub fn start_again(&self) -> Result<(), String> {
        self.tell("start")
    }

    fn tell(&self, word: &str) -> Result<(), String> {
        tell(Command::new(HARNESS).envs(self.settings.clone()).arg(word))
    }
}

impl Drop for MortalOap {
    fn drop(&mut self) {
        // What has ended already cannot be stopped.
        let _ = self.tell("stop");
    }
}

/// At most once in this process; the harness itself sees to other processes.
fn start() {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| tell(Command::new(HARNESS).arg("start")));
    if let Err(error) = started {
        panic!("{error}");
    }
}

fn tell(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr)))
}

/// None of those that the system hands out: while the server is down, its port must not become another's.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = (process::id() % 1_000) as u16 * 10;
    let ports = (0..10_000).map(|_| 20_000 + (first + TRIED.fetch_add(1, Ordering::Relaxed)) % 10_000);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.into_iter().find(is_free).expect("a free port between 20000 and 30000")
}
