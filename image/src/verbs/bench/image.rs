//! Figures of the artifacts and of making them.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use qemu_tests::figures::{Figure, Must, median};
use xshell::{Shell, cmd};

use crate::base::{Base, Flavour};
use crate::fetch::{self, Set};
use crate::manifest::Source;
use crate::squash::{self, PACKING};
use crate::tree::Tree;
use crate::{assemble, binaries, root};

const ROUNDS: usize = 3;

pub(crate) fn measure(base: &Base) -> Result<Vec<Figure>> {
    let small = assemble::image(base, Flavour::Virtual)?;
    let large = assemble::image(base, Flavour::Generic)?;
    let megabytes =
        |path: &Path| -> Result<f64> { Ok(std::fs::metadata(path)?.len() as f64 / 1e6) };
    let mut figures = vec![
        Figure {
            name: "ISO, virtual kernel",
            value: megabytes(&small.iso())?,
            unit: "MB",
            must: Must::AtMost(170.0),
            peer: None,
        },
        Figure {
            name: "initramfs, generic kernel",
            value: megabytes(&large.file("initrd.img"))?,
            unit: "MB",
            must: Must::AtMost(16.0),
            peer: None,
        },
    ];
    figures.extend(packing(base)?);
    figures.push(rebuild(base)?);
    Ok(figures)
}

/// The same tree, packed by backhand and by mksquashfs, in turns.
fn packing(base: &Base) -> Result<Vec<Figure>> {
    let scratch = tempfile::tempdir()?;
    let (ours, theirs) = (scratch.path().join("ours"), scratch.path().join("theirs"));
    let unpacked = scratch.path().join("root");
    let source = Source::read()?;
    let mut tree = Tree::read(std::io::BufReader::new(File::open(fetch::tar(
        base,
        &Set::Root(Flavour::Virtual),
    )?)?))?;
    root::compose(&mut tree, base, &binaries::build()?.programs, &source)?;

    squash::write(&tree, &ours, source.epoch, PACKING)?;
    let shell = Shell::new()?;
    cmd!(
        shell,
        "unsquashfs -quiet -no-progress -ignore-errors -dest {unpacked} {ours}"
    )
    .quiet()
    .ignore_status()
    .ignore_stdout()
    .ignore_stderr()
    .run()?;
    let (level, block) = (PACKING.level.to_string(), PACKING.block.to_string());
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = cpu(UsageWho::RUSAGE_SELF)?;
        squash::write(&tree, &ours, source.epoch, PACKING)?;
        our_times.push(cpu(UsageWho::RUSAGE_SELF)? - before);
        std::fs::remove_file(&theirs).ok();
        let before = cpu(UsageWho::RUSAGE_CHILDREN)?;
        cmd!(
            shell,
            "mksquashfs {unpacked} {theirs} -quiet -no-progress -no-xattrs -comp zstd -Xcompression-level {level} -b {block} -processors 1"
        )
        .quiet()
        .ignore_stdout()
        .run()
        .context("running mksquashfs: apt-get install squashfs-tools")?;
        their_times.push(cpu(UsageWho::RUSAGE_CHILDREN)? - before);
    }
    let size = |path: &Path| -> Result<f64> { Ok(std::fs::metadata(path)?.len() as f64 / 1e6) };
    Ok(vec![
        Figure {
            name: "squashfs size",
            value: size(&ours)?,
            unit: "MB",
            must: Must::TimesPeer(1.03),
            peer: Some(("mksquashfs", size(&theirs)?)),
        },
        Figure {
            name: "squashfs build, processor time",
            value: median(&mut our_times),
            unit: "s",
            must: Must::TimesPeer(1.0),
            peer: Some(("mksquashfs", median(&mut their_times))),
        },
    ])
}

/// Processor seconds used so far.
fn cpu(who: UsageWho) -> Result<f64> {
    let usage: Usage = getrusage(who)?;
    let sum = usage.user_time() + usage.system_time();
    Ok(sum.tv_sec() as f64 + sum.tv_usec() as f64 / 1e6)
}

/// What the builder needs when one service's program is another one.
fn rebuild(base: &Base) -> Result<Figure> {
    let scratch = tempfile::tempdir()?;
    let mut built = binaries::build()?;
    let Some(service) = built
        .programs
        .iter_mut()
        .find(|program| program.destination.is_some())
    else {
        bail!("no service goes into the image");
    };
    // A note at the end of the file: another program to every digest, the same one to the kernel.
    service.bytes.extend_from_slice(b"\nchanged\n");
    let dist = assemble::image_at(
        base,
        Flavour::Virtual,
        &built,
        &Source::read()?,
        scratch.path(),
    )?;
    let time = dist
        .own_time
        .context("the changed service made nothing stale")?;
    Ok(Figure {
        name: "image rebuild after a change in one service, beyond cargo's time",
        value: time.as_secs_f64(),
        unit: "s",
        must: Must::AtMost(45.0),
        peer: None,
    })
}
