//! The service's own configuration: where it keeps what, whom it answers, who is who on this box.
//!
//! No agent and no credential is ever in here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clawgress_link::mtls::Role;
use clawgress_link::service::Configuration;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where gateways watch the snapshot.
    pub(crate) listen: SocketAddr,
    pub(crate) admin_socket: PathBuf,
    /// Answered there beside root.
    pub(crate) admin_uids: Vec<u32>,
    pub(crate) enrol_socket: PathBuf,
    /// Which user is which service.
    pub(crate) services: Vec<Service>,
    /// Credentials, the authority, what was published.
    pub(crate) state: PathBuf,
    /// The committed revision that this boot is in.
    pub(crate) revision: PathBuf,
    /// named, asked where issuers' keys are fetched from. Absent: they are fetched from addresses alone.
    pub(crate) resolver: Option<SocketAddr>,
    /// Below it lie the files that a revision names.
    pub(crate) files: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    pub(crate) uid: u32,
    pub(crate) role: Role,
}

impl Config {
    pub(crate) fn role_of(&self, uid: u32) -> Option<Role> {
        self.services
            .iter()
            .find(|service| service.uid == uid)
            .map(|service| service.role)
    }
}

impl Configuration for Config {
    const PROGRAM: &'static str = "clawgress-identity";
    const ABOUT: &'static str = "Keeps agents' credentials, tells gateways whom to believe, and certifies the box's services";
    const FILE: &'static str = "/etc/clawgress/identity.toml";

    fn fault(&self) -> Option<String> {
        for (key, path) in [
            ("admin_socket", &self.admin_socket),
            ("enrol_socket", &self.enrol_socket),
            ("state", &self.state),
            ("revision", &self.revision),
            ("files", &self.files),
        ] {
            if !path.is_absolute() {
                return Some(format!(
                    "{key} is {}; write the path from the root",
                    path.display()
                ));
            }
        }
        if let Some(resolver) = self.resolver.filter(|asked| !asked.ip().is_loopback()) {
            return Some(format!(
                "resolver is {resolver}; it must be a loopback address, for nobody else judges what a name may lead to"
            ));
        }
        for (place, one) in self.services.iter().enumerate() {
            let mut others = self.services.iter().skip(place + 1);
            if others.any(|other| other.uid == one.uid || other.role == one.role) {
                return Some(format!(
                    "services has the user {} or the role {} twice; one service, one user",
                    one.uid,
                    one.role.word()
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clawgress_link::service;

    use super::*;

    const SHIPPED: &str = include_str!("../../../../rootfs-overlay/etc/clawgress/identity.toml");

    fn parsed(text: &str) -> Result<Config, String> {
        service::parse(Path::new("identity.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_configuration_is_good_and_uses_the_sockets_that_others_know() {
        let config = parsed(SHIPPED).unwrap();
        assert_eq!(
            config.admin_socket,
            Path::new(clawgress_identity::admin::SOCKET)
        );
        assert_eq!(
            config.enrol_socket,
            Path::new(clawgress_link::enrol::SOCKET)
        );
        assert_eq!(
            config.revision,
            Path::new(clawgress_link::control::BOOT_REVISION)
        );
        assert_eq!(config.role_of(973), Some(Role::Gateway));
        assert_eq!(
            config.role_of(974),
            None,
            "it needs nobody to certify itself"
        );
        assert_eq!(config.role_of(0), None);
    }

    #[test]
    fn each_mistake_is_named_with_its_key() {
        for (from, to, expected) in [
            ("state = \"/var", "state = \"var", "state is var"),
            ("uid = 975", "uid = 973", "services has the user 973"),
            (
                "role = \"quota\"",
                "role = \"quotas\"",
                "unknown variant `quotas`",
            ),
            ("listen =", "lissten =", "lissten"),
            (
                "resolver = \"127.0.0.1:53\"",
                "resolver = \"192.0.2.53:53\"",
                "resolver is 192.0.2.53:53",
            ),
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
