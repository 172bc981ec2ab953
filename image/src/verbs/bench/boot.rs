//! Figures of booted machines, each beside the distribution's own way in the same run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use qemu_tests::figures::{Figure, Must, median};
use qemu_tests::machine::{Attach, Machine};
use qemu_tests::{Case, Dist as Booted, case};

use crate::base::{Base, Flavour};
use crate::binaries::Built;
use crate::boot_loader::{self, COMMAND_LINE};
use crate::fetch::{self, Set};
use crate::iso::{self, Content};
use crate::squash::{self, PACKING};
use crate::tree::{Kind, Node, Tree};
use crate::{assemble, binaries, root};

const EPOCH: u32 = 1_700_000_000;
/// Everything on the console with the kernel's own time before it.
const LOUD: &str = "loglevel=7 printk.time=1 systemd.log_target=kmsg systemd.log_level=info";
const LIVE_BOOT: &str = "boot=live components=none noeject";
/// What the live-boot peer looks for on its medium.
const LIVE_PATH: &str = "live/filesystem.squashfs";

pub(crate) fn measure(base: &Base, rounds: u8) -> Result<Vec<Figure>> {
    let dist = assemble::image(base, Flavour::Virtual)?;
    let built: Built = binaries::build()?;
    drop(built);
    let peer = Peer::make(base, &dist)?;
    let booted = Booted::open(&dist.directory)?;

    let mut times = Times::default();
    for round in 0..rounds {
        eprintln!("  round {} of {rounds} …", round + 1);
        measured("bench-live-boot", |case| {
            times
                .their_init
                .push(peer.init_to_systemd(&booted, case, &peer.same_root)?);
            Ok(())
        })?;
        measured("bench-bare-base", |case| {
            times.their_ready.push(peer.multi_user(&booted, case)?);
            Ok(())
        })?;
        measured("bench-own", |case| own(&booted, case, &mut times))?;
    }
    Ok(vec![
        Figure {
            name: "from `Run /init` to systemd's first line",
            value: median(&mut times.our_init),
            unit: "s",
            must: Must::TimesPeer(0.4),
            peer: Some(("live-boot", median(&mut times.their_init))),
        },
        Figure {
            name: "power-on to enforcing",
            value: median(&mut times.our_ready),
            unit: "s",
            must: Must::TimesPeer(1.25),
            peer: Some(("bare base to multi-user", median(&mut times.their_ready))),
        },
        Figure {
            name: "memory used, idle and enforcing",
            value: median(&mut times.memory),
            unit: "MiB",
            must: Must::AtMost(220.0),
            peer: None,
        },
    ])
}

#[derive(Default)]
struct Times {
    our_init: Vec<f64>,
    their_init: Vec<f64>,
    our_ready: Vec<f64>,
    their_ready: Vec<f64>,
    memory: Vec<f64>,
}

/// Runs one machine's measurement; the framework's panic on failure becomes an error.
fn measured(name: &str, body: impl FnOnce(&Case) -> qemu_tests::Result) -> Result<()> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(name, body))).map_err(|panic| {
        anyhow::anyhow!(
            "{}",
            panic.downcast_ref::<String>().cloned().unwrap_or_default()
        )
    })
}

/// The appliance: its initramfs, its way to enforcing, its memory once it has settled.
fn own(booted: &Booted, case: &Case, times: &mut Times) -> qemu_tests::Result {
    let mut vm = Machine::quick(booted)
        .cpus(2)
        .kernel_argument(LOUD)
        .user_nic()
        .power_on(case)?;
    vm.wait_for("Run /init as init process", minute())?;
    let started = vm.since_power_on().as_secs_f64();
    vm.wait_for("systemd[1]: systemd ", minute())?;
    let text = vm.serial().text();
    let kernel_start = started - stamp(&text, "Run /init as init process")?;
    times
        .our_init
        .push(stamp(&text, "systemd[1]: systemd ")? - stamp(&text, "Run /init as init process")?);
    let report = vm.wait_enforcing()?;
    times
        .our_ready
        .push(kernel_start + report.ended_ms() as f64 / 1000.0);
    std::thread::sleep(Duration::from_secs(30));
    let free =
        vm.run_ok("awk '/^MemTotal/{t=$2} /^MemAvailable/{a=$2} END{print t-a}' /proc/meminfo")?;
    let kib: f64 = free
        .trim()
        .parse()
        .map_err(|_| qemu_tests::Error::other(format!("not a number: {free}")))?;
    times.memory.push(kib / 1024.0);
    Ok(())
}

const fn minute() -> Duration {
    Duration::from_secs(60)
}

/// The kernel's time of the first line that holds `words`.
fn stamp(text: &str, words: &str) -> qemu_tests::Result<f64> {
    text.lines()
        .find(|line| line.contains(words))
        .and_then(|line| {
            let (_, rest) = line.split_once('[')?;
            rest.split_once(']')?.0.trim().parse().ok()
        })
        .ok_or_else(|| qemu_tests::Error::other(format!("no line with a time says {words:?}")))
}

/// The distribution's way to boot such an image.
struct Peer {
    initramfs: PathBuf,
    /// Our own root on a medium that live-boot finds.
    same_root: PathBuf,
    /// The base with the same daemons, enabled as its packages enable them.
    bare_root: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Peer {
    fn make(base: &Base, dist: &assemble::Dist) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let tar = fetch::tar(base, &Set::LiveBoot(Flavour::Virtual))?;
        let mut tree = Tree::read(std::io::BufReader::new(File::open(tar)?))?;
        let kernel = root::kernel(&tree)?;
        let path = format!("boot/initrd.img-{}", kernel.release);
        let bytes = tree
            .content(&path)
            .with_context(|| format!("the live-boot base made no /{path}"))?;
        let initramfs = scratch.path().join("initrd.img");
        std::fs::write(&initramfs, bytes)?;
        tree.put(
            "etc/hostname",
            Node {
                kind: Kind::File((*b"bare\n").into()),
                ..Node::file(*b"", 0o644)
            },
        )?;
        let squashfs = scratch.path().join("bare.squashfs");
        squash::write(&tree, &squashfs, EPOCH, PACKING)?;
        let boot = boot_loader::cached(base, "0000000000000000", EPOCH)?;
        let medium = |name: &str, squashfs: &Path| -> Result<PathBuf> {
            let path = scratch.path().join(name);
            iso::write(
                &path,
                &[(LIVE_PATH, Content::File(squashfs))],
                &boot,
                "LIVE",
                EPOCH,
            )?;
            Ok(path)
        };
        Ok(Self {
            same_root: medium("same.iso", &dist.file("root.squashfs"))?,
            bare_root: medium("bare.iso", &squashfs)?,
            initramfs,
            _scratch: scratch,
        })
    }

    fn machine(&self, booted: &Booted, medium: &Path) -> Machine {
        Machine::direct(booted, &booted.kernel, &self.initramfs, COMMAND_LINE)
            .kernel_argument(LIVE_BOOT)
            .kernel_argument(LOUD)
            .medium(Attach::Cd, medium)
            .cpus(2)
            .user_nic()
    }

    fn init_to_systemd(
        &self,
        booted: &Booted,
        case: &Case,
        medium: &Path,
    ) -> qemu_tests::Result<f64> {
        let vm = self.machine(booted, medium).power_on(case)?;
        vm.wait_for("systemd[1]: systemd ", minute())?;
        let text = vm.serial().text();
        Ok(stamp(&text, "systemd[1]: systemd ")? - stamp(&text, "Run /init as init process")?)
    }

    fn multi_user(&self, booted: &Booted, case: &Case) -> qemu_tests::Result<f64> {
        let vm = self.machine(booted, &self.bare_root).power_on(case)?;
        vm.wait_for("Run /init as init process", minute())?;
        let started = vm.since_power_on().as_secs_f64();
        vm.wait_for("Reached target multi-user.target", 2 * minute())?;
        let text = vm.serial().text();
        let kernel_start = started - stamp(&text, "Run /init as init process")?;
        Ok(kernel_start + stamp(&text, "Reached target multi-user.target")?)
    }
}
