//! Base files: what a distribution calls the things the appliance needs. The only place that knows a
//! distribution's names; code elsewhere never asks which base it builds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The base files, compiled in so that a builder always matches its bases.
const FILES: &[(&str, &str)] = &[
    ("ubuntu-24.04", include_str!("../bases/ubuntu-24.04.toml")),
    ("debian-13", include_str!("../bases/debian-13.toml")),
    ("debian-12", include_str!("../bases/debian-12.toml")),
];

/// The product. Everything else is a stand-in.
pub(crate) const PRODUCT: &str = "ubuntu-24.04";
/// What `auto` takes where the product's archive does not answer.
pub(crate) const STAND_IN: &str = "debian-13";

/// Why a package is in the image. Every base must fill each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    Init,
    Network,
    Enforcement,
    ConnectionTracking,
    Time,
    Tools,
    Trust,
    LogForwarding,
    RemoteAccess,
    Confinement,
    Rescue,
}

impl Role {
    pub(crate) const ALL: &[Self] = &[
        Self::Init,
        Self::Network,
        Self::Enforcement,
        Self::ConnectionTracking,
        Self::Time,
        Self::Tools,
        Self::Trust,
        Self::LogForwarding,
        Self::RemoteAccess,
        Self::Confinement,
        Self::Rescue,
    ];
}

/// A kernel for virtual machines alone, or one for hardware too.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, clap::ValueEnum, Default,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Flavour {
    /// For virtual machines: small.
    #[default]
    Virtual,
    /// For hardware and virtual machines.
    Generic,
}

impl std::fmt::Display for Flavour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Virtual => "virtual",
            Self::Generic => "generic",
        })
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Base {
    /// The base's name, which is its file's name.
    #[serde(skip)]
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    /// The archive's public keys, under `/usr/share/keyrings` of the build host.
    pub(crate) keyring: String,
    /// Which package brings that file; the first one that the build host's archive has.
    pub(crate) keyring_packages: Vec<String>,
    pub(crate) packages: BTreeMap<Role, Vec<String>>,
    pub(crate) kernel: BTreeMap<Flavour, Kernel>,
    pub(crate) boot_loader: PackageList,
    /// What the boot benchmark compares with: the distribution's own way to boot such an image.
    pub(crate) live_boot: PackageList,
    pub(crate) claims: Claims,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    pub(crate) packages: Vec<String>,
    pub(crate) initramfs: Modules,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Modules {
    pub(crate) required: Vec<String>,
    pub(crate) directories: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PackageList {
    pub(crate) packages: Vec<String>,
}

/// What the unpacked root must hold, or the build fails with the path that is missing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Claims {
    pub(crate) service_users: Vec<String>,
    pub(crate) binaries: Vec<String>,
    pub(crate) units: Vec<String>,
    pub(crate) modules: Vec<String>,
}

impl Base {
    /// The names that `--base` accepts, besides `auto`.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }

    pub(crate) fn load(name: &str) -> Result<Self> {
        let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
            bail!(
                "unknown base '{name}': known are {}, and auto",
                Self::names().collect::<Vec<_>>().join(", ")
            );
        };
        let mut base: Self =
            toml::from_str(text).with_context(|| format!("reading image/bases/{name}.toml"))?;
        name.clone_into(&mut base.name);
        for role in Role::ALL {
            if base.packages.get(role).is_none_or(Vec::is_empty) {
                bail!("image/bases/{name}.toml fills no package for the role {role:?}");
            }
        }
        Ok(base)
    }

    pub(crate) fn kernel(&self, flavour: Flavour) -> Result<&Kernel> {
        self.kernel
            .get(&flavour)
            .with_context(|| format!("base {} names no {flavour} kernel", self.name))
    }

    /// Every package of the root, sorted, each once.
    pub(crate) fn root_packages(&self, flavour: Flavour) -> Result<Vec<String>> {
        let mut all: Vec<String> = self.packages.values().flatten().cloned().collect();
        all.extend(self.kernel(flavour)?.packages.iter().cloned());
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Where the build host keeps the archive's keys; `None` if it does not have them.
    pub(crate) fn keyring_path(&self) -> Option<std::path::PathBuf> {
        let path = Path::new("/usr/share/keyrings").join(&self.keyring);
        path.exists().then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base_fills_every_role_and_kernel_flavour() {
        for name in Base::names() {
            let base = Base::load(name).unwrap();
            for flavour in [Flavour::Virtual, Flavour::Generic] {
                let kernel = base.kernel(flavour).unwrap();
                assert!(!kernel.packages.is_empty(), "{name} {flavour}");
                for module in ["squashfs", "overlay", "loop", "isofs", "virtio_blk", "nvme"] {
                    assert!(
                        kernel
                            .initramfs
                            .required
                            .iter()
                            .any(|known| known == module),
                        "{name} {flavour} does not claim {module}"
                    );
                }
            }
            assert!(!base.boot_loader.packages.is_empty() && !base.live_boot.packages.is_empty());
        }
    }

    #[test]
    fn every_base_brings_what_the_specification_requires() {
        // Specification 4, section 2.3, and the time daemon of section 7.2.
        let required = [
            "ca-certificates",
            "curl",
            "jq",
            "nftables",
            "iproute2",
            "conntrack",
            "systemd",
            "rsyslog",
            "chrony",
        ];
        for name in Base::names() {
            let packages = Base::load(name)
                .unwrap()
                .root_packages(Flavour::Virtual)
                .unwrap();
            for package in required {
                assert!(
                    packages.iter().any(|known| known == package),
                    "{name} lacks {package}"
                );
            }
            assert!(
                !packages.iter().any(|known| known == "iptables"),
                "{name} brings iptables"
            );
        }
    }

    #[test]
    fn every_base_claims_the_same_things() {
        let product = Base::load(PRODUCT).unwrap();
        for name in Base::names() {
            let base = Base::load(name).unwrap();
            for unit in &product.claims.units {
                assert!(
                    base.claims.units.contains(unit),
                    "{name} does not claim {unit}"
                );
            }
            assert_eq!(base.claims.modules, product.claims.modules, "{name}");
            assert_eq!(
                base.claims.binaries.len(),
                product.claims.binaries.len(),
                "{name}"
            );
        }
    }

    /// Every program that a unit of the overlay starts, as a path in the root; our own come with the image.
    fn started_by_units() -> Vec<String> {
        let directory =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs-overlay/usr/lib/systemd/system");
        let mut pending = vec![directory];
        let mut programs = Vec::new();
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let commands = text.lines().filter(|line| line.starts_with("Exec"));
                for command in commands.filter_map(|line| line.split_once('=')) {
                    let words = command.1.trim_start_matches(['-', '+', '@', '!', ':']);
                    let Some(program) = words
                        .split(' ')
                        .next()
                        .and_then(|word| word.strip_prefix('/'))
                    else {
                        continue;
                    };
                    let merged = program.starts_with("bin/") || program.starts_with("sbin/");
                    programs.push(if merged {
                        format!("usr/{program}")
                    } else {
                        program.to_owned()
                    });
                }
            }
        }
        programs
    }

    #[test]
    fn every_base_claims_what_the_units_start_and_the_preset_enables() {
        let programs = started_by_units();
        assert!(programs.len() > 8, "{programs:?}");
        let overlay =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../rootfs-overlay/usr/lib/systemd");
        let preset =
            std::fs::read_to_string(overlay.join("system-preset/00-clawgress.preset")).unwrap();
        for name in Base::names() {
            let claims = Base::load(name).unwrap().claims;
            for program in programs
                .iter()
                .filter(|program| !program.starts_with("usr/lib/clawgress/"))
            {
                assert!(
                    claims.binaries.contains(program),
                    "{name} does not claim /{program}"
                );
            }
            for unit in preset
                .lines()
                .filter_map(|line| line.strip_prefix("enable "))
            {
                let template = unit
                    .split_once('@')
                    .map(|(name, _)| format!("{name}@.service"));
                let claimed = template.as_deref().unwrap_or(unit);
                let ours = overlay.join("system").join(unit).exists();
                assert!(
                    ours || claims.units.iter().any(|known| known == claimed),
                    "{name} does not claim {unit}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_base_is_named_with_the_known_ones() {
        let error = Base::load("debian-14").unwrap_err().to_string();
        assert!(
            error.contains("debian-14") && error.contains("ubuntu-24.04"),
            "{error}"
        );
    }
}
