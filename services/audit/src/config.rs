//! The service's own configuration, read whole and judged before anything is listened on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use clawgress_link::service::Configuration;
use serde::Deserialize;

use crate::event::is_name;
use crate::forward::address::{Collector, SyslogServer};
use crate::store::{OWN, Retention};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Segments and keys.
    pub state: PathBuf,
    pub api_socket: PathBuf,
    /// Who is answered there, root aside.
    pub api_uids: Vec<u32>,
    pub ship_socket: PathBuf,
    /// Which user ships under which name, alone or with a dash and more behind it.
    pub shippers: BTreeMap<String, u32>,
    /// Where other services ship over mutual TLS.
    #[serde(default)]
    pub ship_listen: Option<SocketAddr>,
    pub enrol_socket: PathBuf,
    pub segment_bytes: u64,
    pub checkpoint_seconds: u64,
    pub retain_days: u32,
    pub retain_bytes: u64,
    /// Asked for the addresses of collectors.
    pub resolver: SocketAddr,
    #[serde(default)]
    pub syslog: Option<Forward>,
    #[serde(default)]
    pub otlp: Option<Forward>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// `host:port` of a syslog server over TLS, or the URL of a collector.
    pub to: String,
    /// A PEM file with who may vouch for it.
    pub ca: PathBuf,
}

impl Config {
    pub fn retention(&self) -> Retention {
        Retention {
            days: self.retain_days,
            bytes: self.retain_bytes,
        }
    }

    /// Under which name this user ships.
    pub fn shipper(&self, uid: u32) -> Option<&str> {
        let mut shippers = self.shippers.iter();
        shippers
            .find(|(_, shipper)| **shipper == uid)
            .map(|(name, _)| name.as_str())
    }
}

impl Configuration for Config {
    const PROGRAM: &'static str = "clawgress-audit";
    const ABOUT: &'static str =
        "Keeps the audit trail: takes events, chains, signs, answers, forwards";
    const FILE: &'static str = "/etc/clawgress/audit.toml";

    fn fault(&self) -> Option<String> {
        if let Some(name) = self
            .shippers
            .keys()
            .find(|name| !is_name(name) || *name == OWN)
        {
            return Some(format!(
                "shippers: '{name}' is no name; write letters, digits, '-', '_' and '.', and not '{OWN}'"
            ));
        }
        let numbers = [
            ("segment_bytes", self.segment_bytes, 64 * 1024, 1 << 30),
            ("checkpoint_seconds", self.checkpoint_seconds, 1, 3600),
            ("retain_days", u64::from(self.retain_days), 1, 36_500),
            (
                "retain_bytes",
                self.retain_bytes,
                2 * self.segment_bytes.min(1 << 30),
                1 << 50,
            ),
        ];
        if let Some((key, value, least, most)) = numbers
            .into_iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value))
        {
            return Some(format!(
                "{key} is {value}; it must be between {least} and {most}"
            ));
        }
        let syslog = self.syslog.as_ref().and_then(|forward| {
            let why = forward.to.parse::<SyslogServer>().err()?;
            Some(format!("syslog.to is {}; {why}", forward.to))
        });
        syslog.or_else(|| {
            let forward = self.otlp.as_ref()?;
            let why = forward.to.parse::<Collector>().err()?;
            Some(format!("otlp.to is {}; {why}", forward.to))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clawgress_link::service;

    use super::*;

    const SHIPPED: &str = include_str!("../../../rootfs-overlay/etc/clawgress/audit.toml");

    fn parsed(text: &str) -> Result<Config, String> {
        service::parse(Path::new("audit.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_configuration_is_good() {
        let config = parsed(SHIPPED).unwrap();
        assert_eq!(
            (config.shipper(973), config.shipper(4)),
            (Some("gateway"), None)
        );
        assert_eq!(
            config.enrol_socket,
            Path::new(clawgress_link::enrol::SOCKET)
        );
        assert_eq!((config.syslog, config.otlp), (None, None));
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (from, to, expected) in [
            ("gateway = 973", "audit = 973", "shippers: 'audit'"),
            ("gateway = 973", "\"a b\" = 973", "shippers: 'a b'"),
            ("retain_days = 90", "retain_days = 0", "retain_days is 0"),
            (
                "checkpoint_seconds = 60",
                "checkpoint_seconds = 0",
                "checkpoint_seconds is 0",
            ),
            (
                "[shippers]",
                "[syslog]\nto = \"nowhere\"\nca = \"/x\"\n[shippers]",
                "syslog.to is nowhere",
            ),
            (
                "[shippers]",
                "[otlp]\nto = \"ftp://x/\"\nca = \"/x\"\n[shippers]",
                "otlp.to is ftp://x/",
            ),
            ("state = ", "stat = ", "unknown field `stat`"),
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
