//! The service's own configuration, read whole and judged before any port is bound. No policy is ever in here, and no
//! default fills in for a missing key: what runs is what is written.

use std::net::SocketAddr;
use std::path::PathBuf;

use clawgress_link::service::Configuration;
use serde::Deserialize;

use crate::{budget, engine, flights, listen};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where agents' questions arrive, led there by the ruleset.
    pub agents: Vec<SocketAddr>,
    /// Where the TLS front asks.
    pub front: SocketAddr,
    pub named: SocketAddr,
    /// The enforcer's socket.
    pub enforcer: PathBuf,
    pub audit: Audit,
    limits: Limits,
    budget: Budget,
}

/// Where questions are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub queue: PathBuf,
    pub ship_socket: PathBuf,
    pub queue_bytes: u64,
    pub queue_bytes_per_agent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    questions: usize,
    questions_per_principal: usize,
    questions_per_source: usize,
    connections: usize,
    connections_per_principal: usize,
    connections_per_source: usize,
    cached_answers: usize,
    remembered_pins: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    names_per_minute: usize,
    bytes_per_minute: usize,
    domains: usize,
}

impl Config {
    pub fn engine_limits(&self) -> engine::Limits {
        engine::Limits {
            flights: flights::Limits {
                total: self.limits.questions,
                of_principal: self.limits.questions_per_principal,
                of_source: self.limits.questions_per_source,
            },
            budget: budget::Limits {
                names: self.budget.names_per_minute,
                bytes: self.budget.bytes_per_minute,
                domains: self.budget.domains,
            },
            cached_answers: self.limits.cached_answers,
            remembered_pins: self.limits.remembered_pins,
        }
    }

    pub fn stream_limits(&self) -> listen::StreamLimits {
        listen::StreamLimits {
            total: self.limits.connections,
            of_principal: self.limits.connections_per_principal,
            of_source: self.limits.connections_per_source,
        }
    }
}

impl Configuration for Config {
    const PROGRAM: &'static str = "clawgress-dns";
    const ABOUT: &'static str =
        "The agents' resolver: decides, relays to named, has answers pinned";
    const FILE: &'static str = "/etc/clawgress/dns.toml";

    fn fault(&self) -> Option<String> {
        for (key, address) in [("front", self.front), ("named", self.named)] {
            if !address.ip().is_loopback() {
                return Some(format!(
                    "{key} is {address}; it must be a loopback address, for nothing of this leaves the box"
                ));
            }
        }
        let audit = &self.audit;
        if let Some(path) = [&audit.queue, &audit.ship_socket]
            .into_iter()
            .find(|path| !path.is_absolute())
        {
            return Some(format!(
                "audit has the path {}; write the whole path, from /",
                path.display()
            ));
        }
        if audit.queue_bytes_per_agent == 0 || audit.queue_bytes < audit.queue_bytes_per_agent {
            return Some(format!(
                "audit.queue_bytes_per_agent is {}; it must be at least 1, and audit.queue_bytes not below it",
                audit.queue_bytes_per_agent
            ));
        }
        if self.agents.is_empty() {
            return Some("agents is empty; name the addresses to listen on".to_owned());
        }
        let mut ours = self.agents.iter().chain([&self.front]);
        if let Some(taken) = ours.find(|ours| {
            ours.port() == self.named.port()
                || ours.port() == self.front.port() && **ours != self.front
        }) {
            return Some(format!(
                "{taken} has the port of another address here; agents, front and named need one each"
            ));
        }
        let limits = [
            ("questions", self.limits.questions, 60_000),
            (
                "questions_per_principal",
                self.limits.questions_per_principal,
                60_000,
            ),
            (
                "questions_per_source",
                self.limits.questions_per_source,
                60_000,
            ),
            ("connections", self.limits.connections, 10_000),
            (
                "connections_per_principal",
                self.limits.connections_per_principal,
                10_000,
            ),
            (
                "connections_per_source",
                self.limits.connections_per_source,
                10_000,
            ),
            ("cached_answers", self.limits.cached_answers, 10_000_000),
            ("remembered_pins", self.limits.remembered_pins, 10_000_000),
            ("names_per_minute", self.budget.names_per_minute, 100_000),
            ("bytes_per_minute", self.budget.bytes_per_minute, 10_000_000),
            ("domains", self.budget.domains, 10_000_000),
        ];
        limits
            .into_iter()
            .find(|(_, value, most)| *value == 0 || value > most)
            .map(|(key, value, most)| format!("{key} is {value}; it must be between 1 and {most}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clawgress_link::service;

    use super::*;

    const SHIPPED: &str = include_str!("../../../rootfs-overlay/etc/clawgress/dns.toml");

    fn parsed(text: &str) -> Result<Config, String> {
        service::parse(Path::new("dns.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_configuration_is_good() {
        let config = parsed(SHIPPED).unwrap();
        assert_eq!(config.enforcer, Path::new(clawgress_link::pins::SOCKET));
        assert_eq!(config.budget.names_per_minute, 60);
        assert_eq!(config.agents.len(), 2);
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (from, to, expected) in [
            ("127.0.0.1:10054", "0.0.0.0:10054", "front is 0.0.0.0:10054"),
            ("127.0.0.1:53", "192.0.2.1:53", "named is 192.0.2.1:53"),
            ("\"0.0.0.0:10053\", \"[::]:10053\"", "", "agents is empty"),
            ("0.0.0.0:10053", "0.0.0.0:53", "0.0.0.0:53 has the port"),
            (
                "0.0.0.0:10053",
                "0.0.0.0:10054",
                "0.0.0.0:10054 has the port",
            ),
            (
                "names_per_minute = 60",
                "names_per_minute = 0",
                "names_per_minute is 0",
            ),
            ("\"/var/lib/clawgress/dns", "\"dns", "the path dns/queue"),
            (
                "queue_bytes = 268435456",
                "queue_bytes = 1",
                "audit.queue_bytes not below",
            ),
            ("[budget]", "[budget]\nextra = 1", "extra"),
            ("connections = ", "# connections = ", "connections"),
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
