//! GRUB for BIOS and UEFI, made by the base's own tools from the base's own packages; the host's are never touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xshell::{Shell, cmd};

use crate::base::Base;
use crate::cache::{self, Key};
use crate::fetch::{self, Set};
use crate::progress::Step;

/// What GRUB must know before it can read the rest from the medium.
const MODULES: &[&str] = &[
    "all_video",
    "boot",
    "configfile",
    "echo",
    "fat",
    "gzio",
    "iso9660",
    "linux",
    "ls",
    "minicmd",
    "normal",
    "part_gpt",
    "part_msdos",
    "read",
    "reboot",
    "regexp",
    "halt",
    "search",
    "search_fs_file",
    "search_label",
    "serial",
    "sleep",
    "terminal",
    "test",
    "udf",
];
const BIOS_MODULES: &[&str] = &["biosdisk", "vga", "ntldr"];
const EFI_MODULES: &[&str] = &["efi_gop", "efi_uga", "efifwsetup"];

/// Boot images for one medium.
pub(crate) struct BootImages {
    /// El Torito image for BIOS from CD.
    pub(crate) bios_cd: Vec<u8>,
    /// Master boot record for BIOS from a disk or stick.
    pub(crate) bios_disk: Vec<u8>,
    /// FAT image with the UEFI application.
    pub(crate) efi_partition: Vec<u8>,
    /// The UEFI application alone, for the medium's own tree.
    pub(crate) efi_application: Vec<u8>,
}

/// Makes the boot images for the medium that carries the marker file of `image_id`.
pub(crate) fn make(base: &Base, image_id: &str, epoch: u32) -> Result<BootImages> {
    let tools = Tools::unpack(base)?;
    let step = Step::begin("making the boot images");
    let early = early(image_id);
    let bios_cd = tools.image("i386-pc-eltorito", &early, BIOS_MODULES)?;
    let bios_disk = std::fs::read(tools.directory.path().join("i386-pc/boot_hybrid.img"))
        .context("reading the base's boot_hybrid.img")?;
    let efi_application = tools.image("x86_64-efi", &early, EFI_MODULES)?;
    let efi_partition = fat(&[("EFI/BOOT/BOOTX64.EFI", &efi_application)], epoch)?;
    step.done(crate::progress::size(
        (bios_cd.len() + efi_partition.len()) as u64,
    ));
    Ok(BootImages {
        bios_cd,
        bios_disk,
        efi_partition,
        efi_application,
    })
}

/// What GRUB does before it can read the menu. It looks first on the very disk that the firmware started it from (under
/// UEFI that is known by one of its partitions), so that no other medium can offer another menu; and everywhere only
/// if that disk does not have the marker of this image.
fn early(image_id: &str) -> String {
    format!(
        "regexp --set=1:disk '^([^,]*)' $root\n\
         search --no-floppy --hint=$root --hint=$disk --set=root --file {}\n\
         set prefix=($root)/boot/grub\n\
         configfile $prefix/grub.cfg\n",
        marker(image_id)
    )
}

/// The file by which GRUB finds its medium.
pub(crate) fn marker(image_id: &str) -> String {
    format!(
        "/clawgress/image-{}",
        image_id.get(..16).unwrap_or(image_id)
    )
}

/// The menu. Every entry speaks on the screen and on the first serial port.
pub(crate) fn menu(version: &str, base: &str) -> String {
    let mut text = String::from(
        "serial --unit=0 --speed=115200\n\
         terminal_input console serial\n\
         terminal_output console serial\n\
         set timeout=2\n\
         set default=0\n",
    );
    let entries = [
        ("", "quiet loglevel=4"),
        (" (verbose)", "loglevel=7 systemd.show_status=1"),
        (
            " (rescue shell before the root is entered)",
            "loglevel=7 clawgress.rescue=switch",
        ),
    ];
    for (note, words) in entries {
        use std::fmt::Write;
        let _ = write!(
            text,
            "menuentry 'Clawgress {version} on {base}{note}' {{\n  \
             linux /clawgress/vmlinuz {COMMAND_LINE} {words}\n  \
             initrd /clawgress/initrd.img\n}}\n"
        );
    }
    text
}

/// What every boot of the image says to the kernel.
pub(crate) const COMMAND_LINE: &str =
    "console=tty0 console=ttyS0,115200 net.ifnames=0 panic=30 systemd.import_credentials=no";

struct Tools {
    /// Holds the modules and `boot_hybrid.img`, by platform.
    directory: tempfile::TempDir,
    loader: PathBuf,
    libraries: PathBuf,
}

impl Tools {
    /// Unpacks only what is needed of the base's boot loader packages.
    fn unpack(base: &Base) -> Result<Self> {
        let tar = fetch::tar(base, &Set::BootLoader)?;
        let directory = tempfile::tempdir().context("making a scratch directory")?;
        let root = directory.path().to_path_buf();
        let libraries = root.join("libraries");
        std::fs::create_dir_all(&libraries)?;
        let mut links: BTreeMap<String, String> = BTreeMap::new();
        let mut archive = tar::Archive::new(File::open(&tar)?);
        for entry in archive.entries()? {
            let mut entry = entry.with_context(|| format!("reading {}", tar.display()))?;
            let path = entry
                .path()?
                .to_string_lossy()
                .trim_start_matches("./")
                .to_owned();
            let name = path.rsplit('/').next().unwrap_or(&path).to_owned();
            let is_library = path.contains("lib/x86_64-linux-gnu/") || path.contains("lib64/");
            let target = if let Some(rest) = path.strip_prefix("usr/lib/grub/") {
                root.join(rest)
            } else if path == "usr/bin/grub-mkimage" {
                root.join("grub-mkimage")
            } else if is_library && name.contains(".so") && !path.contains("/gconv/") {
                libraries.join(&name)
            } else {
                continue;
            };
            match entry.header().entry_type() {
                tar::EntryType::Regular => {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    if let Some(parent) = target.parent() {
                        std::fs::create_dir_all(parent)?;
                    }
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(
                        entry.header().mode()? & 0o777 | 0o600,
                    );
                    std::fs::write(&target, bytes)
                        .with_context(|| format!("writing {}", target.display()))?;
                    std::fs::set_permissions(&target, mode)?;
                }
                tar::EntryType::Symlink if target.starts_with(&libraries) => {
                    if let Some(to) = entry.link_name()? {
                        let to = to
                            .to_string_lossy()
                            .rsplit('/')
                            .next()
                            .unwrap_or_default()
                            .to_owned();
                        links.insert(name, to);
                    }
                }
                _ => {}
            }
        }
        for (name, to) in links {
            let at = libraries.join(&name);
            if name != to && !at.exists() {
                std::os::unix::fs::symlink(to, at).ok();
            }
        }
        let loader = libraries.join("ld-linux-x86-64.so.2");
        for needed in [
            &loader,
            &root.join("grub-mkimage"),
            &root.join("i386-pc/boot_hybrid.img"),
        ] {
            if !needed.exists() {
                let name = needed
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                bail!(
                    "the boot loader packages of {} do not bring {name}",
                    base.title
                );
            }
        }
        Ok(Self {
            directory,
            loader,
            libraries,
        })
    }

    fn image(&self, format: &str, early: &str, extra: &[&str]) -> Result<Vec<u8>> {
        let root = self.directory.path();
        let platform = format.trim_end_matches("-eltorito");
        let modules_directory = root.join(platform);
        let early_path = root.join("early.cfg");
        std::fs::write(&early_path, early)?;
        let output = root.join(format!("{format}.img"));
        let modules: Vec<&str> = MODULES
            .iter()
            .chain(extra)
            .copied()
            .filter(|name| modules_directory.join(format!("{name}.mod")).exists())
            .collect();
        let shell = Shell::new()?;
        let (loader, libraries, tool) = (&self.loader, &self.libraries, root.join("grub-mkimage"));
        let result = cmd!(
            shell,
            "{loader} --library-path {libraries} {tool} --directory {modules_directory} --format {format} --prefix /boot/grub --config {early_path} --output {output} {modules...}"
        )
        .quiet()
        .ignore_status()
        .output()
        .context("starting the base's grub-mkimage")?;
        if !result.status.success() {
            bail!(
                "the base's grub-mkimage failed for {format}: {}",
                String::from_utf8_lossy(&result.stderr).trim()
            );
        }
        std::fs::read(&output).with_context(|| format!("reading {}", output.display()))
    }
}

/// A time for FAT that depends on nothing.
#[derive(Debug)]
struct Frozen;

impl fatfs::TimeProvider for Frozen {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date {
            year: 2024,
            month: 4,
            day: 25,
        }
    }
    fn get_current_date_time(&self) -> fatfs::DateTime {
        fatfs::DateTime {
            date: self.get_current_date(),
            time: fatfs::Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

static FROZEN: Frozen = Frozen;

/// A FAT image just large enough for `files`.
fn fat(files: &[(&str, &[u8])], epoch: u32) -> Result<Vec<u8>> {
    let content: usize = files
        .iter()
        .map(|(_, bytes)| bytes.len().next_multiple_of(4096))
        .sum();
    let total = (content + 512 * 1024).next_multiple_of(1 << 20);
    let mut image = Cursor::new(vec![0_u8; total]);
    let options = fatfs::FormatVolumeOptions::new()
        .volume_id(epoch)
        .volume_label(*b"CLAWGRESS  ");
    fatfs::format_volume(&mut image, options).context("formatting the EFI partition image")?;
    {
        let options = fatfs::FsOptions::new()
            .time_provider(&FROZEN)
            .update_accessed_date(false);
        let system = fatfs::FileSystem::new(&mut image, options)?;
        for (path, bytes) in files {
            let mut directory = system.root_dir();
            let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
            for part in parents.split('/').filter(|part| !part.is_empty()) {
                directory = directory.create_dir(part)?;
            }
            let mut file = directory.create_file(name)?;
            file.write_all(bytes)
                .with_context(|| format!("writing {path} into the EFI partition image"))?;
            file.flush()?;
        }
        system.unmount()?;
    }
    Ok(image.into_inner())
}

/// Boot images cost seconds and seldom change: kept by what determines them.
pub(crate) fn cached(base: &Base, image_id: &str, epoch: u32) -> Result<BootImages> {
    let key = Key::default()
        .add("boot images 2")
        .add(&base.name)
        .add(image_id)
        .add(epoch.to_le_bytes())
        .add([MODULES, BIOS_MODULES, EFI_MODULES].concat().join(","))
        .add(early(image_id))
        .add(cache::digest_of(&fetch::tar(base, &Set::BootLoader)?)?);
    let path = cache::entry("boot-images", "bin", key, |path| {
        let images = make(base, image_id, epoch)?;
        write_parts(
            path,
            &[
                &images.bios_cd,
                &images.bios_disk,
                &images.efi_partition,
                &images.efi_application,
            ],
        )
    })?;
    let mut parts = read_parts(&path)?.into_iter();
    let mut next = || {
        parts
            .next()
            .with_context(|| format!("{} lacks a part", path.display()))
    };
    Ok(BootImages {
        bios_cd: next()?,
        bios_disk: next()?,
        efi_partition: next()?,
        efi_application: next()?,
    })
}

fn write_parts(path: &Path, parts: &[&[u8]]) -> Result<()> {
    let mut file = File::create(path)?;
    for part in parts {
        file.write_all(&(part.len() as u64).to_le_bytes())?;
        file.write_all(part)?;
    }
    Ok(())
}

fn read_parts(path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mut parts = Vec::new();
    let mut length = [0; 8];
    while file.read_exact(&mut length).is_ok() {
        let mut part = vec![0; u64::from_le_bytes(length) as usize];
        file.read_exact(&mut part)?;
        parts.push(part);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_is_as_reviewed() {
        assert_eq!(
            menu("1.2.3", "debian-13"),
            include_str!("../testdata/grub.cfg")
        );
    }

    #[test]
    fn the_same_files_give_the_same_fat_image() {
        let files: &[(&str, &[u8])] = &[("EFI/BOOT/BOOTX64.EFI", b"application")];
        let one = fat(files, 7).unwrap();
        assert_eq!(one, fat(files, 7).unwrap());
        let system = fatfs::FileSystem::new(Cursor::new(one), fatfs::FsOptions::new()).unwrap();
        let mut text = String::new();
        system
            .root_dir()
            .open_file("EFI/BOOT/BOOTX64.EFI")
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "application");
    }
}
