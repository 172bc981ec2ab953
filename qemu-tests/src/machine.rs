//! Owns the description of a machine to boot, and its translation into QEMU's words. Starts nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::accel::Accelerator;
use crate::case::Case;
use crate::dist::Dist;
use crate::error::{Error, Result};
use crate::lab::{Lab, Tap};
use crate::vm::Vm;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

/// How the guest sees a medium. No medium is ever written: disks are opened as throw-away snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    Cd,
    UsbStick,
    Virtio,
    Sata,
    Nvme,
}

#[derive(Clone, Debug)]
struct Medium {
    attach: Attach,
    file: PathBuf,
    format: &'static str,
}

#[derive(Clone, Debug)]
enum Nic {
    User { mac: String },
    Tap { device: String, mac: String },
}

/// The kernel is started by QEMU itself: no boot loader, exact command line.
#[derive(Clone, Debug)]
struct DirectBoot {
    kernel: PathBuf,
    initrd: PathBuf,
    append: String,
}

/// A machine that is not yet running. Memory, processors and firmware have the defaults of most tests.
#[derive(Clone, Debug)]
pub struct Machine {
    name: String,
    memory_mib: u32,
    cpus: u32,
    firmware: Firmware,
    direct: Option<DirectBoot>,
    media: Vec<Medium>,
    nics: Vec<Nic>,
    hot_plug: bool,
    lab_entry: Vec<String>,
    probe_kernel: (PathBuf, PathBuf),
}

/// What the image's own boot entry says, for boots that skip the boot loader.
pub const CONSOLE_ARGUMENTS: &str = "console=tty0 console=ttyS0,115200 net.ifnames=0";

impl Machine {
    /// A machine without any medium. `dist` only tells which kernel answers whether KVM works.
    pub fn bare(dist: &Dist) -> Self {
        Self {
            name: "box".to_owned(),
            memory_mib: 1024,
            cpus: 2,
            firmware: Firmware::Bios,
            direct: None,
            media: Vec::new(),
            nics: Vec::new(),
            hot_plug: false,
            lab_entry: Vec::new(),
            probe_kernel: (dist.kernel.clone(), dist.initrd.clone()),
        }
    }

    /// The appliance booted from its ISO through the whole way: firmware, boot loader, kernel.
    pub fn from_iso(dist: &Dist, firmware: Firmware, attach: Attach) -> Self {
        Self::bare(dist)
            .firmware(firmware)
            .medium(attach, &dist.iso)
    }

    /// The appliance's kernel and initramfs started directly, the ISO in the CD drive: the quick way to a running box.
    pub fn quick(dist: &Dist) -> Self {
        Self::kernel_only(dist).medium(Attach::Cd, &dist.iso)
    }

    /// Kernel and initramfs without a medium to find.
    pub fn kernel_only(dist: &Dist) -> Self {
        Self::direct(dist, &dist.kernel, &dist.initrd, CONSOLE_ARGUMENTS)
    }

    /// Any kernel and initramfs, started without a boot loader.
    pub fn direct(dist: &Dist, kernel: &Path, initrd: &Path, append: &str) -> Self {
        let mut machine = Self::bare(dist);
        machine.direct = Some(DirectBoot {
            kernel: kernel.to_path_buf(),
            initrd: initrd.to_path_buf(),
            append: append.to_owned(),
        });
        machine
    }

    /// Names the log directory; needed when a test has two machines.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    #[must_use]
    pub fn memory_mib(mut self, memory: u32) -> Self {
        self.memory_mib = memory;
        self
    }

    #[must_use]
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    #[must_use]
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// Adds kernel arguments. Only for machines that skip the boot loader.
    #[must_use]
    pub fn kernel_argument(mut self, argument: &str) -> Self {
        let direct = self.direct.as_mut();
        let direct = direct.unwrap_or_else(|| {
            panic!("kernel argument {argument:?} for a machine that boots through its boot loader")
        });
        direct.append.push(' ');
        direct.append.push_str(argument);
        self
    }

    /// Attaches a raw image or ISO. The firmware tries media in the order in which they are attached.
    #[must_use]
    pub fn medium(self, attach: Attach, file: &Path) -> Self {
        self.medium_of(attach, file, "raw")
    }

    /// Attaches a qcow2 image.
    #[must_use]
    pub fn qcow2(self, attach: Attach, file: &Path) -> Self {
        self.medium_of(attach, file, "qcow2")
    }

    fn medium_of(mut self, attach: Attach, file: &Path, format: &'static str) -> Self {
        self.media.push(Medium {
            attach,
            file: file.to_path_buf(),
            format,
        });
        self
    }

    /// Has a slot for `Vm::plug_virtio_disk`.
    #[must_use]
    pub fn hot_plug(mut self) -> Self {
        self.hot_plug = true;
        self
    }

    /// A card behind QEMU's own user-mode network.
    #[must_use]
    pub fn user_nic(mut self) -> Self {
        let mac = format!("52:54:00:c1:a0:{:02x}", self.nics.len());
        self.nics.push(Nic::User { mac });
        self
    }

    /// A card whose other end is a tap on a wire of the lab. The VM then runs inside the lab.
    #[must_use]
    pub fn tap_nic(mut self, lab: &Lab, tap: &Tap, mac: &str) -> Self {
        self.lab_entry = lab.entry();
        self.nics.push(Nic::Tap {
            device: tap.device().to_owned(),
            mac: mac.to_owned(),
        });
        self
    }

    /// Switches it on. `case` gets the logs.
    pub fn power_on(&self, case: &Case) -> Result<Vm> {
        let (kernel, initrd) = &self.probe_kernel;
        let accelerator = Accelerator::probe(kernel, initrd)?;
        Vm::power_on(case, self, accelerator)
    }

    pub(crate) fn log_name(&self) -> &str {
        &self.name
    }

    /// The program that enters the lab, if any, goes before the program proper.
    pub(crate) fn lab_entry(&self) -> &[String] {
        &self.lab_entry
    }

    /// QEMU's command line. `scratch` holds the control socket and the firmware's variables.
    pub(crate) fn command_line(
        &self,
        accelerator: Accelerator,
        scratch: &Path,
        variables: Option<&FirmwareFiles>,
    ) -> Vec<String> {
        let mut line = Line::default();
        line.add("qemu-system-x86_64");
        for flag in ["-nodefaults", "-no-user-config"] {
            line.add(flag);
        }
        line.pair("-display", "none").pair("-vga", "std");
        line.pair("-machine", "q35");
        for argument in accelerator.qemu_arguments() {
            line.add(argument);
        }
        line.pair("-m", &self.memory_mib.to_string());
        line.pair("-smp", &self.cpus.to_string());
        line.pair("-serial", "stdio");
        line.pair("-device", "virtio-rng-pci");
        let socket = scratch.join("qmp");
        line.pair(
            "-qmp",
            &format!("unix:{},server=on,wait=off", escape(&socket)),
        );
        if let Some(files) = variables {
            line.pair(
                "-drive",
                &format!(
                    "if=pflash,unit=0,format=raw,readonly=on,file={}",
                    escape(&files.code)
                ),
            );
            line.pair(
                "-drive",
                &format!(
                    "if=pflash,unit=1,format=raw,file={}",
                    escape(&files.variables)
                ),
            );
        }
        if let Some(direct) = &self.direct {
            line.pair("-kernel", &direct.kernel.display().to_string());
            line.pair("-initrd", &direct.initrd.display().to_string());
            line.pair("-append", &direct.append);
        }
        if self.hot_plug {
            line.pair("-device", "pcie-root-port,id=slot,chassis=1");
        }
        self.add_media(&mut line);
        self.add_nics(&mut line);
        line.arguments
    }

    fn add_media(&self, line: &mut Line) {
        if self
            .media
            .iter()
            .any(|medium| medium.attach == Attach::UsbStick)
        {
            line.pair("-device", "qemu-xhci,id=usb");
        }
        let mut sata_port = 0;
        for (index, medium) in self.media.iter().enumerate() {
            let read_only = medium.attach == Attach::Cd;
            let protection = if read_only {
                "readonly=on"
            } else {
                "snapshot=on"
            };
            line.pair(
                "-drive",
                &format!(
                    "if=none,id=medium{index},format={},{protection},file={}",
                    medium.format,
                    escape(&medium.file)
                ),
            );
            let id = format!("drive=medium{index},id=device{index}");
            let device = match medium.attach {
                Attach::Cd => format!("ide-cd,bus=ide.{sata_port},{id}"),
                Attach::Sata => format!("ide-hd,bus=ide.{sata_port},{id}"),
                Attach::UsbStick => format!("usb-storage,bus=usb.0,removable=on,{id}"),
                Attach::Virtio => format!("virtio-blk-pci,{id}"),
                Attach::Nvme => format!("nvme,serial=clawgress{index},{id}"),
            };
            if matches!(medium.attach, Attach::Cd | Attach::Sata) {
                sata_port += 1;
            }
            // Index 0 belongs to a kernel that QEMU starts itself.
            line.pair("-device", &format!("{device},bootindex={}", index + 1));
        }
    }

    fn add_nics(&self, line: &mut Line) {
        for (index, nic) in self.nics.iter().enumerate() {
            let (backend, mac) = match nic {
                Nic::User { mac } => (format!("user,id=net{index}"), mac),
                Nic::Tap { device, mac } => (
                    format!("tap,id=net{index},ifname={device},script=no,downscript=no"),
                    mac,
                ),
            };
            line.pair("-netdev", &backend);
            // No boot from the network: the firmware would only wait for it.
            line.pair(
                "-device",
                &format!("virtio-net-pci,netdev=net{index},mac={mac},romfile="),
            );
        }
    }

    /// Finds the firmware's code and variables, if this machine has UEFI.
    pub(crate) fn firmware_files(&self, scratch: &Path) -> Result<Option<FirmwareFiles>> {
        if self.firmware == Firmware::Bios {
            return Ok(None);
        }
        let pairs = [
            ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"),
            ("OVMF_CODE.fd", "OVMF_VARS.fd"),
        ];
        let directory = Path::new("/usr/share/OVMF");
        for (code, variables) in pairs {
            let (code, template) = (directory.join(code), directory.join(variables));
            if !code.exists() || !template.exists() {
                continue;
            }
            let variables = scratch.join("uefi-variables.fd");
            let bytes = std::fs::read(&template);
            bytes
                .and_then(|bytes| std::fs::write(&variables, bytes))
                .map_err(|error| {
                    Error::other(format!(
                        "copying {} to {}: {error}",
                        template.display(),
                        variables.display()
                    ))
                })?;
            return Ok(Some(FirmwareFiles { code, variables }));
        }
        Err(Error::other(
            "no UEFI firmware in /usr/share/OVMF: install the package ovmf",
        ))
    }
}

/// UEFI firmware: the code that is shared, and this machine's own variables.
pub(crate) struct FirmwareFiles {
    code: PathBuf,
    variables: PathBuf,
}

/// The base limit for reaching the running system under KVM; `Accelerator::scale` widens it.
pub const BOOT_LIMIT: Duration = Duration::from_secs(50);

/// QEMU reads a comma as the end of a value; doubled it is a comma.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct Line {
    arguments: Vec<String>,
}

impl Line {
    fn add(&mut self, argument: &str) -> &mut Self {
        self.arguments.push(argument.to_owned());
        self
    }

    fn pair(&mut self, option: &str, value: &str) -> &mut Self {
        self.add(option).add(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dist() -> Dist {
        Dist {
            iso: PathBuf::from("/d/c,1.iso"),
            squashfs: PathBuf::from("/d/root.squashfs"),
            kernel: PathBuf::from("/d/vmlinuz"),
            initrd: PathBuf::from("/d/initrd.img"),
            manifest: serde_json::Value::Null,
        }
    }

    fn line(machine: &Machine) -> String {
        machine
            .command_line(Accelerator::Tcg, Path::new("/s"), None)
            .join(" ")
    }

    #[test]
    fn disks_are_snapshots_and_cds_are_read_only() {
        let machine = Machine::from_iso(&dist(), Firmware::Bios, Attach::Cd)
            .medium(Attach::UsbStick, Path::new("/d/stick"))
            .qcow2(Attach::Nvme, Path::new("/d/disk.qcow2"));
        let line = line(&machine);
        assert!(
            line.contains("id=medium0,format=raw,readonly=on,file=/d/c,,1.iso"),
            "{line}"
        );
        assert!(
            line.contains("id=medium1,format=raw,snapshot=on,file=/d/stick"),
            "{line}"
        );
        assert!(
            line.contains("id=medium2,format=qcow2,snapshot=on"),
            "{line}"
        );
        assert!(
            line.contains("usb-storage,bus=usb.0,removable=on"),
            "{line}"
        );
        assert!(!line.contains("-kernel"), "{line}");
    }

    #[test]
    fn a_quick_boot_has_the_kernel_and_its_arguments() {
        let machine = Machine::quick(&dist()).kernel_argument("clawgress.wait=3");
        let line = line(&machine);
        assert!(line.contains("-kernel /d/vmlinuz"), "{line}");
        assert!(line.contains("net.ifnames=0 clawgress.wait=3"), "{line}");
    }

    #[test]
    fn two_sata_devices_have_two_ports() {
        let machine = Machine::quick(&dist()).medium(Attach::Sata, Path::new("/d/b"));
        let line = line(&machine);
        assert!(line.contains("ide-cd,bus=ide.0"), "{line}");
        assert!(line.contains("ide-hd,bus=ide.1"), "{line}");
    }
}
