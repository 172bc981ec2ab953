//! What the build host must have, and how it gets it. Never installs behind anybody's back: as root at once,
//! otherwise only after the exact command was shown and agreed to.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::base::Base;

/// A program or file that a verb needs, and the package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Mmdebstrap,
    UserNamespaces,
    Xorriso,
    Qemu,
    UefiFirmware,
    Unsquashfs,
    Nft,
    Named,
    Dig,
    Haproxy,
    Cpio,
    Namespaces,
    Curl,
    ExtTools,
    FatTools,
    Openssl,
    Iodine,
    Dns2tcp,
    Dnsperf,
    Squid,
    Tinyproxy,
    Pip,
    Ptunnel,
    Hping,
}

impl Need {
    /// Paths of which one must exist, and the package.
    fn row(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Mmdebstrap => (&["/usr/bin/mmdebstrap"], "mmdebstrap"),
            Self::UserNamespaces => (&["/usr/bin/newuidmap"], "uidmap"),
            Self::Xorriso => (&["/usr/bin/xorriso"], "xorriso"),
            Self::Qemu => (&["/usr/bin/qemu-system-x86_64"], "qemu-system-x86"),
            Self::UefiFirmware => (
                &[
                    "/usr/share/OVMF/OVMF_CODE_4M.fd",
                    "/usr/share/OVMF/OVMF_CODE.fd",
                ],
                "ovmf",
            ),
            Self::Unsquashfs => (&["/usr/bin/unsquashfs"], "squashfs-tools"),
            Self::Nft => (&["/usr/sbin/nft"], "nftables"),
            Self::Named => (&["/usr/sbin/named"], "bind9"),
            Self::Dig => (&["/usr/bin/dig"], "bind9-dnsutils"),
            Self::Haproxy => (&["/usr/sbin/haproxy"], "haproxy"),
            Self::Cpio => (&["/usr/bin/cpio", "/bin/cpio"], "cpio"),
            Self::Namespaces => (&["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"], "iproute2"),
            Self::Curl => (&["/usr/bin/curl"], "curl"),
            Self::ExtTools => (&["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"], "e2fsprogs"),
            Self::FatTools => (&["/usr/sbin/mkfs.vfat", "/sbin/mkfs.vfat"], "dosfstools"),
            Self::Openssl => (&["/usr/bin/openssl"], "openssl"),
            Self::Iodine => (&["/usr/sbin/iodined"], "iodine"),
            Self::Dns2tcp => (&["/usr/bin/dns2tcpd", "/usr/sbin/dns2tcpd"], "dns2tcp"),
            Self::Squid => (&["/usr/sbin/squid"], "squid"),
            Self::Tinyproxy => (&["/usr/bin/tinyproxy", "/usr/sbin/tinyproxy"], "tinyproxy"),
            Self::Pip => (&["/usr/bin/pip3"], "python3-pip"),
            Self::Dnsperf => (&["/usr/bin/dnsperf"], "dnsperf"),
            Self::Ptunnel => (&["/usr/bin/ptunnel-ng"], "ptunnel-ng"),
            Self::Hping => (&["/usr/sbin/hping3"], "hping3"),
        }
    }

    fn met(self) -> bool {
        self.row().0.iter().any(|path| Path::new(path).exists())
    }

    fn package(self) -> &'static str {
        self.row().1
    }
}

/// What it takes to build an image from `base`.
pub(crate) const BUILD: &[Need] = &[Need::Mmdebstrap, Need::UserNamespaces, Need::Xorriso];
/// What it takes to boot one.
pub(crate) const BOOT: &[Need] = &[Need::Qemu, Need::UefiFirmware];
/// What the tests need on top.
pub(crate) const TEST: &[Need] = &[
    Need::Unsquashfs,
    Need::Nft,
    Need::Named,
    Need::Dig,
    Need::Haproxy,
    Need::Cpio,
    Need::Namespaces,
    Need::Curl,
    Need::ExtTools,
    Need::FatTools,
    Need::Openssl,
    Need::Iodine,
    Need::Dns2tcp,
    Need::Ptunnel,
    Need::Hping,
];
/// What measurements need on top of the tests.
pub(crate) const BENCH: &[Need] = &[Need::Dnsperf];

/// Proxies that the gateway is measured beside, and what brings the one that no distribution packages.
pub(crate) const PROXIES: &[Need] = &[Need::Squid, Need::Tinyproxy, Need::Haproxy, Need::Pip];

/// Whether the person wants to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    Ask,
    Given,
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Installs what is missing of `needs`.
pub(crate) fn ensure(needs: &[Need], consent: Consent) -> Result<()> {
    let mut missing: Vec<&str> = needs
        .iter()
        .filter(|need| !need.met())
        .map(|need| need.package())
        .collect();
    missing.sort_unstable();
    missing.dedup();
    install(&missing, consent)?;
    if let Some(still) = needs.iter().find(|need| !need.met()) {
        bail!(
            "package {} is installed, yet none of {} exists: install it by hand and try again",
            still.package(),
            still.row().0.join(", ")
        );
    }
    Ok(())
}

/// Installs the archive keys of `base`; what brings them has different names on different hosts.
pub(crate) fn ensure_keyring(base: &Base, consent: Consent) -> Result<()> {
    if base.keyring_path().is_some() {
        return Ok(());
    }
    let shell = Shell::new()?;
    let known = base.keyring_packages.iter().find(|package| {
        cmd!(shell, "apt-cache show {package}")
            .quiet()
            .ignore_stderr()
            .read()
            .is_ok_and(|text| !text.is_empty())
    });
    let Some(package) = known else {
        bail!(
            "the archive keys of {} ({}) are missing, and this host's archive has none of the packages {}: \
             put the keyring at /usr/share/keyrings/{} or choose another --base",
            base.title,
            base.keyring,
            base.keyring_packages.join(", "),
            base.keyring
        );
    };
    install(&[package], consent)
}

fn install(packages: &[&str], consent: Consent) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "this host lacks what the packages {} bring, and has no apt-get to install them with: \
             install them by hand (the verbs know Debian and Ubuntu hosts)",
            packages.join(", ")
        );
    }
    let list = packages.join(" ");
    let command = format!("apt-get install --yes --no-install-recommends {list}");
    let shell = Shell::new()?;
    shell.set_var("DEBIAN_FRONTEND", "noninteractive");
    let sudo: &[&str] = if is_root() {
        &[]
    } else {
        println!(
            "This host lacks: {list}\nThey are installed by:\n    sudo apt-get update && sudo {command}"
        );
        if consent == Consent::Ask && !agreed()? {
            bail!("not installed: run the command above, then try again");
        }
        &["sudo", "--preserve-env=DEBIAN_FRONTEND"]
    };
    println!("installing {list}");
    let run = |arguments: &[&str]| -> Result<()> {
        let mut words: Vec<&str> = sudo.to_vec();
        words.extend_from_slice(arguments);
        let (program, rest) = words.split_first().context("an empty command")?;
        let output = cmd!(shell, "{program} {rest...}")
            .quiet()
            .ignore_status()
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        let reason = text
            .lines()
            .find(|line| line.starts_with("E:"))
            .unwrap_or("no reason given");
        bail!("{} failed: {reason}", words.join(" "))
    };
    // Lists may be absent on a fresh machine: an update that fails is told by the install that follows.
    let updated = run(&["apt-get", "update", "--quiet"]);
    let mut arguments = vec![
        "apt-get",
        "install",
        "--yes",
        "--quiet",
        "--no-install-recommends",
    ];
    arguments.extend_from_slice(packages);
    // A daemon that arrives as a test tool must not start serving on the build host, now or after a reboot.
    let units: Vec<&str> = DAEMONS
        .iter()
        .filter(|(package, _)| {
            packages.contains(package) && Path::new("/run/systemd/system").exists()
        })
        .map(|(_, unit)| *unit)
        .collect();
    for unit in &units {
        run(&["systemctl", "mask", "--runtime", unit])?;
    }
    run(&arguments).map_err(|error| match updated {
        Ok(()) => error,
        Err(update) => error.context(update),
    })?;
    for unit in &units {
        run(&["systemctl", "disable", unit])?;
    }
    Ok(())
}

/// Packages that bring a daemon which would start by itself, and its unit.
const DAEMONS: &[(&str, &str)] = &[
    ("bind9", "named.service"),
    ("haproxy", "haproxy.service"),
    ("iodine", "iodined.service"),
    ("dns2tcp", "dns2tcp.service"),
];

fn agreed() -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    print!("Run it now? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// How mmdebstrap can work here: as root, or in a user namespace where the host lets one be made.
pub(crate) fn bootstrap_mode() -> Result<&'static str> {
    if is_root() {
        return Ok("root");
    }
    let shell = Shell::new()?;
    let works = cmd!(shell, "unshare --user --map-root-user --mount true")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_ok();
    if works {
        return Ok("unshare");
    }
    let restricted =
        std::fs::read_to_string("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
            .is_ok_and(|value| value.trim() == "1");
    if restricted {
        bail!(
            "AppArmor on this host restricts unprivileged user namespaces, which unpacking the base needs: \
             run this verb with sudo, or allow them with\n    \
             sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        );
    }
    bail!(
        "this host lets no unprivileged user namespace be made, which unpacking the base needs: run this verb with sudo"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_names_absolute_paths_and_a_package() {
        for need in BUILD.iter().chain(BOOT).chain(TEST) {
            let (paths, package) = need.row();
            assert!(
                !paths.is_empty() && paths.iter().all(|path| path.starts_with('/')),
                "{need:?}"
            );
            assert!(!package.contains(' ') && !package.is_empty(), "{need:?}");
        }
    }
}
