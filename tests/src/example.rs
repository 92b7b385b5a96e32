//! The example `slow-endpoint` as a child process.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::{Arriving, Begun, Load, Oap, Response, client::Client, until, until_ok};

/// A running `slow-endpoint`, killed on drop.
#[derive(Debug)]
pub struct Example {
    child: Child,
    stdout: Transcript,
    stderr: Transcript,
    client: Client,
}

impl Example {
    /// Starts the server as the service `name`, with an OAP for its backend or, without, embedded.
    pub fn start(name: &str, oap: Option<&Oap>) -> Self {
        Self::start_with(name, oap, &[])
    }

    /// [`start`](Self::start) with more environment variables.
    pub fn start_with(name: &str, oap: Option<&Oap>, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(Self::program());
        for (setting, _) in env::vars_os() {
            if setting.to_string_lossy().starts_with("SW_") {
                command.env_remove(setting);
            }
        }
        command.env("PORT", "0").env("SW_AGENT_NAME", name);
        if let Some(oap) = oap {
            command.env("SW_AGENT_COLLECTOR_BACKEND_SERVICES", oap.grpc_address());
        }
        let mut child = command
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} did not start: {error}"));
        let stdout = Transcript::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Transcript::of(child.stderr.take().expect("stderr is piped"));

        let mut example = Self { child, stdout, stderr, client: Client::new() };
        let server = until_ok("address of the example", Duration::from_secs(20), || example.announced_address());
        example.client.set_server(server);
        example
    }

    /// The program as the README runs it: `SLOW_ENDPOINT`, or that of the release profile.
    pub fn program() -> PathBuf {
        env::var_os("SLOW_ENDPOINT").map_or_else(|| Self::program_of("release"), PathBuf::from)
    }

    /// The program in the folder `profile` of the target folder that holds this test.
    pub fn program_of(profile: &str) -> PathBuf {
        let test = env::current_exe().expect("the test knows its own path");
        let target = test.ancestors().nth(3).expect("tests lie in target/<profile>/deps");
        let program = target.join(profile).join("slow-endpoint");
        assert!(program.is_file(), "{} is missing: `tests/run` builds it", program.display());
        program
    }

    /// What the program has written to stdout so far, in whole lines.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What the program has written to stderr so far, in whole lines.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Requests `GET path`.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.open("GET", path).whole()
    }

    /// Requests `POST path` with an empty body.
    #[track_caller]
    pub fn post(&self, path: &str) -> Response {
        self.open("POST", path).whole()
    }

    /// Requests and waits for the head of the response.
    #[track_caller]
    pub fn open(&self, method: &str, path: &str) -> Arriving<'_> {
        self.client.open(method, path)
    }

    /// Requests and waits for nothing.
    pub fn begin(&self, method: &'static str, path: &'static str) -> Begun {
        self.client.begin(method, path)
    }

    /// Requests and goes away when there is no response within `patience`; panics if there is one.
    #[track_caller]
    pub fn give_up(&self, method: &str, path: &str, patience: Duration) {
        self.client.give_up(method, path, patience);
    }

    /// Keeps this number of clients waiting for responses to these requests, each `(method, path)`.
    pub fn load(&self, clients: usize, requests: &'static [(&'static str, &'static str)]) -> Load<'_> {
        self.client.load(clients, requests)
    }

    /// Asks the server to end, as whoever runs services does, and waits until it has.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill starts");
        assert!(sent.success(), "kill -TERM {pid}: {sent}");
        until("end of the example", Duration::from_secs(20), || self.child.try_wait().expect("a child of ours"))
    }

    fn announced_address(&mut self) -> Result<SocketAddr, String> {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("slow-endpoint ended at once: {status}");
        }
        let stdout = self.stdout();
        let Some(line) = stdout.lines().next() else {
            return Err(String::from("no line on stdout"));
        };
        let address = line.strip_prefix("listening on http://").and_then(|address| address.parse().ok());
        address.ok_or_else(|| format!("first line {line:?}"))
    }
}

impl Drop for Example {
    #[expect(clippy::print_stderr, reason = "shown with the panic of the test that fails")]
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        // Neither fails but for a child that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let stderr = self.stderr();
            let lines: Vec<_> = stderr.lines().collect();
            let tail = lines[lines.len().saturating_sub(40)..].join("\n");
            let state = match ended {
                Ok(Some(status)) => status.to_string(),
                Ok(None) | Err(_) => String::from("was running"),
            };
            eprintln!("slow-endpoint ({state}), last lines of stderr:\n{tail}");
        }
    }
}

/// The lines that a stream has brought; a thread reads it to its end, so that the writer never waits.
#[derive(Debug, Clone, Default)]
struct Transcript(Arc<Mutex<String>>);

impl Transcript {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let transcript = Self::default();
        let written = transcript.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                written.0.lock().expect(HOLDERS).push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        transcript
    }

    fn text(&self) -> String {
        self.0.lock().expect(HOLDERS).clone()
    }
}

const HOLDERS: &str = "who holds the lock only copies text";
