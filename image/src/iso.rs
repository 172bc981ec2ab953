//! The hybrid ISO: one file that boots from CD and from a stick, under BIOS and UEFI.

use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::boot_loader::BootImages;
use crate::progress::{Step, size};

/// A file of the medium: its path there and its content or where that lies.
pub(crate) enum Content<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// Writes the ISO to `path`. `files` are put where they say; the boot images get their places.
pub(crate) fn write(
    path: &Path,
    files: &[(&str, Content<'_>)],
    boot: &BootImages,
    volume: &str,
    epoch: u32,
) -> Result<()> {
    let step = Step::begin("writing the ISO");
    let parent = path.parent().context("an ISO needs a directory")?;
    let scratch = tempfile::Builder::new()
        .prefix(".iso-")
        .tempdir_in(parent)?;
    let tree = scratch.path().join("tree");
    let put = |name: &str, content: &Content<'_>| -> Result<()> {
        let target = tree.join(name.trim_start_matches('/'));
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match content {
            Content::Bytes(bytes) => std::fs::write(&target, bytes),
            Content::File(source) => std::fs::hard_link(source, &target)
                .or_else(|_| std::fs::copy(source, &target).map(drop)),
        }
        .with_context(|| format!("placing {name} on the medium"))
    };
    for (name, content) in files {
        put(name, content)?;
    }
    put("boot/grub/eltorito.img", &Content::Bytes(&boot.bios_cd))?;
    put(
        "EFI/BOOT/BOOTX64.EFI",
        &Content::Bytes(&boot.efi_application),
    )?;
    let record = scratch.path().join("boot_hybrid.img");
    std::fs::write(&record, &boot.bios_disk)?;
    let efi = scratch.path().join("efi.img");
    std::fs::write(&efi, &boot.efi_partition)?;
    let partial = scratch.path().join("image.iso");

    let shell = Shell::new()?;
    let epoch = epoch.to_string();
    // Volume and partition table take their dates and ids from it; the files' own dates have an option.
    shell.set_var("SOURCE_DATE_EPOCH", &epoch);
    shell.set_var("TZ", "UTC");
    let output = cmd!(
        shell,
        "xorriso -no_rc -as mkisofs -quiet -rational-rock --set_all_file_dates ={epoch} -volid {volume} -output {partial}
         -b boot/grub/eltorito.img -no-emul-boot -boot-load-size 4 -boot-info-table --grub2-boot-info
         --grub2-mbr {record} -partition_offset 16
         -append_partition 2 0xef {efi} -appended_part_as_gpt
         -eltorito-alt-boot -e --interval:appended_partition_2:all:: -no-emul-boot
         {tree}"
    )
    .quiet()
    .ignore_status()
    .output()
    .context("starting xorriso")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text
            .lines()
            .find(|line| line.contains("FAILURE") || line.contains("FATAL"))
            .unwrap_or("it gave no reason");
        bail!("xorriso could not write the ISO: {reason}");
    }
    std::fs::File::open(&partial)?.sync_all()?;
    std::fs::rename(&partial, path).with_context(|| format!("naming {}", path.display()))?;
    step.done(size(std::fs::metadata(path)?.len()));
    Ok(())
}
