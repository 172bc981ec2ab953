//! `cargo xtask test`: every test, by group; closes with a line that counts them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use xshell::{Shell, cmd};

use super::Which;
use crate::assemble;
use crate::base::{Base, Flavour};
use crate::binaries::project_root;
use crate::fetch;
use crate::host::{self, Consent};

/// Run the tests: all of the gate, or the groups named. Builds the images that they boot.
#[derive(Debug, Args)]
pub(crate) struct Test {
    /// unit: beside the code. image: the artifacts. net: daemons in namespaces. vm: booted appliances.
    /// fuzz: every parser of foreign bytes, a minute each. clients: other people's programs through the gateway. soak: the gateway
    /// under load for a quarter of an hour. full: everything, with long matrices and every base.
    #[arg(value_enum)]
    groups: Vec<Group>,
    #[command(flatten)]
    which: Which,
    /// Only tests whose name contains this.
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    Unit,
    Image,
    Net,
    Vm,
    Fuzz,
    Clients,
    Soak,
    Full,
}

/// For each target.
const FUZZING_SECONDS: u32 = 60;

/// Runs every fuzz target of every room; a find fails it and stays in the room's `fuzz/artifacts`.
fn fuzz(tally: &mut Tally) -> Result<()> {
    let shell = Shell::new()?;
    if cmd!(shell, "cargo +nightly --version")
        .quiet()
        .ignore_stderr()
        .read()
        .is_err()
    {
        bail!("fuzzing needs a nightly compiler: rustup toolchain install nightly");
    }
    if cmd!(shell, "cargo fuzz --version")
        .quiet()
        .ignore_stderr()
        .read()
        .is_err()
    {
        cmd!(shell, "cargo install --quiet --locked cargo-fuzz").run()?;
    }
    let rooms: Vec<_> = std::fs::read_dir(project_root().join("services"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|room| room.join("fuzz/Cargo.toml").exists())
        .collect();
    for room in rooms {
        shell.change_dir(&room);
        let targets = cmd!(shell, "cargo +nightly fuzz list").quiet().read()?;
        for target in targets.lines() {
            let time = format!("-max_total_time={FUZZING_SECONDS}");
            let ended = cmd!(shell, "cargo +nightly fuzz run {target} -- {time}").run();
            if ended.is_ok() {
                tally.passed += 1;
            } else {
                tally.failed += 1;
                tally
                    .broken
                    .push(format!("fuzz {} {target}", room.display()));
            }
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    broken: Vec<String>,
    /// What this machine could not even attempt, each with its reason; said again at the end.
    not_run: Vec<String>,
}

fn not_run(tally: &mut Tally, base: &str, error: &anyhow::Error) {
    let line = format!("machines on {base}: {error:#}");
    eprintln!("NOT RUN: {line}");
    tally.not_run.push(line);
}

impl Test {
    pub(crate) fn go(&self, consent: Consent) -> Result<()> {
        let full = self.groups.contains(&Group::Full);
        let groups: Vec<Group> = if full || self.groups.is_empty() {
            let gate = vec![Group::Unit, Group::Image, Group::Net, Group::Vm];
            if full {
                [gate, vec![Group::Fuzz, Group::Clients, Group::Soak]].concat()
            } else {
                gate
            }
        } else {
            self.groups.clone()
        };
        let needs = [host::BOOT, host::TEST].concat();
        let started = Instant::now();
        let mut tally = Tally::default();
        let base = self.which.prepare(&needs, consent)?;
        for group in groups {
            let began = Instant::now();
            println!("\n== {group:?} tests ==");
            match group {
                Group::Unit => {
                    let beside_the_code = ["--workspace", "--lib", "--bins"];
                    self.cargo(&mut tally, "unit", &beside_the_code, &[]);
                    let rooms = [
                        "--workspace",
                        "--exclude",
                        "xtask",
                        "--exclude",
                        "qemu-tests",
                        "--test",
                        "*",
                    ];
                    self.cargo(&mut tally, "unit", &rooms, &[]);
                }
                Group::Image => self.image(&mut tally, &base, full)?,
                Group::Net => {
                    let daemons = ["--package", "qemu-tests", "--test", "net", "--test", "ways"];
                    self.cargo(&mut tally, "net", &daemons, &[]);
                }
                Group::Vm => self.vm(&mut tally, &base, full)?,
                Group::Fuzz => fuzz(&mut tally)?,
                Group::Clients => {
                    let programs = ["--package", "clawgress-gateway", "--features", "clients"];
                    let programs = [programs.as_slice(), &["--test", "clients"]].concat();
                    self.cargo(&mut tally, "clients", &programs, &[]);
                }
                Group::Soak => {
                    // As it is shipped: what a debug build holds says little.
                    let soak = ["--release", "--package", "clawgress-gateway"];
                    let soak =
                        [soak.as_slice(), &["--features", "soak", "--test", "soak"]].concat();
                    self.cargo(&mut tally, "soak", &soak, &[]);
                }
                Group::Full => {}
            }
            println!(
                "== {group:?} tests took {:.0} s ==",
                began.elapsed().as_secs_f64()
            );
        }
        println!("\nAll in {:.0} s.", started.elapsed().as_secs_f64());
        // This very form is what tools count by.
        for missing in &tally.not_run {
            println!("NOT RUN: {missing}");
        }
        println!("{} passed, {} failed", tally.passed, tally.failed);
        if tally.failed > 0 || !tally.broken.is_empty() {
            bail!("failing: {}", tally.broken.join(", "));
        }
        if tally.passed == 0 {
            bail!("no test ran: does anything match --only?");
        }
        Ok(())
    }

    fn image(&self, tally: &mut Tally, base: &Base, full: bool) -> Result<()> {
        let dist = assemble::image(base, self.which.flavour)?;
        let mut environment = vec![("CLAWGRESS_DIST", dist.directory.display().to_string())];
        if full {
            environment.push(("CLAWGRESS_FULL", "1".to_owned()));
        }
        self.cargo(
            tally,
            "image",
            &["--package", "xtask", "--test", "artifacts"],
            &environment,
        );
        Ok(())
    }

    fn vm(&self, tally: &mut Tally, base: &Base, full: bool) -> Result<()> {
        let mut bases = vec![base.clone()];
        if full {
            for name in Base::names().filter(|name| *name != base.name) {
                let other = Base::load(name)?;
                match host::ensure_keyring(&other, Consent::Given) {
                    Ok(()) => bases.push(other),
                    Err(error) => not_run(tally, name, &error),
                }
            }
        }
        for base in &bases {
            let small = match assemble::image(base, Flavour::Virtual) {
                // An archive that cannot be reached from here says nothing about the code; any other failure does.
                Err(error) if bases.len() > 1 && fetch::is_unreachable(&error) => {
                    not_run(tally, &base.name, &error);
                    continue;
                }
                small => small?,
            };
            let large = assemble::image(base, Flavour::Generic)?;
            let environment = [
                ("CLAWGRESS_DIST", small.directory.display().to_string()),
                (
                    "CLAWGRESS_DIST_GENERIC",
                    large.directory.display().to_string(),
                ),
            ];
            let mut arguments = vec!["--package", "qemu-tests"];
            if full {
                arguments.extend(["--features", "full"]);
            }
            arguments.extend(["--test", "vm"]);
            self.cargo(
                tally,
                &format!("vm on {}", base.name),
                &arguments,
                &environment,
            );
        }
        Ok(())
    }

    /// Runs one `cargo test` and adds what it counts.
    fn cargo(
        &self,
        tally: &mut Tally,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) {
        let outcome = self.try_cargo(tally, arguments, environment);
        match outcome {
            Ok(true) => {}
            Ok(false) => tally.broken.push(name.to_owned()),
            Err(error) => {
                eprintln!("error: {error:#}");
                tally.broken.push(name.to_owned());
            }
        }
    }

    fn try_cargo(
        &self,
        tally: &mut Tally,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Result<bool> {
        let shell = Shell::new()?;
        shell.change_dir(project_root());
        let only = self.only.as_slice();
        let mut command: Command = cmd!(
            shell,
            "cargo test --locked --no-fail-fast {arguments...} -- --test-threads=2 {only...}"
        )
        .into();
        command.envs(environment.iter().map(|(name, value)| (*name, value)));
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("starting cargo test")?;
        let output = child
            .stdout
            .take()
            .context("reading what cargo test prints")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some((passed, failed)) = counts(&line) {
                tally.passed += passed;
                tally.failed += failed;
            }
            println!("{line}");
        }
        Ok(child.wait()?.success())
    }
}

/// The counts of a test program's closing line.
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| -> Option<u64> {
        let (before, _) = rest.split_once(word)?;
        before.trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some((number(" passed")?, number(" failed")?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_closing_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(super::counts(line), Some((12, 3)));
        assert_eq!(super::counts("test some::name ... ok"), None);
    }
}
