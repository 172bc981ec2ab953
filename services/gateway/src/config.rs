//! The service's own configuration, read whole and judged before any port is bound. No policy is ever in here, and no
//! default fills in for a missing key: what runs is what is written.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clawgress_link::service::Configuration;
use serde::Deserialize;

use crate::worker::Limits as WorkerLimits;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub revision: PathBuf,
    pub named: SocketAddr,
    workers: usize,
    pub state: PathBuf,
    pub control_socket: PathBuf,
    pub control_uids: Vec<u32>,
    pub front_socket: Option<PathBuf>,
    pub identity: SocketAddr,
    pub enrol_socket: PathBuf,
    pub quota_socket: PathBuf,
    pub ship_socket: PathBuf,
    /// Where the enforcer hears whose a flow is. Absent: nothing goes that limits of a host count for.
    pub counted_socket: Option<PathBuf>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    head_ms: u64,
    between_requests_ms: u64,
    answer_ms: u64,
    unknown_per_source: u32,
    pub queue_bytes: u64,
    pub queue_bytes_per_agent: u64,
}

impl Config {
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }

    pub fn limits(&self, connect_seconds: u32) -> WorkerLimits {
        let milliseconds = Duration::from_millis;
        WorkerLimits {
            head: milliseconds(self.limits.head_ms),
            between: milliseconds(self.limits.between_requests_ms),
            connect: Duration::from_secs(connect_seconds.into()),
            answer: milliseconds(self.limits.answer_ms),
            unknown_of_source: self.limits.unknown_per_source,
        }
    }
}

impl Configuration for Config {
    const PROGRAM: &'static str = "clawgress-gateway";
    const ABOUT: &'static str = "The explicit proxy: who asks, whether it may go, and the bytes";
    const FILE: &'static str = "/etc/clawgress/gateway.toml";

    fn fault(&self) -> Option<String> {
        for (key, address) in [("named", self.named), ("identity", self.identity)] {
            if !address.ip().is_loopback() {
                return Some(format!(
                    "{key} is {address}; it must be a loopback address, for nothing of this leaves the box"
                ));
            }
        }
        let limits = [
            ("workers", self.workers as u64, 0, 256),
            ("head_ms", self.limits.head_ms, 100, 60_000),
            (
                "between_requests_ms",
                self.limits.between_requests_ms,
                100,
                3_600_000,
            ),
            ("answer_ms", self.limits.answer_ms, 100, 3_600_000),
            (
                "unknown_per_source",
                self.limits.unknown_per_source.into(),
                1,
                1_000_000,
            ),
            ("queue_bytes", self.limits.queue_bytes, 1 << 20, 1 << 40),
            (
                "queue_bytes_per_agent",
                self.limits.queue_bytes_per_agent,
                1 << 18,
                1 << 40,
            ),
        ];
        limits
            .into_iter()
            .find(|(_, value, least, most)| value < least || value > most)
            .map(|(key, value, least, most)| {
                format!("{key} is {value}; it must be between {least} and {most}")
            })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clawgress_link::service;

    use super::*;

    const SHIPPED: &str = include_str!("../../../rootfs-overlay/etc/clawgress/gateway.toml");

    fn parsed(text: &str) -> Result<Config, String> {
        service::parse(Path::new("gateway.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_configuration_is_good() {
        let config = parsed(SHIPPED).unwrap();
        assert!(config.workers() >= 1);
        assert_eq!(config.front_socket, None);
        let counted = Path::new(clawgress_link::counted::SOCKET);
        assert_eq!(config.counted_socket.as_deref(), Some(counted));
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (from, to, expected) in [
            ("127.0.0.1:53", "192.0.2.1:53", "named is 192.0.2.1:53"),
            (
                "127.0.0.1:8450",
                "192.0.2.1:8450",
                "identity is 192.0.2.1:8450",
            ),
            ("head_ms = 10000", "head_ms = 0", "head_ms is 0"),
            (
                "unknown_per_source = 1024",
                "unknown_per_source = 0",
                "unknown_per_source is 0",
            ),
            ("[limits]", "[limits]\nextra = 1", "extra"),
            ("workers = 0", "# workers", "workers"),
        ] {
            assert!(
                SHIPPED.contains(from),
                "the shipped configuration has no {from}"
            );
            let error = parsed(&SHIPPED.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
