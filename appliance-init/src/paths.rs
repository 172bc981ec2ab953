//! Every path this program touches, below one root that tests may move.
//!
//! No other module spells out an absolute path of the appliance.

use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub(crate) struct Paths {
    root: PathBuf,
}

macro_rules! places {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $($(#[$doc])* pub(crate) fn $name(&self) -> PathBuf { self.root.join($path) })*
    };
}

impl Paths {
    pub(crate) fn system() -> Self {
        Self::below("/")
    }

    pub(crate) fn below(root: impl AsRef<Path>) -> Self {
        Self {
            root: root.as_ref().to_owned(),
        }
    }

    places! {
        nft = "usr/sbin/nft";
        sealed_ruleset = "etc/clawgress/sealed.nft";
        release = "usr/lib/clawgress/release.json";
        config = "config";
        boot_config = "config/config.boot";
        credentials = "config/clawgress/credentials";
        /// Owned by this program; everything in it dies with the boot.
        run = "run/clawgress";
        report = "run/clawgress/boot.json";
        banner = "run/clawgress/banner";
        /// There once this program has run in this boot.
        started = "run/clawgress/started";
        /// The boot configuration that this boot took: its source on the first line, then its text.
        taken_config = "run/clawgress/taken.boot";
        socket = "run/clawgress/init.sock";
        reload_socket = "run/clawgress/reload.sock";
        /// Which consoles a login owns, and which have been shown the banner.
        consoles = "run/clawgress/console";
        volume_mount = "run/clawgress/config-volume";
        chrony_sources = "run/clawgress/chrony.d/config.sources";
        network_files = "run/systemd/network";
        tls = "var/lib/clawgress/tls";
        /// Key and certificate, for haproxy alone.
        front_key = "var/lib/clawgress/tls/front.pem";
        /// The certificate alone, for everyone who pins it.
        front_certificate = "var/lib/clawgress/tls/front.crt";
        gateway_key = "var/lib/clawgress/tls/gateway.key";
        gateway_certificate = "var/lib/clawgress/tls/gateway.crt";
        policy_socket = "run/clawgress/policy/admin.sock";
        enforcer_socket = "run/clawgress/enforcer/control.sock";
        groups = "etc/group";
        users = "etc/passwd";
        shadow = "etc/shadow";
        host_name = "etc/hostname";
        hosts = "etc/hosts";
        kernel_host_name = "proc/sys/kernel/hostname";
        local_time = "etc/localtime";
        zones = "usr/share/zoneinfo";
        sysctl_ipv4 = "proc/sys/net/ipv4";
        sysctl_ipv6 = "proc/sys/net/ipv6";
        memory = "proc/meminfo";
        block_devices = "sys/class/block";
        active_consoles = "sys/class/tty/console/active";
        devices = "dev";
        udev_control = "run/udev/control";
        udev_queue = "run/udev/queue";
        home = "home";
        root_home = "root";
        login = "bin/login";
    }
}
