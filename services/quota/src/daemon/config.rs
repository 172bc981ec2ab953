//! The configuration of the quota service: one TOML file. No limit is ever in here; gateways have them from the revision.

use std::path::PathBuf;

use clawgress_link::service::Configuration;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) socket: PathBuf,
    /// Who may ask besides root.
    pub(crate) gateway_uids: Vec<u32>,
    /// The file with what was used.
    pub(crate) state: PathBuf,
    pub(crate) save_every_ms: u64,
}

impl Configuration for Config {
    const PROGRAM: &'static str = "clawgress-quota";
    const ABOUT: &'static str =
        "Shares the limits of agents out to the gateways, and keeps what was used";
    const FILE: &'static str = "/etc/clawgress/quota.toml";

    fn fault(&self) -> Option<String> {
        for (key, path) in [("socket", &self.socket), ("state", &self.state)] {
            if !path.is_absolute() || path.parent().is_none() {
                return Some(format!(
                    "{key} is {}; write the whole path of a file",
                    path.display()
                ));
            }
        }
        if !(50..=60_000).contains(&self.save_every_ms) {
            return Some(format!(
                "save_every_ms is {}; write 50 to 60000",
                self.save_every_ms
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clawgress_link::service;

    use super::*;

    const SHIPPED: &str = include_str!("../../../../rootfs-overlay/etc/clawgress/quota.toml");

    #[test]
    fn what_is_shipped_is_right_and_mistakes_are_named() {
        let parse = |text: &str| service::parse::<Config>(Path::new("quota.toml"), text);
        let shipped = parse(SHIPPED).unwrap();
        assert_eq!(shipped.socket, Path::new(clawgress_quota::wire::SOCKET));
        for (from, to, expected) in [
            ("save_every_ms = 1000", "save_every_ms = 0", "50 to 60000"),
            ("state = \"/", "state = \"", "whole path"),
            ("gateway_uids", "gateway_uid", "unknown field"),
        ] {
            let error = parse(&SHIPPED.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
