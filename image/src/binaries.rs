//! The appliance's own programs: built statically, so that the build host's libc does not matter to any base.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::progress::Step;

/// The one target triple of the image; the host builds for itself, but asks for it by name, so that build scripts
/// stay dynamic and only the programs become static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What goes into the image: package, binary, and the path it gets there (`None`: it goes into the initramfs).
pub(crate) const PROGRAMS: &[(&str, &str, Option<&str>)] = &[
    ("clawgress-initramfs", "init", None),
    (
        "appliance-init",
        "appliance-init",
        Some("usr/lib/clawgress/appliance-init"),
    ),
    (
        "clawgress-policy",
        "clawgress-policy",
        Some("usr/lib/clawgress/clawgress-policy"),
    ),
    (
        "clawgress-enforcer",
        "clawgress-enforcer",
        Some("usr/lib/clawgress/clawgress-enforcer"),
    ),
    (
        "clawgress-dns",
        "clawgress-dns",
        Some("usr/lib/clawgress/clawgress-dns"),
    ),
    (
        "clawgress-identity",
        "clawgress-identity",
        Some("usr/lib/clawgress/clawgress-identity"),
    ),
    (
        "clawgress-quota",
        "clawgress-quota",
        Some("usr/lib/clawgress/clawgress-quota"),
    ),
    (
        "clawgress-audit",
        "clawgress-audit",
        Some("usr/lib/clawgress/clawgress-audit"),
    ),
    (
        "clawgress-gateway",
        "clawgress-gateway",
        Some("usr/lib/clawgress/clawgress-gateway"),
    ),
    ("clawgress-cli", "clawgress", Some("usr/bin/clawgress")),
];

pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) destination: Option<&'static str>,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Built {
    pub(crate) programs: Vec<Program>,
}

/// The project's root, found from the builder's own manifest.
pub(crate) fn project_root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or_else(|| manifest.clone(), Path::to_path_buf)
}

pub(crate) fn build() -> Result<Built> {
    let root = project_root();
    let target = root.join("target/appliance");
    build_in(&root, &target)
}

/// Builds the programs of the project at `root` into `target`.
pub(crate) fn build_in(root: &Path, target: &Path) -> Result<Built> {
    let step = Step::begin("building the appliance's programs");
    let shell = Shell::new()?;
    shell.change_dir(root);
    let home = std::env::var("CARGO_HOME")
        .ok()
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    // Paths of the build host would make each checkout's image differ.
    let mut flags = vec![
        "-Ctarget-feature=+crt-static".to_owned(),
        format!("--remap-path-prefix={}=/clawgress", root.display()),
    ];
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=/cargo", home.display()));
    }
    shell.set_var("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    shell.set_var("CARGO_TARGET_DIR", target);
    let packages = PROGRAMS
        .iter()
        .flat_map(|(package, ..)| ["--package", package]);
    let binaries = PROGRAMS.iter().flat_map(|(_, binary, _)| ["--bin", binary]);
    let arguments: Vec<&str> = packages.chain(binaries).collect();
    let output = cmd!(
        shell,
        "cargo build --quiet --locked --profile appliance --target {TARGET} {arguments...}"
    )
    .quiet()
    .ignore_status()
    .output()
    .context("starting cargo")?;
    if !output.status.success() {
        bail!(
            "building the appliance's programs failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let directory = target.join(TARGET).join("appliance");
    let programs = PROGRAMS
        .iter()
        .map(|(_, name, destination)| {
            let path = directory.join(name);
            let bytes =
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            require_static(name, &bytes)?;
            Ok(Program {
                name,
                destination: *destination,
                bytes,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let total: usize = programs.iter().map(|program| program.bytes.len()).sum();
    step.done(crate::progress::size(total as u64));
    Ok(Built { programs })
}

/// Refuses a program that would ask the base for a dynamic loader.
fn require_static(name: &str, elf: &[u8]) -> Result<()> {
    let word = |at: usize, length: usize| -> Result<u64> {
        let bytes = elf
            .get(at..at + length)
            .with_context(|| format!("{name} is not a whole ELF file"))?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    };
    if elf.get(..5) != Some(b"\x7fELF\x02") {
        bail!("{name} is not a 64-bit ELF file");
    }
    let (table, entry, count) = (
        word(0x20, 8)? as usize,
        word(0x36, 2)? as usize,
        word(0x38, 2)? as usize,
    );
    for index in 0..count {
        const INTERPRETER: u64 = 3;
        if word(table + index * entry, 4)? == INTERPRETER {
            bail!(
                "{name} is dynamically linked: it would depend on the base's libc; build it with +crt-static"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_refused() {
        // The test itself is one.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = require_static("tests", &own).unwrap_err().to_string();
        assert!(error.contains("dynamically linked"), "{error}");
        assert!(require_static("tests", b"#!/bin/sh").is_err());
        assert!(require_static("tests", &own[..60]).is_err());
    }
}
