//! `cargo xtask run`: the appliance in QEMU, its console in this terminal.

mod lab;

use std::net::TcpListener;

use anyhow::{Context, Result, bail};
use clap::Args;
use qemu_tests::accel::Accelerator;
use qemu_tests::machine::FirmwareFiles;
use qemu_tests::media::Shelf;
use xshell::{Shell, cmd};

use super::Which;
use crate::assemble::Dist;
use crate::host::{self, Consent};

/// Build what is stale and boot the ISO in QEMU: console in this terminal, three cards, ports forwarded.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    which: Which,
    /// Memory in MiB.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(512..))]
    memory: u32,
    /// Boot with UEFI firmware instead of BIOS.
    #[arg(long)]
    uefi: bool,
    /// Boot configuration to hand over on a CLAWGRESS-CFG volume, instead of the one with three cards.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Boot it inside a lab: a fake internet before it, an agent behind it, whose shell this terminal becomes.
    #[arg(long)]
    lab: bool,
}

/// What the three cards are for, if nothing else is asked for.
const CONFIG: &str = "interfaces {
    ethernet eth0 {
        address dhcp
        role wan
    }
    ethernet eth1 {
        address 10.0.3.15/24
        role lan
    }
    ethernet eth2 {
        address 10.0.4.15/24
        role management
    }
}
";

/// One forwarded port.
struct Forward {
    what: &'static str,
    card: &'static str,
    host: u16,
    guest: u16,
}

impl Run {
    pub(crate) fn go(&self, consent: Consent) -> Result<()> {
        let config = match &self.config {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("reading the boot configuration {}", path.display()))?,
            None if self.lab => lab::configuration(),
            None => CONFIG.to_owned(),
        };
        let dist = self.which.build(host::BOOT, consent)?;
        let scratch = tempfile::tempdir().context("making a scratch directory")?;
        let media = Shelf::new()?;
        let volume = media.config_volume(&config)?;

        if self.lab {
            return lab::open(&dist, &volume, self.memory, scratch.path());
        }
        let forwards = forwards()?;
        announce(&dist, &forwards);
        let accelerator = Accelerator::probe(&dist.file("vmlinuz"), &dist.file("initrd.img"))?;
        let memory = self.memory.to_string();
        let mut arguments = words(&["-machine", "q35", "-smp", "2", "-m", &memory, "-nographic"]);
        arguments.extend(words(&["-boot", "order=d", "-device", "virtio-rng-pci"]));
        arguments.extend(words(&accelerator.qemu_arguments()));
        arguments.extend(cards(&forwards));
        arguments.extend(["-cdrom".to_owned(), dist.iso().display().to_string()]);
        arguments.extend([
            "-drive".to_owned(),
            format!("file={},format=raw,if=virtio,readonly=on", volume.display()),
        ]);
        if self.uefi {
            arguments.extend(FirmwareFiles::uefi(scratch.path())?.qemu_arguments());
        }
        let shell = Shell::new()?;
        // Not through the shell's own `run`: the terminal's input belongs to the machine.
        let status = std::process::Command::from(cmd!(shell, "qemu-system-x86_64 {arguments...}"))
            .status()
            .context("starting qemu-system-x86_64")?;
        if !status.success() {
            bail!("the virtual machine ended with {status}: its reason stands above");
        }
        println!("The appliance is off.");
        Ok(())
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn forwards() -> Result<[Forward; 3]> {
    let forward = |what, card, wished, guest| -> Result<Forward> {
        Ok(Forward {
            what,
            card,
            host: free_port(wished)?,
            guest,
        })
    };
    Ok([
        forward("proxy", "lan", 3128, 3128)?,
        forward("SSH", "management", 2222, 22)?,
        forward("web and API", "management", 8443, 443)?,
    ])
}

fn announce(dist: &Dist, forwards: &[Forward]) {
    println!(
        "Clawgress {} on {} boots now; its console follows.",
        dist.manifest.version, dist.manifest.base
    );
    println!("  cards: eth0 wan, eth1 lan, eth2 management");
    for forward in forwards {
        println!(
            "  127.0.0.1:{} → port {} on the {} card ({})",
            forward.host, forward.guest, forward.card, forward.what
        );
    }
    println!(
        "  (the appliance answers on its cards once a credential and a policy exist: until then it is sealed)"
    );
    println!("  leave: type poweroff, or Ctrl-A X");
}

/// Three cards behind QEMU's own networks; forwarded ports end on the card that serves them.
fn cards(forwards: &[Forward]) -> Vec<String> {
    let networks = [
        ("wan", ""),
        ("lan", ",net=10.0.3.0/24"),
        ("management", ",net=10.0.4.0/24"),
    ];
    let card = |(name, network): (&str, &str)| {
        let mut back = format!("user,id={name}{network}");
        for Forward { host, guest, .. } in forwards.iter().filter(|forward| forward.card == name) {
            back += &format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
        }
        let front = format!("virtio-net-pci,netdev={name},romfile=");
        words(&["-netdev", &back, "-device", &front])
    };
    networks.into_iter().flat_map(card).collect()
}

/// The wished port if nobody has it, else any that is free.
fn free_port(wished: u16) -> Result<u16> {
    let socket = TcpListener::bind(("127.0.0.1", wished))
        .or_else(|_| TcpListener::bind(("127.0.0.1", 0)))
        .context("finding a free port on 127.0.0.1")?;
    Ok(socket.local_addr()?.port())
}
