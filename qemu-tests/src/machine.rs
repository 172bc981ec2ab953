//! Owns the description of a machine to boot. Starts nothing before it is told to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::accel::Accelerator;
use crate::case::Case;
use crate::dist::Dist;
use crate::error::Result;
use crate::lab::{Lab, Tap};
use crate::vm::Vm;

mod command_line;

pub use command_line::FirmwareFiles;

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

impl Machine {
    /// A machine without any medium. `dist` only tells which kernel answers whether KVM works.
    pub fn bare(dist: &Dist) -> Self {
        Self {
            name: "box".to_owned(),
            memory_mib: 1024,
            // One: two machines run at a time, and emulating several processors in parallel has a race in QEMU 7.2 that
            // now and then kills a kernel which patches its own code (int3 in a place just rewritten).
            cpus: 1,
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
        Self::direct(dist, &dist.kernel, &dist.initrd, &dist.command_line)
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
}

/// The base limit for reaching the running system under KVM; `Accelerator::scale` widens it.
pub const BOOT_LIMIT: Duration = Duration::from_secs(50);
