//! The daemon's own configuration: who may speak to it, and where its neighbours are. Read whole and judged before
//! anything is listened on.
//!
//! No policy is ever in here, and no default fills in for a missing key: what runs is what is written.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clawgress_link::service::Configuration;
use serde::Deserialize;

use crate::apply::reload::Reload;
use crate::front::Places;
use crate::pins::Limits;
use crate::plan::layout::DIRECTORY;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Users who may ask for checks, applications and telemetry.
    pub control_uids: Vec<u32>,
    /// Users who may set the kill switch.
    pub block_uids: Vec<u32>,
    /// The user of clawgress-dns.
    pub resolver_uids: Vec<u32>,
    /// The user of clawgress-gateway: who may have its flows counted as somebody's.
    pub proxy_uids: Vec<u32>,
    /// The group through which named, haproxy and the sockets' clients get in; absent: the process's own.
    pub group: Option<u32>,
    /// Where revisions lie; nothing outside of it is applied.
    pub revisions: PathBuf,
    /// The revision that a boot begins with; not there: stay sealed.
    pub boot_revision: PathBuf,
    /// What outlives a boot: the use of caps, the last time that was believed.
    pub state: PathBuf,
    pub sealed_ruleset: PathBuf,
    /// named.
    pub resolver: SocketAddr,
    pub reload: Reload,
    pub programs: Programs,
    pub front: Front,
    pub pins: PinLimits,
    pub audit: Audit,
    /// How long clawgress-dns may take to load a revision.
    pub resolver_load_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Programs {
    pub nft: PathBuf,
    pub ip: PathBuf,
    pub tc: PathBuf,
    pub named_checkconf: PathBuf,
    pub haproxy: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Front {
    /// hello.lua.
    pub lua: String,
    /// Certificate and key of the TLS front.
    pub certificate: String,
    /// haproxy's runtime API, in a directory that haproxy can write to.
    pub runtime: String,
    /// The group that may use it; absent: haproxy's own.
    pub runtime_group: Option<String>,
    /// The group that may write to the socket that haproxy logs to; absent: the one of all else.
    pub log_group: Option<u32>,
}

/// Where flows are recorded, below the state directory, and who takes them from there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    pub ship_socket: PathBuf,
    pub queue_bytes: u64,
    pub queue_bytes_per_agent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinLimits {
    pub per_principal: usize,
    pub total: usize,
}

impl Config {
    pub fn limits(&self) -> Limits {
        Limits {
            per_principal: self.pins.per_principal,
            total: self.pins.total,
        }
    }

    /// Where the front's files are when they are in force.
    pub fn places(&self) -> Places {
        Places {
            lua: self.front.lua.clone(),
            certificate: self.front.certificate.clone(),
            runtime: self.front.runtime.clone(),
            runtime_group: self.front.runtime_group.clone(),
            ..Places::default()
        }
    }

    /// Below the directory of generated files; the layout knows that one.
    pub fn run(&self, name: &str) -> PathBuf {
        Path::new(DIRECTORY).join(name)
    }
}

impl Configuration for Config {
    const PROGRAM: &'static str = "clawgress-enforcer";
    const ABOUT: &'static str =
        "The enforcer: brings a revision into the kernel and the daemons, and keeps it there";
    const FILE: &'static str = "/etc/clawgress/enforcer.toml";

    fn fault(&self) -> Option<String> {
        if !self.resolver.ip().is_loopback() {
            return Some(format!(
                "resolver is {}; named is on this machine, write a loopback address",
                self.resolver
            ));
        }
        if self.control_uids.is_empty() || self.resolver_uids.is_empty() {
            return Some("control_uids and resolver_uids each need at least one user".to_owned());
        }
        let paths = [
            ("revisions", &self.revisions),
            ("boot_revision", &self.boot_revision),
            ("state", &self.state),
            ("sealed_ruleset", &self.sealed_ruleset),
            ("programs.nft", &self.programs.nft),
            ("programs.ip", &self.programs.ip),
            ("programs.tc", &self.programs.tc),
            ("programs.named_checkconf", &self.programs.named_checkconf),
            ("programs.haproxy", &self.programs.haproxy),
            ("audit.ship_socket", &self.audit.ship_socket),
        ];
        if let Some((key, path)) = paths.iter().find(|(_, path)| !path.is_absolute()) {
            return Some(format!(
                "{key} is {}; write the whole path, from /",
                path.display()
            ));
        }
        let PinLimits {
            per_principal,
            total,
        } = self.pins;
        if per_principal == 0 || per_principal > total || total > 2_000_000 {
            return Some(format!(
                "pins.per_principal is {per_principal} and pins.total {total}; the first must be at least 1, the second not below it and at most 2000000"
            ));
        }
        if !(1..=300).contains(&self.resolver_load_seconds) {
            return Some(format!(
                "resolver_load_seconds is {}; it must be between 1 and 300",
                self.resolver_load_seconds
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawgress_link::{control, reload, service};

    const SHIPPED: &str = include_str!("../../../../rootfs-overlay/etc/clawgress/enforcer.toml");

    fn parsed(text: &str) -> Result<Config, String> {
        service::parse(Path::new("enforcer.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_configuration_is_good_and_speaks_the_others_paths() {
        let config = parsed(SHIPPED).unwrap();
        assert_eq!(config.revisions, Path::new(control::REVISIONS));
        assert_eq!(config.boot_revision, Path::new(control::BOOT_REVISION));
        assert_eq!(config.reload, Reload::ApplianceInit(reload::SOCKET.into()));
        assert_eq!(config.places().lua, Places::default().lua);
        assert_eq!(config.places().certificate, Places::default().certificate);
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (from, to, expected) in [
            ("127.0.0.1:53", "192.0.2.1:53", "resolver is 192.0.2.1:53"),
            (
                "control_uids = [0, 970]",
                "control_uids = []",
                "control_uids",
            ),
            ("/usr/sbin/nft", "nft", "programs.nft is nft"),
            (
                "per_principal = 20000",
                "per_principal = 0",
                "pins.per_principal is 0",
            ),
            ("total = 200000", "total = 10", "pins.total 10"),
            (
                "resolver_load_seconds = 60",
                "resolver_load_seconds = 0",
                "resolver_load_seconds is 0",
            ),
            (
                "resolver_load_seconds = 60",
                "resolver_load_secs = 60",
                "resolver_load_secs",
            ),
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
