//! The poll for profile tasks.

use std::collections::HashSet;
use std::mem;
use std::time::{Duration, SystemTime};

use skywalking_profile_proto::v3::ProfileTaskCommandQuery;
use skywalking_profile_proto::v3::profile_task_client::ProfileTaskClient;
use tokio::sync::mpsc::Sender;
use tokio::time::sleep;
use tonic::Code;
use tracing::warn;

use super::Oap;
use super::command::TaskCommand;
use crate::TARGET;
use crate::backend::News;
use crate::trace::epoch_ms;

/// How long an OAP without a profile receiver is left alone.
const UNIMPLEMENTED_AGAIN: Duration = Duration::from_secs(300);

/// Commands that could not be understood and are remembered, so that each is told once.
const MOST_TOLD: usize = 100;

impl Oap {
    /// Hands on new tasks. Ends if nobody wants them any more.
    pub(super) async fn poll_tasks(&self, news: Sender<News>) {
        let mut known = HashSet::new();
        let mut told = HashSet::new();
        let mut last_command_time = -1;
        let mut told_of_missing_receiver = false;
        loop {
            let (service, service_instance) = self.names();
            let query = ProfileTaskCommandQuery { service, service_instance, last_command_time };
            let poll = self
                .connection
                .call(async |channel| ProfileTaskClient::new(channel).get_profile_task_commands(query).await);
            match poll.await {
                Ok(commands) => {
                    told_of_missing_receiver = false;
                    for command in &commands.commands {
                        let TaskCommand { task_id, create_time, task } = match TaskCommand::of(command) {
                            Ok(command) => command,
                            Err(error) => {
                                if told.len() < MOST_TOLD && told.insert(error.to_string()) {
                                    warn!(target: TARGET, %error, "passed over a command of the OAP");
                                }
                                continue;
                            }
                        };
                        // An OAP whose clock is wrong for a while is not to hide the tasks that come after.
                        last_command_time = last_command_time.max(create_time.min(epoch_ms(SystemTime::now())));
                        if !known.insert(task_id.clone()) {
                            continue;
                        }
                        match task {
                            Ok(task) => {
                                if news.send(News::Task(task)).await.is_err() {
                                    return;
                                }
                            }
                            Err(error) => {
                                warn!(target: TARGET, task = task_id, %error, "refused a profile task");
                                self.finish(&task_id).await;
                            }
                        }
                    }
                    for endpoint in self.missed.take() {
                        if news.send(News::Undiscovered(endpoint)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(status) if status.code() == Code::Unimplemented => {
                    if !mem::replace(&mut told_of_missing_receiver, true) {
                        warn!(
                            target: TARGET,
                            oap = self.connection.address(),
                            "nothing can be profiled: the OAP has no profile receiver (or a proxy before it no route to it)"
                        );
                    }
                    sleep(UNIMPLEMENTED_AGAIN).await;
                }
                Err(_) => {}
            }
            sleep(self.task_interval).await;
        }
    }
}
