//! Profile tasks out of the OAP's commands.
//!
//! Names and types of the arguments: `ProfileTaskCommand.java` in apache/skywalking-java's `apm-network`; all are strings.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use skywalking_profile_proto::v3::Command;

use crate::task::{Origin, ProfileTask};

const PROFILE_TASK: &str = "ProfileTaskQuery";

/// A profile task as the OAP hands it out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TaskCommand {
    pub(super) task_id: String,
    /// To be told back as the last command's time, so that the OAP does not hand it out again. Milliseconds.
    pub(super) create_time: i64,
    pub(super) task: Result<ProfileTask, CommandError>,
}

/// Why a command cannot be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// It is not one of this agent's.
    Unknown { command: String },
    /// An argument is missing or cannot be used.
    Argument { argument: &'static str, value: Option<String>, wanted: &'static str },
}

impl TaskCommand {
    /// Fails if the command is another, or has no task id to refer to.
    pub(super) fn of(command: &Command) -> Result<Self, CommandError> {
        if command.command != PROFILE_TASK {
            return Err(CommandError::Unknown { command: command.command.clone() });
        }
        let arguments = Arguments(command);
        let task_id = arguments.text("TaskId", "the task's id")?;
        Ok(Self {
            create_time: arguments.number("CreateTime", i64::MIN..=i64::MAX, "milliseconds").unwrap_or(-1),
            task: arguments.task(task_id.clone()),
            task_id,
        })
    }
}

struct Arguments<'a>(&'a Command);

impl Arguments<'_> {
    fn task(&self, id: String) -> Result<ProfileTask, CommandError> {
        // The limits are the Java agent's and the OAP's own (ProfileTaskMutationService.java), save that of the sampling
        // count: 9 there, for the sake of Java's threads.
        let minutes = self.number("Duration", 1..=15, "1 to 15 minutes")?;
        let threshold = self.number("MinDurationThreshold", 0..=u64::MAX / 1_000_000, "milliseconds")?;
        let period = self.number("DumpPeriod", 10..=u64::MAX / 1_000_000, "10 milliseconds or more")?;
        let start = self.number("StartTime", 0..=i64::MAX.cast_unsigned() / 1_000_000, "milliseconds since 1970")?;
        Ok(ProfileTask {
            endpoint: self.text("EndpointName", "an endpoint's name")?.trim().to_owned(),
            max_sampling_count: self.number("MaxSamplingCount", 1..=u64::MAX, "1 or more")?,
            min_duration_threshold: Duration::from_millis(threshold),
            dump_period: Duration::from_millis(period),
            duration: Some(Duration::from_secs(60 * minutes)),
            origin: Origin::Oap { id, start: SystemTime::UNIX_EPOCH + Duration::from_millis(start) },
        })
    }

    fn text(&self, argument: &'static str, wanted: &'static str) -> Result<String, CommandError> {
        let value = self.0.args.iter().find(|pair| pair.key == argument).map(|pair| pair.value.clone());
        match value {
            Some(value) if !value.trim().is_empty() => Ok(value),
            value => Err(CommandError::Argument { argument, value, wanted }),
        }
    }

    fn number<T: FromStr + PartialOrd>(
        &self,
        argument: &'static str,
        allowed: std::ops::RangeInclusive<T>,
        wanted: &'static str,
    ) -> Result<T, CommandError> {
        let value = self.text(argument, wanted)?;
        match value.trim().parse() {
            Ok(number) if allowed.contains(&number) => Ok(number),
            Ok(_) | Err(_) => Err(CommandError::Argument { argument, value: Some(value), wanted }),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What came over the network is not to fill a log.
        match self {
            Self::Unknown { command } => write!(f, "`{command:.100}` is no command of this agent's"),
            Self::Argument { argument, value: Some(value), wanted } => {
                write!(f, "{argument} is `{value:.100}` instead of {wanted}")
            }
            Self::Argument { argument, value: None, .. } => write!(f, "{argument} is missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use skywalking_profile_proto::v3::KeyStringValuePair;

    use super::*;

    fn command(changes: &[(&str, Option<&str>)]) -> Command {
        let mut arguments: Vec<(&str, &str)> = vec![
            ("SerialNumber", "6d8f"),
            ("TaskId", "17_c2hvcA==.1"),
            ("EndpointName", "POST:/"),
            ("Duration", "5"),
            ("MinDurationThreshold", "0"),
            ("DumpPeriod", "10"),
            ("MaxSamplingCount", "3"),
            ("StartTime", "18"),
            ("CreateTime", "17"),
        ];
        for (key, value) in changes {
            arguments.retain(|(other, _)| other != key);
            arguments.extend(value.map(|value| (*key, value)));
        }
        let pair = |(key, value): (&str, &str)| KeyStringValuePair { key: key.to_owned(), value: value.to_owned() };
        Command { command: PROFILE_TASK.to_owned(), args: arguments.into_iter().map(pair).collect() }
    }

    #[test]
    fn a_command_becomes_a_task() {
        let TaskCommand { task_id, create_time, task } = TaskCommand::of(&command(&[])).unwrap();
        assert_eq!((task_id.as_str(), create_time), ("17_c2hvcA==.1", 17));
        let task = task.unwrap();
        assert_eq!((task.endpoint.as_str(), task.max_sampling_count), ("POST:/", 3));
        assert_eq!(task.duration, Some(Duration::from_secs(300)));
        assert_eq!(task.check(), Ok(()));
    }

    #[test]
    fn bad_arguments_are_named() {
        for (argument, value, says) in [
            ("Duration", Some("16"), "Duration is `16` instead of 1 to 15 minutes"),
            ("Duration", Some("0"), "Duration is `0` instead of 1 to 15 minutes"),
            ("DumpPeriod", Some("9"), "DumpPeriod is `9` instead of 10 milliseconds or more"),
            ("DumpPeriod", Some("soon"), "DumpPeriod is `soon` instead of 10 milliseconds or more"),
            ("MaxSamplingCount", Some("0"), "MaxSamplingCount is `0` instead of 1 or more"),
            ("MinDurationThreshold", Some("-1"), "MinDurationThreshold is `-1` instead of milliseconds"),
            ("StartTime", None, "StartTime is missing"),
            ("EndpointName", Some(" "), "EndpointName is ` ` instead of an endpoint's name"),
        ] {
            let command = TaskCommand::of(&command(&[(argument, value)])).unwrap();
            assert_eq!(command.task.unwrap_err().to_string(), says);
            assert_eq!(command.create_time, 17);
        }
    }

    #[test]
    fn what_is_no_task_is_named() {
        let other = Command { command: "PprofTaskQuery".to_owned(), args: Vec::new() };
        let error = TaskCommand::of(&other).unwrap_err();
        assert_eq!(error.to_string(), "`PprofTaskQuery` is no command of this agent's");
        let error = TaskCommand::of(&command(&[("TaskId", None)])).unwrap_err();
        assert_eq!(error.to_string(), "TaskId is missing");
    }
}
