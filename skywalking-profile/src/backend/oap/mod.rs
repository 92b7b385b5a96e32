//! A SkyWalking OAP over gRPC: three loops side by side.
//!
//! [`instance`] sends properties and heartbeats, [`tasks`] polls for profile tasks, [`delivery`] sends the reports. They
//! share one [`connection`]; what they send is made in [`message`], and what the OAP commands is read by [`command`].

mod backoff;
mod command;
mod connection;
mod delivery;
mod instance;
mod message;
mod tasks;

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use self::connection::Connection;
use self::instance::default_instance;
use super::{Backend, Port};
use crate::config::ProfileConfig;

/// The backend of a layer with an OAP's address.
#[derive(Debug)]
pub(crate) struct Oap {
    connection: Connection,
    service: String,
    instance: String,
    task_interval: Duration,
    /// Endpoints whose segments were not sent, for want of a connection.
    missed: RefCell<HashSet<Arc<str>>>,
}

impl Oap {
    /// Connects when first used. To be called within the agent's runtime.
    pub(crate) fn new(config: &ProfileConfig, address: String) -> Result<Self, tonic::transport::Error> {
        Ok(Self {
            instance: config.instance.clone().unwrap_or_else(|| default_instance(&address)),
            connection: Connection::new(address)?,
            service: config.service.clone(),
            task_interval: config.task_interval,
            missed: RefCell::default(),
        })
    }

    fn names(&self) -> (String, String) {
        (self.service.clone(), self.instance.clone())
    }
}

impl Backend for Oap {
    fn description(&self) -> String {
        format!("reports to the OAP at {} as {} / {}", self.connection.address(), self.service, self.instance)
    }

    async fn run(self, port: Port) {
        tokio::select! {
            () = self.deliver(port.reports) => {}
            ((), ()) = async { tokio::join!(self.keep_alive(), self.poll_tasks(port.news)) } => {}
        }
    }
}
