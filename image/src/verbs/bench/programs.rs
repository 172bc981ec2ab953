//! Figures that other programs of this workspace measure: each is built for release, run, and heard out.
//!
//! A program announces a figure as one line (`qemu_tests::figures`); whatever else it says goes to the terminal.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use qemu_tests::figures::Line;
use xshell::{Shell, cmd};

use crate::binaries::project_root;

/// The agents' resolver beside bare named, in a network namespace of its own.
pub(crate) fn dns() -> Result<Vec<Line>> {
    let shell = at_the_root()?;
    cmd!(
        shell,
        "cargo build --release --locked --package clawgress-dns --bin clawgress-dns --example bench"
    )
    .quiet()
    .run()?;
    let release = project_root().join("target/release");
    let (program, resolver) = (
        release.join("examples/bench"),
        release.join("clawgress-dns"),
    );
    heard(cmd!(shell, "unshare -Urn {program} --resolver {resolver}"))
}

/// What a socket may send at once. On the box the enforcer's privilege goes past it; in a lab nobody has that one.
const SEND_LIMIT: &str = "/proc/sys/net/core/wmem_default";
const SENT_AT_ONCE: u64 = 64 * 1024 * 1024;

fn allow_large_transactions() -> Result<()> {
    let limit =
        std::fs::read_to_string(SEND_LIMIT).with_context(|| format!("reading {SEND_LIMIT}"))?;
    if limit
        .trim()
        .parse()
        .is_ok_and(|limit: u64| limit >= SENT_AT_ONCE)
    {
        return Ok(());
    }
    std::fs::write(SEND_LIMIT, SENT_AT_ONCE.to_string()).with_context(|| {
        format!("a large ruleset is more than this machine lets a socket send: sysctl -w net.core.wmem_default={SENT_AT_ONCE}")
    })
}

/// Large policies, and what the rules cost, with everything that enforces.
pub(crate) fn enforce() -> Result<Vec<Line>> {
    allow_large_transactions()?;
    let shell = at_the_root()?;
    cmd!(
        shell,
        "cargo build --release --locked --package qemu-tests --example tls_load"
    )
    .quiet()
    .run()?;
    let mut figures = heard(cmd!(
        shell,
        "cargo test --release --locked --package qemu-tests --test figures -- --nocapture --test-threads=1"
    ))?;
    figures.extend(heard(cmd!(
        shell,
        "cargo test --release --locked --package qemu-tests --test net -- --nocapture --test-threads=1 plan_rates::"
    ))?);
    Ok(figures)
}

pub(super) fn at_the_root() -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    Ok(shell)
}

/// Runs it to its end. What was measured counts even if the program then fails for a figure that does not hold.
pub(super) fn heard(command: xshell::Cmd<'_>) -> Result<Vec<Line>> {
    let words = command.to_string();
    let mut child = Command::from(command)
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {words}"))?;
    let output = child.stdout.take().context("reading what it prints")?;
    let mut figures = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        match Line::announced(&line) {
            Some(figure) => figures.push(figure),
            None => eprintln!("{line}"),
        }
    }
    let ended = child.wait()?;
    if !ended.success() && figures.iter().all(|figure| figure.holds) {
        bail!("{words} failed ({ended}); what it said is above");
    }
    if figures.is_empty() {
        bail!("{words} measured nothing");
    }
    Ok(figures)
}
