//! Translates a machine into QEMU's words, and gives a UEFI machine its firmware. Starts nothing.

use std::path::{Path, PathBuf};

use super::{Attach, Firmware, Machine, Nic};
use crate::accel::Accelerator;
use crate::error::{Error, Result};

/// UEFI firmware: the code that is shared, and this machine's own variables.
#[derive(Debug)]
pub struct FirmwareFiles {
    code: PathBuf,
    variables: PathBuf,
}

impl Machine {
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
            for argument in files.qemu_arguments() {
                line.add(&argument);
            }
        }
        if let Some(direct) = &self.direct {
            line.pair("-kernel", &direct.kernel.display().to_string());
            line.pair("-initrd", &direct.initrd.display().to_string());
            // For a person who wants to see why a boot hangs; too much to read, and too slow, otherwise.
            let journal = if std::env::var_os("CLAWGRESS_TEST_JOURNAL").is_some() {
                " systemd.journald.forward_to_console=1"
            } else {
                ""
            };
            line.pair("-append", &format!("{}{journal}", direct.append));
        }
        if self.hot_plug {
            line.pair("-device", "pcie-root-port,id=free-slot,chassis=1");
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
        match self.firmware {
            Firmware::Bios => Ok(None),
            Firmware::Uefi => FirmwareFiles::uefi(scratch).map(Some),
        }
    }
}

impl FirmwareFiles {
    /// QEMU's words for both flash chips.
    pub fn qemu_arguments(&self) -> [String; 4] {
        let (code, variables) = (escape(&self.code), escape(&self.variables));
        [
            "-drive".to_owned(),
            format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"),
            "-drive".to_owned(),
            format!("if=pflash,unit=1,format=raw,file={variables}"),
        ]
    }

    /// This host's UEFI firmware, with throw-away variables in `scratch`.
    pub fn uefi(scratch: &Path) -> Result<Self> {
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
            return Ok(Self { code, variables });
        }
        Err(Error::other(
            "no UEFI firmware in /usr/share/OVMF: install the package ovmf",
        ))
    }
}

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
    use crate::dist::Dist;

    fn dist() -> Dist {
        Dist {
            iso: PathBuf::from("/d/c,1.iso"),
            squashfs: PathBuf::from("/d/root.squashfs"),
            kernel: PathBuf::from("/d/vmlinuz"),
            initrd: PathBuf::from("/d/initrd.img"),
            command_line: "console=ttyS0 net.ifnames=0".to_owned(),
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
