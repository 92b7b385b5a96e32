//! This process as the OAP knows it: an instance of its service, with properties and a heartbeat.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process;
use std::time::Duration;

use skywalking_profile_proto::v3::management_service_client::ManagementServiceClient;
use skywalking_profile_proto::v3::{InstancePingPkg, InstanceProperties};
use tokio::time::sleep;

use super::Oap;
use super::backoff::Backoff;
use super::message::pair;
use crate::trace::new_id;

/// The interval of the Java agent's heartbeat, `collector.heartbeat_period`.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Every so many heartbeats the properties are sent again, `collector.properties_report_period_factor` there.
const PROPERTIES_EVERY: u32 = 10;

impl Oap {
    pub(super) async fn keep_alive(&self) {
        let mut backoff = Backoff::new();
        // The instance is unknown until its properties have arrived.
        while !self.send_properties().await {
            self.connection.rest(&mut backoff).await;
        }
        for beat in 1u32.. {
            sleep(HEARTBEAT).await;
            // A heartbeat that fails is made up for by the next one.
            if beat % PROPERTIES_EVERY == 0 {
                self.send_properties().await;
            } else {
                let (service, service_instance) = self.names();
                let ping = InstancePingPkg { service, service_instance, ..Default::default() };
                let beat =
                    self.connection.call(async |channel| ManagementServiceClient::new(channel).keep_alive(ping).await);
                let _ = beat.await;
            }
        }
    }

    async fn send_properties(&self) -> bool {
        let properties = self.properties();
        let report = self
            .connection
            .call(async |channel| ManagementServiceClient::new(channel).report_instance_properties(properties).await);
        report.await.is_ok()
    }

    fn properties(&self) -> InstanceProperties {
        let (service, service_instance) = self.names();
        let mut properties = vec![
            pair("language", "rust"),
            pair("OS Name", std::env::consts::OS),
            pair("hostname", gethostname::gethostname().to_string_lossy()),
            pair("Process No.", process::id().to_string()),
            pair("agent", concat!("skywalking-profile ", env!("CARGO_PKG_VERSION"))),
        ];
        properties.extend(own_address(self.connection.address()).map(|address| pair("ipv4", address.to_string())));
        InstanceProperties { service, service_instance, properties, ..Default::default() }
    }
}

/// `<uuid>@<ipv4>`, the Java agent's default.
pub(super) fn default_instance(oap: &str) -> String {
    let address = own_address(oap).map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    format!("{}@{address}", new_id())
}

/// This host's address on the way to the OAP. Connecting a UDP socket asks the routing table and sends nothing.
///
/// An OAP that is known by name is taken to be on the way of all else: a look-up would hold up the agent.
fn own_address(oap: &str) -> Option<IpAddr> {
    const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9); // RFC 5737's TEST-NET-1
    let oap = oap.trim_start_matches("http://").trim_end_matches('/').parse().unwrap_or(ELSEWHERE);
    let any: IpAddr = if oap.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(oap).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
