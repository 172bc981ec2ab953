//! The service's own configuration, read whole and judged before anything is listened on.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clawgress_link::mtls::Role;
use clawgress_link::service::Configuration;
use serde::Deserialize;

use crate::event::is_name;
use crate::store::OWN;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Segments and keys.
    pub state: PathBuf,
    pub api_socket: PathBuf,
    /// Who is answered there, root aside.
    pub api_uids: Vec<u32>,
    pub ship_socket: PathBuf,
    /// Which user of this box ships under which name, and no other.
    pub shippers: BTreeMap<String, u32>,
    /// Where services of other boxes ship over mutual TLS.
    #[serde(default)]
    pub ship_listen: Option<SocketAddr>,
    /// From which address each of their names comes; a name is the role, a dash and more.
    #[serde(default)]
    pub peers: BTreeMap<String, IpAddr>,
    pub enrol_socket: PathBuf,
    pub segment_bytes: u64,
    pub checkpoint_seconds: u64,
    /// Asked for the addresses of collectors.
    pub resolver: SocketAddr,
    /// The committed revision; it says how long events are kept and where they are sent on to.
    pub revision: PathBuf,
    /// Below it lie the files that a revision names.
    pub files: PathBuf,
}

impl Config {
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
        if let Some((name, shipper)) = self.shippers.iter().find(|(name, shipper)| {
            let mut others = self.shippers.iter();
            others.any(|(other, uid)| uid == *shipper && other != *name)
        }) {
            return Some(format!(
                "shippers: user {shipper} has '{name}' and another name; a user ships under one"
            ));
        }
        let of_a_role = |name: &str| {
            let mut roles = Role::ALL.into_iter().map(Role::word);
            roles.any(|role| {
                let rest = name.strip_prefix(role);
                rest.and_then(|rest| rest.strip_prefix('-'))
                    .is_some_and(|rest| !rest.is_empty())
            })
        };
        if let Some(name) = self
            .peers
            .keys()
            .find(|name| !is_name(name) || !of_a_role(name) || self.shippers.contains_key(*name))
        {
            return Some(format!(
                "peers: '{name}' is no name of another box's service; write its role, a dash and more, as in gateway-2"
            ));
        }
        for (key, path) in [("revision", &self.revision), ("files", &self.files)] {
            if !path.is_absolute() {
                return Some(format!(
                    "{key} is {}; write an absolute path",
                    path.display()
                ));
            }
        }
        let numbers = [
            ("segment_bytes", self.segment_bytes, 64 * 1024, 1 << 30),
            ("checkpoint_seconds", self.checkpoint_seconds, 1, 3600),
        ];
        let wrong = numbers
            .into_iter()
            .find(|(_, value, least, most)| !(least..=most).contains(&value));
        wrong.map(|(key, value, least, most)| {
            format!("{key} is {value}; it must be between {least} and {most}")
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
        assert_eq!(
            config.revision,
            Path::new(clawgress_link::control::BOOT_REVISION)
        );
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (from, to, expected) in [
            ("gateway = 973", "audit = 973", "shippers: 'audit'"),
            ("gateway = 973", "\"a b\" = 973", "shippers: 'a b'"),
            ("gateway = 973", "gateway = 972", "user 972 has 'dns'"),
            (
                "[shippers]",
                "[peers]\nother = \"192.0.2.1\"\n[shippers]",
                "peers: 'other'",
            ),
            (
                "[shippers]",
                "[peers]\ngateway-2 = \"there\"\n[shippers]",
                "invalid IP address",
            ),
            (
                "files = \"/config\"",
                "files = \"config\"",
                "files is config",
            ),
            (
                "checkpoint_seconds = 60",
                "checkpoint_seconds = 0",
                "checkpoint_seconds is 0",
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
