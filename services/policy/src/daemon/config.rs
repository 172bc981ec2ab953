//! The service's own configuration: where its neighbours are. Read whole and judged before anything else happens.
//!
//! No policy is ever in here, and no default fills in for a missing key: what runs is what is written.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clawgress_link::service::Configuration;
use serde::Deserialize;

/// Everything that the service needs to know before it listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where to listen: loopback, behind the TLS front.
    pub(crate) listen: SocketAddr,
    /// The socket of appliance-init.
    pub(crate) init_socket: PathBuf,
    /// named.
    pub(crate) resolver: SocketAddr,
    /// The TLS front, and the only certificate to accept from it.
    pub(crate) front: SocketAddr,
    pub(crate) front_certificate: PathBuf,
    /// clawgress-dns, where agents ask.
    pub(crate) agents_resolver: SocketAddr,
    /// clawgress-enforcer.
    pub(crate) enforcer_socket: PathBuf,
    /// Those who serve the gateway's agents: credentials, the kill switch, leases, the trail, and where events of this
    /// service's own go.
    pub(crate) identity_socket: PathBuf,
    pub(crate) gateway_socket: PathBuf,
    pub(crate) quota_socket: PathBuf,
    pub(crate) audit_socket: PathBuf,
    pub(crate) ship_socket: PathBuf,
    /// Where the console asks; and the user ids that are answered there beside root.
    pub(crate) console_socket: PathBuf,
    pub(crate) console_uids: Vec<u32>,
    /// This service's own directory: keys and numbers.
    pub(crate) state: PathBuf,
    /// Where revisions lie for those who enforce them.
    pub(crate) revisions: PathBuf,
    /// The policy that is enforced, for people.
    pub(crate) policy_file: PathBuf,
    /// The configuration that this boot took, and the one that is committed; the first that is there counts.
    pub(crate) taken_configuration: PathBuf,
    pub(crate) committed_configuration: PathBuf,
    /// The units without which nothing is enforced.
    pub(crate) units: Vec<String>,
    /// How long each single probe may take.
    deadline_ms: u64,
}

impl Config {
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

impl Configuration for Config {
    const PROGRAM: &'static str = "clawgress-policy";
    const ABOUT: &'static str = "The policy API: takes policies, has them enforced, and says what this appliance enforces, as measured";
    const FILE: &'static str = "/etc/clawgress/policy.toml";

    fn fault(&self) -> Option<String> {
        for (key, address) in [
            ("listen", self.listen),
            ("resolver", self.resolver),
            ("front", self.front),
            ("agents_resolver", self.agents_resolver),
        ] {
            if !address.ip().is_loopback() {
                return Some(format!(
                    "{key} is {address}; it must be a loopback address, for nothing here leaves the box"
                ));
            }
        }
        if self.listen == self.front {
            return Some(format!(
                "listen and front are both {}; the front stands before this service",
                self.front
            ));
        }
        if !(100..=30_000).contains(&self.deadline_ms) {
            return Some(format!(
                "deadline_ms is {}; it must be between 100 and 30000",
                self.deadline_ms
            ));
        }
        let paths = [
            ("init_socket", &self.init_socket),
            ("enforcer_socket", &self.enforcer_socket),
            ("identity_socket", &self.identity_socket),
            ("gateway_socket", &self.gateway_socket),
            ("quota_socket", &self.quota_socket),
            ("audit_socket", &self.audit_socket),
            ("ship_socket", &self.ship_socket),
            ("console_socket", &self.console_socket),
            ("state", &self.state),
            ("revisions", &self.revisions),
            ("policy_file", &self.policy_file),
            ("taken_configuration", &self.taken_configuration),
            ("committed_configuration", &self.committed_configuration),
        ];
        // Others are told these paths, and have other working directories.
        if let Some((key, path)) = paths.iter().find(|(_, path)| !path.is_absolute()) {
            return Some(format!(
                "{key} is {}; write the path from the root",
                path.display()
            ));
        }
        self.units
            .iter()
            .find(|unit| !unit.contains('.') || unit.contains('/'))
            .map(|unit| format!("units holds '{unit}', which is no unit name; write it in full, like named.service"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clawgress_link::service;

    use super::*;

    const SHIPPED: &str = include_str!("../../../../rootfs-overlay/etc/clawgress/policy.toml");

    fn parsed(text: &str) -> Result<Config, String> {
        service::parse(Path::new("policy.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_configuration_is_good_and_names_every_unit_of_enforcement() {
        let config = parsed(SHIPPED).unwrap();
        for unit in [
            "nftables",
            "named",
            "haproxy",
            "clawgress-policy",
            "clawgress-enforcer",
            "clawgress-dns",
        ] {
            assert!(
                config.units.contains(&format!("{unit}.service")),
                "{unit} is not watched"
            );
        }
        assert_eq!(config.init_socket, Path::new(clawgress_link::seal::SOCKET));
        assert_eq!(
            config.enforcer_socket,
            Path::new(clawgress_link::control::SOCKET)
        );
        assert_eq!(
            config.console_socket,
            Path::new(clawgress_link::admin::SOCKET)
        );
        assert_eq!(
            config.revisions,
            Path::new(clawgress_link::control::REVISIONS)
        );
        assert_eq!(
            config.front_certificate,
            Path::new(clawgress_link::front::CERTIFICATE)
        );
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (from, to, expected) in [
            (
                "listen = \"127.0.0.1:8440\"",
                "listen = \"0.0.0.0:8440\"",
                "listen is 0.0.0.0:8440",
            ),
            (
                "listen = \"127.0.0.1:8440\"",
                "listen = \"127.0.0.1:443\"",
                "both 127.0.0.1:443",
            ),
            ("listen = \"127.0.0.1:8440\"", "", "listen"),
            (
                "listen = \"127.0.0.1:8440\"",
                "listen = \"127.0.0.1:8440\"\nlissten = 1",
                "lissten",
            ),
            ("deadline_ms = 3000", "deadline_ms = 0", "deadline_ms is 0"),
            (
                "state = \"/var/lib/clawgress/policy\"",
                "state = \"policy\"",
                "state is policy; write the path from the root",
            ),
            (
                "gateway_socket = \"/run",
                "gateway_socket = \"run",
                "gateway_socket is run/clawgress/gateway/control.sock; write the path",
            ),
            (
                "ship_socket = \"/run/clawgress/audit/ship.sock\"",
                "",
                "ship_socket",
            ),
            ("\"named.service\"", "\"named\"", "holds 'named'"),
        ] {
            assert!(
                SHIPPED.contains(from),
                "the shipped configuration has no {from}"
            );
            let error = parsed(&SHIPPED.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
