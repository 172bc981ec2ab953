//! The base's packages as a tar, through mmdebstrap: it resolves, verifies and unpacks; nothing here is an apt.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::base::{Base, Flavour, PRODUCT, STAND_IN};
use crate::cache::{self, Key};
use crate::host;
use crate::progress::{Step, size};

/// Every run of mmdebstrap is told the same time, so that the same packages give the same tar.
const EPOCH: &str = "1700000000";

/// What never belongs into the image: it is kept out when packages are unpacked.
const EXCLUDED: &[&str] = &[
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/doc/*",
    "/usr/share/lintian/*",
    "/usr/share/bug/*",
];
/// Licences stay.
const INCLUDED: &[&str] = &["/usr/share/doc/*/copyright"];

/// The package set to unpack, and how far mmdebstrap goes with it.
pub(crate) enum Set {
    /// Installed and configured: the appliance's root.
    Root(Flavour),
    /// Installed with the distribution's own live-boot initramfs made: the benchmark's peer.
    LiveBoot(Flavour),
    /// Unpacked alone: the boot loader's tools and images.
    BootLoader,
}

impl Set {
    fn name(&self) -> String {
        match self {
            Self::Root(flavour) => format!("root-{flavour}"),
            Self::LiveBoot(flavour) => format!("live-boot-{flavour}"),
            Self::BootLoader => "boot-loader".to_owned(),
        }
    }

    fn packages(&self, base: &Base) -> Result<Vec<String>> {
        Ok(match self {
            Self::Root(flavour) => base.root_packages(*flavour)?,
            Self::LiveBoot(flavour) => {
                let mut all = base.root_packages(*flavour)?;
                all.extend(base.live_boot.packages.iter().cloned());
                all
            }
            Self::BootLoader => base.boot_loader.packages.clone(),
        })
    }
}

/// Which base `auto` means here: the product where its archive answers, else the stand-in, loudly.
pub(crate) fn resolve(name: &str) -> Result<Base> {
    if name != "auto" {
        return Base::load(name);
    }
    let product = Base::load(PRODUCT)?;
    let remembered = cache::directory()?.join("auto-base");
    let step = Step::begin(format!("asking the archive of {}", product.title));
    let answers = product.keyring_path().is_some() && archive_answers(&product);
    let chosen = if answers { PRODUCT } else { STAND_IN };
    cache::atomic_write(&remembered, chosen.as_bytes()).ok();
    if answers {
        step.done("it answers");
        return Ok(product);
    }
    step.done("no answer");
    let base = Base::load(STAND_IN)?;
    eprintln!(
        "\n*** The archive of {} does not answer here: building the stand-in {} instead. ***\n\
         *** Good for development and tests; a release is built with --base {PRODUCT} alone. ***\n",
        product.title, base.title
    );
    Ok(base)
}

fn archive_answers(base: &Base) -> bool {
    let Ok(shell) = Shell::new() else {
        return false;
    };
    let Ok(mode) = host::bootstrap_mode() else {
        return false;
    };
    let Ok(scratch) = tempfile::tempdir() else {
        return false;
    };
    let (suite, target) = (&base.suite, scratch.path().join("probe"));
    cmd!(shell, "timeout 60 mmdebstrap --quiet --mode={mode} --variant=custom --aptopt=Acquire::Retries=0 --aptopt=Acquire::http::Timeout=8 {suite} {target}")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_ok()
}

/// The tar of `set`, from the cache or freshly unpacked.
pub(crate) fn tar(base: &Base, set: &Set) -> Result<PathBuf> {
    let packages = set.packages(base)?;
    let mut key = Key::default()
        .add("tar 1")
        .add(&base.name)
        .add(&base.suite)
        .add(base.components.join(","))
        .add(set.name())
        .add(EPOCH)
        .add(packages.join(","));
    for pattern in EXCLUDED.iter().chain(INCLUDED) {
        key = key.add(pattern);
    }
    cache::entry(
        &format!("{}-{}", base.name, set.name()),
        "tar",
        key,
        |path| bootstrap(base, set, &packages, path),
    )
}

fn bootstrap(base: &Base, set: &Set, packages: &[String], target: &Path) -> Result<()> {
    let step = Step::begin(format!(
        "unpacking {} packages of {} ({})",
        packages.len(),
        base.title,
        set.name()
    ));
    let shell = Shell::new()?;
    shell.set_var("SOURCE_DATE_EPOCH", EPOCH);
    // The appliance brings its own initramfs: the distribution's is made for the benchmark alone.
    if !matches!(set, Set::LiveBoot(_)) {
        shell.set_var("INITRD", "No");
    }
    shell.set_var("LC_ALL", "C.UTF-8");
    let mode = host::bootstrap_mode()?;
    let variant = if matches!(set, Set::BootLoader) {
        "extract"
    } else {
        "essential"
    };
    let components = base.components.join(",");
    let include = packages.join(",");
    let mut options: Vec<String> = EXCLUDED
        .iter()
        .map(|pattern| format!("--dpkgopt=path-exclude={pattern}"))
        .chain(
            INCLUDED
                .iter()
                .map(|pattern| format!("--dpkgopt=path-include={pattern}")),
        )
        .collect();
    if let Some(keyring) = base.keyring_path() {
        options.push(format!("--keyring={}", keyring.display()));
    }
    let suite = &base.suite;
    let output = cmd!(
        shell,
        "mmdebstrap --mode={mode} --variant={variant} --format=tar --components={components} --include={include} --aptopt=Acquire::Retries=3 {options...} {suite} {target}"
    )
    .quiet()
    .ignore_status()
    .output()
    .context("starting mmdebstrap")?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}", explain(base, &text));
    }
    step.done(size(std::fs::metadata(target)?.len()));
    Ok(())
}

/// The words of [`explain`] for a network that does not lead to the archive.
const UNREACHABLE: &str = "cannot be reached from here";

/// True if it failed because the base's archive is out of reach.
pub(crate) fn is_unreachable(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains(UNREACHABLE)
}

/// One line out of the stack that apt prints.
fn explain(base: &Base, text: &str) -> String {
    let unreachable = [
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Connection failed",
        "Connection timed out",
        "Temporary failure resolving",
        "Failed to fetch",
        "does not have a Release file",
        "Connection refused",
        "Forbidden",
    ];
    if text.contains("No space left on device") {
        return format!(
            "unpacking {} filled the disk: free at least 2 GB and try again",
            base.title
        );
    }
    if let Some(line) = text
        .lines()
        .find(|line| line.contains("Unable to locate package"))
    {
        return format!(
            "{} does not have it: {}",
            base.title,
            line.trim_start_matches("E: ")
        );
    }
    if unreachable.iter().any(|words| text.contains(words)) {
        return format!(
            "the archive of {} {UNREACHABLE}: check the network or proxy, or build a base that can (--base {STAND_IN})",
            base.title
        );
    }
    if text.contains("NO_PUBKEY") || text.contains("not signed") || text.contains("GPG error") {
        return format!(
            "the archive of {} is signed with a key that {} does not hold: update the package {}",
            base.title,
            base.keyring,
            base.keyring_packages.join(" or ")
        );
    }
    let line = text
        .lines()
        .find(|line| line.starts_with("E:") || line.starts_with("error:"))
        .unwrap_or("it gave no reason");
    format!("mmdebstrap could not unpack {}: {line}", base.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_archive_is_one_line() {
        let base = Base::load(PRODUCT).unwrap();
        let stack = "I: running apt-get update\nErr:1 noble InRelease\n  Could not resolve 'archive'\n\
                     W: Failed to fetch InRelease\nE: apt-get update failed\n";
        let line = explain(&base, stack);
        assert!(
            line.contains("cannot be reached") && !line.contains('\n'),
            "{line}"
        );
        let line = explain(
            &base,
            "E: Unable to locate package bind99\nE: Failed to fetch",
        );
        assert!(line.contains("bind99") && line.contains("Ubuntu"), "{line}");
        let line = explain(&base, "dpkg: write: No space left on device\nE: failed");
        assert!(line.contains("filled the disk"), "{line}");
        assert!(explain(&base, "E: setup failed: odd").ends_with("setup failed: odd"));
    }
}
