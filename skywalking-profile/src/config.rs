//! What the user decides: names, the backend, what is shown.

use std::env;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ConfigError;
use crate::stack::Frames;
use crate::tree::ProfileTree;

/// Thread snapshots have whole milliseconds.
pub(crate) const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// The OAP keeps this many characters of a service's or instance's name.
const LONGEST_NAME: usize = 70;

/// Configuration of a [`ProfileLayer`](crate::ProfileLayer).
///
/// With a backend address the layer reports to that SkyWalking OAP and takes its profile tasks from there; without one it
/// is *embedded*: tasks come from [`ProfileLayer::profile`](crate::ProfileLayer::profile) and each profiled request is
/// printed as a tree.
///
/// ```
/// use skywalking_profile::ProfileConfig;
///
/// # fn main() -> Result<(), skywalking_profile::ConfigError> {
/// let config = ProfileConfig::new("shop")?.backend_service("oap.example:11800")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ProfileConfig {
    pub(crate) service: String,
    pub(crate) instance: Option<String>,
    pub(crate) backend_service: Option<String>,
    pub(crate) active: bool,
    pub(crate) task_interval: Duration,
    pub(crate) frames: Frames,
    pub(crate) lanes: usize,
    pub(crate) sampling: Sampling,
    pub(crate) on_profile: Option<OnProfile>,
}

/// How threads that poll followed requests are sampled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampling {
    pub(crate) running: bool,
    /// `None`: by the dump period of the task.
    pub(crate) tick: Option<Duration>,
    /// `None`: one that nobody uses.
    pub(crate) signal: Option<i32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { running: true, tick: None, signal: None }
    }
}

pub(crate) type OnProfile = Arc<dyn Fn(&ProfileTree) + Send + Sync>;

impl ProfileConfig {
    /// Configures the profiling of the service that SkyWalking shows as `service`.
    ///
    /// # Errors
    /// If `service` is empty or longer than 70 characters.
    pub fn new(service: impl Into<String>) -> Result<Self, ConfigError> {
        Ok(Self {
            service: name("service", service.into())?,
            instance: None,
            backend_service: None,
            active: true,
            task_interval: Duration::from_secs(5),
            frames: Frames::default(),
            lanes: 5,
            sampling: Sampling::default(),
            on_profile: None,
        })
    }

    /// Configures from the environment alone: [`new`](Self::new) with `SW_AGENT_NAME`, then [`with_env`](Self::with_env).
    ///
    /// # Errors
    /// If `SW_AGENT_NAME` is missing, or as for [`with_env`](Self::with_env).
    pub fn from_env() -> Result<Self, ConfigError> {
        let service = variable("SW_AGENT_NAME").ok_or_else(|| ConfigError::new("SW_AGENT_NAME", "is not set"))?;
        Self::new(service)?.with_env()
    }

    /// Overrides these settings by the variables of SkyWalking's agents that are set and not empty:
    ///
    /// | variable | setting |
    /// |---|---|
    /// | `SW_AGENT_NAME` | the service's name |
    /// | `SW_AGENT_INSTANCE_NAME` | [`instance`](Self::instance) |
    /// | `SW_AGENT_COLLECTOR_BACKEND_SERVICES` | [`backend_service`](Self::backend_service) |
    /// | `SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL` | [`task_interval`](Self::task_interval), in seconds |
    /// | `SW_AGENT_PROFILE_ACTIVE` | [`active`](Self::active), `true` or `false` |
    ///
    /// # Errors
    /// If a value cannot be used, or if a variable asks for what is not built yet: `SW_AGENT_AUTHENTICATION`,
    /// `SW_AGENT_FORCE_TLS`, `SW_AGENT_SSL_TRUSTED_CA_PATH`, `SW_AGENT_SSL_KEY_PATH`, `SW_AGENT_SSL_CERT_CHAIN_PATH`.
    pub fn with_env(self) -> Result<Self, ConfigError> {
        self.with_variables(variable)
    }

    fn with_variables(mut self, variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, ConfigError> {
        for unbuilt in [
            "SW_AGENT_AUTHENTICATION",
            "SW_AGENT_FORCE_TLS",
            "SW_AGENT_SSL_TRUSTED_CA_PATH",
            "SW_AGENT_SSL_KEY_PATH",
            "SW_AGENT_SSL_CERT_CHAIN_PATH",
        ] {
            let is_off = |value: &str| unbuilt == "SW_AGENT_FORCE_TLS" && value.eq_ignore_ascii_case("false");
            if variable(unbuilt).is_some_and(|value| !is_off(&value)) {
                return Err(ConfigError::new(
                    unbuilt,
                    "is not supported yet; without it nothing is encrypted or authenticated",
                ));
            }
        }
        if let Some(service) = variable("SW_AGENT_NAME") {
            self.service = name("SW_AGENT_NAME", service)?;
        }
        if let Some(instance) = variable("SW_AGENT_INSTANCE_NAME") {
            self.instance = Some(name("SW_AGENT_INSTANCE_NAME", instance)?);
        }
        const BACKEND: &str = "SW_AGENT_COLLECTOR_BACKEND_SERVICES";
        if let Some(addresses) = variable(BACKEND) {
            self.backend_service = Some(address(BACKEND, &addresses)?);
        }
        const INTERVAL: &str = "SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL";
        if let Some(seconds) = variable(INTERVAL) {
            let seconds = seconds
                .parse()
                .map_err(|_| ConfigError::new(INTERVAL, format!("`{seconds}` is no number of seconds")))?;
            self.task_interval = interval(INTERVAL, Duration::from_secs(seconds))?;
        }
        const PROFILE_ACTIVE: &str = "SW_AGENT_PROFILE_ACTIVE";
        if let Some(active) = variable(PROFILE_ACTIVE) {
            let reason = || format!("`{active}` is neither `true` nor `false`");
            self.active = active.to_lowercase().parse().map_err(|_| ConfigError::new(PROFILE_ACTIVE, reason()))?;
        }
        Ok(self)
    }

    /// The name of this process among those of the service. Default: a random one, `<uuid>@<ipv4>`.
    ///
    /// # Errors
    /// If `name` is empty or longer than 70 characters.
    pub fn instance(mut self, name: impl Into<String>) -> Result<Self, ConfigError> {
        self.instance = Some(self::name("instance", name.into())?);
        Ok(self)
    }

    /// The OAP's gRPC address as `host:port`; its port is 11800 unless configured otherwise.
    ///
    /// # Errors
    /// If `address` is no `host:port`. Several addresses and TLS are not supported yet.
    pub fn backend_service(mut self, address: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.backend_service = Some(self::address("backend_service", address.as_ref())?);
        Ok(self)
    }

    /// How often the OAP is asked for profile tasks. Default: 5 s.
    ///
    /// # Errors
    /// If `interval` is less than a second.
    pub fn task_interval(mut self, interval: Duration) -> Result<Self, ConfigError> {
        self.task_interval = self::interval("task_interval", interval)?;
        Ok(self)
    }

    /// Whether to profile at all; `false` leaves a layer that does nothing and starts no thread. Default: `true`.
    #[must_use]
    pub fn active(mut self, active: bool) -> Self {
        self.active = active;
        self
    }

    /// Which frames of a stack are shown. Default: the application's.
    #[must_use]
    pub fn frames(mut self, frames: Frames) -> Self {
        self.frames = frames;
        self
    }

    /// How many segments a profiled request may have besides its own, for what it does at the same time: the branches of a
    /// `join!`, other tasks, blocking closures. One segment holds any number of spans that follow one another; where more than
    /// so many run at once the longest are shown, and the tag `profile.spans_left_out` counts the others. `0` shows none.
    /// Default: 5, as the OAP lists the newest 200 segments of a task.
    #[must_use]
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// Whether thread stacks are sampled while a followed request is being polled, to show where it computes or blocks its
    /// thread. `false` leaves that as `[running]`, and starts no further thread, reads no other thread's stack and uses no
    /// signal. Default: `true`.
    #[must_use]
    pub fn running_samples(mut self, running_samples: bool) -> Self {
        self.sampling.running = running_samples;
        self
    }

    /// How often thread stacks are sampled while a followed request is being polled. Default: every fifth of the task's dump
    /// period.
    ///
    /// # Errors
    /// If `tick` is less than a millisecond.
    pub fn sampling_tick(mut self, tick: Duration) -> Result<Self, ConfigError> {
        if tick < SHORTEST_TICK {
            return Err(ConfigError::new("sampling_tick", "is less than a millisecond"));
        }
        self.sampling.tick = Some(tick);
        Ok(self)
    }

    /// The signal by which a thread that runs copies its stack; a thread that blocks is not signalled. Default: the first of
    /// SIGSTKFLT, SIGPWR and SIGRTMIN to SIGRTMAX that the application does not handle when a task begins.
    ///
    /// A handler that `signal` has already is called for signals that are not ours. Without effect where threads are not
    /// sampled.
    ///
    /// # Errors
    /// If it is none of SIGUSR1, SIGUSR2, SIGSTKFLT, SIGVTALRM, SIGPROF, SIGIO, SIGPWR and the real-time signals from 34 on: the
    /// others have a meaning that an application may count on though it does not handle them.
    pub fn sampling_signal(mut self, signal: i32) -> Result<Self, ConfigError> {
        const STANDARD: [i32; 7] = [10, 12, 16, 26, 27, 29, 30];
        const REAL_TIME: RangeInclusive<i32> = 34..=64;
        if !STANDARD.contains(&signal) && !REAL_TIME.contains(&signal) {
            return Err(ConfigError::new("sampling_signal", format!("{signal} cannot be used")));
        }
        self.sampling.signal = Some(signal);
        Ok(self)
    }

    /// What becomes of each profiled request in embedded mode, instead of a tree on standard output.
    ///
    /// Called on the agent's thread, which does nothing else meanwhile. It must not hold a clone of the layer: the layer
    /// ends when its last clone is dropped, which would then never be.
    #[must_use]
    pub fn on_profile(mut self, on_profile: impl Fn(&ProfileTree) + Send + Sync + 'static) -> Self {
        self.on_profile = Some(Arc::new(on_profile));
        self
    }
}

impl fmt::Debug for ProfileConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileConfig")
            .field("service", &self.service)
            .field("instance", &self.instance)
            .field("backend_service", &self.backend_service)
            .field("active", &self.active)
            .field("task_interval", &self.task_interval)
            .field("frames", &self.frames)
            .field("lanes", &self.lanes)
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

fn variable(name: &'static str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn name(setting: &'static str, name: String) -> Result<String, ConfigError> {
    match name.chars().count() {
        _ if name.trim().is_empty() => Err(ConfigError::new(setting, "is empty")),
        length if length > LONGEST_NAME => {
            Err(ConfigError::new(setting, format!("has {length} characters, but SkyWalking keeps {LONGEST_NAME}")))
        }
        _ => Ok(name),
    }
}

/// Checks `host:port`, with `http://` before it or not, and returns it with.
fn address(setting: &'static str, address: &str) -> Result<String, ConfigError> {
    let refuse = |reason: &str| Err(ConfigError::new(setting, format!("`{address}` {reason}")));
    if address.contains(',') {
        return refuse("is more than one address, which is not supported yet");
    }
    if address.starts_with("https://") {
        return refuse("asks for TLS, which is not supported yet");
    }
    let uri = format!("http://{}", address.trim().trim_start_matches("http://"));
    match uri.parse::<http::Uri>() {
        Ok(parsed)
            if parsed.host().is_some_and(|host| !host.is_empty())
                && parsed.port_u16().is_some_and(|port| port > 0)
                && matches!(parsed.path(), "" | "/")
                && parsed.query().is_none() =>
        {
            Ok(uri)
        }
        Ok(_) | Err(_) => refuse("is not of the form host:port"),
    }
}

fn interval(setting: &'static str, interval: Duration) -> Result<Duration, ConfigError> {
    if interval < Duration::from_secs(1) {
        return Err(ConfigError::new(setting, "is less than a second"));
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &'static [(&'static str, &'static str)]) -> Result<ProfileConfig, ConfigError> {
        ProfileConfig::new("shop").unwrap().with_variables(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn variables_override_settings() {
        let config = with(&[
            ("SW_AGENT_NAME", "orders"),
            ("SW_AGENT_COLLECTOR_BACKEND_SERVICES", "127.0.0.1:11800"),
            ("SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL", "20"),
            ("SW_AGENT_PROFILE_ACTIVE", "False"),
            ("SW_AGENT_FORCE_TLS", "False"),
        ])
        .unwrap();
        assert_eq!(config.service, "orders");
        assert_eq!(config.backend_service.as_deref(), Some("http://127.0.0.1:11800"));
        assert_eq!(config.task_interval, Duration::from_secs(20));
        assert!(!config.active);
    }

    #[test]
    fn values_that_cannot_be_used_are_refused_by_name() {
        for variables in [
            &[("SW_AGENT_COLLECTOR_BACKEND_SERVICES", "a:1,b:2")] as &[_],
            &[("SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL", "soon")],
            &[("SW_AGENT_COLLECTOR_GET_PROFILE_TASK_INTERVAL", "0")],
            &[("SW_AGENT_PROFILE_ACTIVE", "maybe")],
            &[("SW_AGENT_FORCE_TLS", "true")],
            &[("SW_AGENT_AUTHENTICATION", "token")],
        ] {
            let error = with(variables).unwrap_err();
            assert_eq!(error.setting(), variables[0].0);
            assert!(!error.to_string().contains("token"), "a secret must not be printed: {error}");
        }
    }

    #[test]
    fn samples_are_taken_by_what_nobody_else_needs() {
        let config = || ProfileConfig::new("shop").unwrap();
        for signal in [10, 16, 64] {
            assert!(config().sampling_signal(signal).is_ok(), "{signal}");
        }
        for signal in [-1, 0, 9, 11, 15, 17, 33, 65] {
            assert!(config().sampling_signal(signal).is_err(), "{signal}");
        }
        assert!(config().sampling_tick(Duration::from_micros(999)).is_err());
        assert!(config().sampling_tick(SHORTEST_TICK).is_ok());
    }

    #[test]
    fn names_have_the_length_that_skywalking_keeps() {
        assert_eq!(ProfileConfig::new(" ").unwrap_err().to_string(), "service: is empty");
        assert!(ProfileConfig::new("x".repeat(70)).is_ok());
        assert!(ProfileConfig::new("x".repeat(71)).is_err());
    }

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:11800", "oap.example:1", "[::1]:11800", "http://oap:11800"] {
            assert!(address("x", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "oap",
            "oap:",
            "oap:99999",
            "oap:0",
            ":11800",
            "oap:11800/path",
            "https://oap:11800",
            "a b:1",
            "a:1,b:1",
        ] {
            assert!(address("x", bad).is_err(), "{bad}");
        }
    }
}
