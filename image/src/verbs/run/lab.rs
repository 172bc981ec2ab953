//! `cargo xtask run --lab`: the appliance between a fake internet and an agent, and the agent's shell for a person.
//!
//! The same lab as that of the tests. Nothing of it touches this machine's own network.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use qemu_tests::accel::Accelerator;
use qemu_tests::agent::{Agent, BOX_LAN_MAC, BOX_WAN_MAC};
use qemu_tests::lab::{Internet, Lab, Tap};
use qemu_tests::names::address_of;
use xshell::{Shell, cmd};

use crate::assemble::Dist;
use crate::binaries::project_root;

/// One site is allowed, so that a first allow and a first deny are one command each.
const POLICY: &str = "domain api.allowed.example {
    label llm-provider
}
domain *.wild.example
port 80
port 443";

pub(super) fn configuration() -> String {
    qemu_tests::configuration::enforcing(POLICY)
}

/// How long an emulated machine may take to its console.
const CONSOLE_APPEARS: Duration = Duration::from_secs(10);

/// Ends the machine with the lab, whatever ends the lab.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn open(dist: &Dist, volume: &Path, memory: u32, scratch: &Path) -> Result<()> {
    let helper = build_helper()?;
    let lab = Lab::new()?;
    let (outside, inside) = (lab.wire("outside")?, lab.wire("inside")?);
    let _internet = Internet::on(&lab, &outside)?;
    let agent = Agent::on(&lab, &inside)?;
    let (wan, lan) = (lab.tap(&outside)?, lab.tap(&inside)?);
    let console = scratch.join("console");
    let accelerator = Accelerator::probe(&dist.file("vmlinuz"), &dist.file("initrd.img"))?;
    let mut line = lab.entry();
    line.extend(words(&[
        "qemu-system-x86_64",
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "q35",
        "-smp",
        "1",
        "-m",
        &memory.to_string(),
        "-device",
        "virtio-rng-pci",
        "-boot",
        "order=d",
    ]));
    line.extend(words(&accelerator.qemu_arguments()));
    line.extend(card(0, &wan, &BOX_WAN_MAC.to_string()));
    line.extend(card(1, &lan, &BOX_LAN_MAC.to_string()));
    line.extend(words(&["-cdrom", &dist.iso().display().to_string()]));
    line.extend(words(&[
        "-drive",
        &format!("file={},format=raw,if=virtio,readonly=on", volume.display()),
        "-serial",
        &format!("unix:{},server=on,wait=off", console.display()),
    ]));
    let machine = Command::new(&line[0])
        .args(&line[1..])
        .stdin(Stdio::null())
        .spawn()
        .context("starting qemu-system-x86_64 in the lab")?;
    let _machine = Machine(machine);
    wait_for(&console)?;
    println!(
        "Clawgress {} boots between a fake internet and an agent.",
        dist.manifest.version
    );
    follow_boot(&console)?;
    let commands = commands(scratch, &helper, &console)?;
    announce();
    shell(&agent, &commands, scratch)?;
    println!("The lab is closed.");
    Ok(())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn card(number: u8, tap: &Tap, mac: &str) -> Vec<String> {
    let device = tap.device();
    words(&[
        "-netdev",
        &format!("tap,id=net{number},ifname={device},script=no,downscript=no"),
        "-device",
        &format!("virtio-net-pci,netdev=net{number},mac={mac},romfile="),
    ])
}

/// The program that runs inside the lab's namespaces lies beside this one.
fn build_helper() -> Result<String> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    cmd!(
        shell,
        "cargo build --quiet --package qemu-tests --bin clawgress-netlab"
    )
    .quiet()
    .run()
    .context("building the lab's helper")?;
    Ok(qemu_tests::lab::helper_path()?)
}

fn wait_for(console: &Path) -> Result<()> {
    let began = std::time::Instant::now();
    while !console.exists() {
        if began.elapsed() > CONSOLE_APPEARS {
            bail!(
                "QEMU made no console at {}; its reason stands above",
                console.display()
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Shows what the appliance says of itself until it has come up.
fn follow_boot(console: &Path) -> Result<()> {
    let stream = UnixStream::connect(console)
        .with_context(|| format!("connecting to the console {}", console.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    for line in BufReader::new(stream).split(b'\n') {
        let line = line.context("reading the console")?;
        let line = String::from_utf8_lossy(&line);
        if let Some(at) = line.find("clawgress: ") {
            println!("  {}", line[at..].trim_end());
        }
        if line.contains("clawgress: policy") && line.contains(" ok ") {
            return Ok(());
        }
    }
    bail!("the appliance ended before it was up")
}

/// The words that the agent's shell knows beside its usual ones.
fn commands(scratch: &Path, helper: &str, console: &Path) -> Result<std::path::PathBuf> {
    let directory = scratch.join("bin");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let script = directory.join("console");
    let text = format!(
        "#!/bin/sh\necho 'The appliance; back to the agent: Ctrl-]'\nexec {helper} console {}\n",
        console.display()
    );
    fs::write(&script, text).with_context(|| format!("writing {}", script.display()))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

fn announce() {
    let (allowed, _) = address_of("api.allowed.example");
    println!();
    println!("This is now the shell of an agent behind the appliance. Try:");
    println!("  curl http://api.allowed.example/      allowed: the site at {allowed} answers");
    println!("  curl http://evil.example/             denied: the name does not resolve");
    println!("  dig evil.example                      … and the answer says why");
    println!("  curl -m 3 http://198.51.100.99/       denied: an address nobody resolved");
    println!(
        "  console                               the appliance's own console: clawgress status, telemetry, …"
    );
    println!("  exit                                  end the lab");
}

fn shell(agent: &Agent, commands: &Path, scratch: &Path) -> Result<()> {
    let rc = scratch.join("shellrc");
    let path = std::env::var("PATH").unwrap_or_default();
    let text = format!(
        "PATH={}:{path}\nPS1='agent-1$ '\nunset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY\n",
        commands.display()
    );
    fs::write(&rc, text).with_context(|| format!("writing {}", rc.display()))?;
    let mut line = agent.host.entry();
    line.extend(words(&[
        "bash",
        "--noprofile",
        "--rcfile",
        &rc.display().to_string(),
        "-i",
    ]));
    // A person's last command may well have failed; that is no failure of the lab.
    Command::new(&line[0])
        .args(&line[1..])
        .status()
        .context("starting the agent's shell")?;
    Ok(())
}
