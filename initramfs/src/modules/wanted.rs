//! What `/init` itself can make use of, as module names.
//!
//! The one list to look at when hardware is not found. A base file may add to it, never remove
//! the required ones: without them no medium can be mounted.

/// A wish list; names in either spelling (`usb-storage`, `usb_storage`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The build fails if one of these is neither a module nor built in.
    pub required: Vec<String>,
    /// Taken where the kernel has them.
    pub optional: Vec<String>,
    /// Every module below these, such as `kernel/drivers/ata`.
    pub directories: Vec<String>,
}

/// Without these the squashfs on a CD or stick can't become a root.
const REQUIRED: &[&str] = &["loop", "squashfs", "overlay", "isofs", "sd_mod", "sr_mod"];

/// Media, the buses before them, and a keyboard for the rescue shell.
const OPTIONAL: &[&str] = &[
    // File systems of sticks and disks, with the character sets that kernels default to.
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859-1",
    "nls_utf8",
    // SATA and PATA as virtual machines show them.
    "ahci",
    "ata_piix",
    "ata_generic",
    "pata_acpi",
    // Virtual disks.
    "virtio_pci",
    "virtio_mmio",
    "virtio_blk",
    "virtio_scsi",
    "hv_vmbus",
    "hv_storvsc",
    "vmw_pvscsi",
    "mptspi",
    "mptsas",
    "xen-blkfront",
    // NVMe, also behind Intel's volume management.
    "nvme",
    "vmd",
    // USB.
    "xhci_pci",
    "ehci_pci",
    "ohci_pci",
    "uhci_hcd",
    "usb-storage",
    "uas",
    // SD and eMMC.
    "mmc_block",
    "sdhci_pci",
    "sdhci_acpi",
    // Server controllers.
    "megaraid_sas",
    "mpt3sas",
    "hpsa",
    "aacraid",
    "smartpqi",
    "mpi3mr",
    "isci",
    // A keyboard.
    "usbhid",
    "hid-generic",
    "atkbd",
    "i8042",
    "hyperv-keyboard",
];

impl Wanted {
    /// What finds a medium on any machine that this appliance means to boot on.
    pub fn any_medium() -> Self {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            required: own(REQUIRED),
            optional: own(OPTIONAL),
            directories: vec!["kernel/drivers/ata".to_owned()],
        }
    }
}
