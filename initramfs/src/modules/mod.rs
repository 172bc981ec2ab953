//! Kernel modules: which ones go into the initramfs, in which order they load, and the table by
//! which `/init` finds the module for a device.
//!
//! Reads a kernel's modules directory only through [`Source`]; decompression is the caller's work.

mod closure;
mod index;
mod table;
mod wanted;

use std::io;

pub use closure::{Module, Selection, select};
pub use index::Index;
pub use table::{Table, TableModule};
pub use wanted::Wanted;

/// Where `/init` finds the table inside the initramfs.
pub const TABLE_PATH: &str = "/clawgress-modules";

/// A kernel's modules directory (`/usr/lib/modules/<release>`).
pub trait Source {
    /// The content of a file such as `modules.dep` or `kernel/fs/isofs/isofs.ko.xz`, `None` if
    /// there is no such file. Modules come decompressed, whatever their name ends in.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;
}

/// Why modules can't be selected.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    #[error("reading {path} of the kernel's modules directory: {source}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "reading {path} of the kernel's modules directory: it is missing; \
         the kernel package is incomplete or depmod has not run"
    )]
    Missing { path: String },
    #[error("reading {path} of the kernel's modules directory: it is not an uncompressed module")]
    NotAModule { path: String },
    #[error(
        "reading {path} of the kernel's modules directory: line {line} makes no sense: {text:?}"
    )]
    Syntax {
        path: String,
        line: usize,
        text: String,
    },
    #[error(
        "selecting kernel modules: required module {name} is neither among the kernel's modules \
         nor built into it; take another kernel package or drop the module from the base file"
    )]
    Required { name: String },
    #[error("parsing the initramfs module table: line {line} makes no sense: {text:?}")]
    Table { line: usize, text: String },
}

/// The kernel's own name of a module: `kernel/x/virtio-rng.ko.xz` → `virtio_rng`.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = [".ko", ".ko.xz", ".ko.zst", ".ko.gz"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix))
        .unwrap_or(file);
    stem.replace('-', "_")
}

#[cfg(test)]
pub(crate) mod testing {
    //! A modules directory in memory.

    use super::Source;
    use std::{collections::BTreeMap, io};

    pub(crate) struct MemorySource(pub BTreeMap<String, Vec<u8>>);

    impl Source for MemorySource {
        fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
            if path.contains("unreadable") {
                return Err(io::Error::other("bad sector"));
            }
            Ok(self.0.get(path).cloned())
        }
    }

    /// A small kernel: AHCI, USB storage, SCSI disks and CDs, three file systems.
    pub(crate) fn small_kernel() -> MemorySource {
        let dep = "\
            kernel/drivers/scsi/scsi_common.ko.xz:\n\
            kernel/drivers/scsi/scsi_mod.ko.xz: kernel/drivers/scsi/scsi_common.ko.xz\n\
            kernel/drivers/ata/libata.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz\n\
            kernel/drivers/ata/libahci.ko.xz: kernel/drivers/ata/libata.ko.xz kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz\n\
            kernel/drivers/ata/ahci.ko.xz: kernel/drivers/ata/libahci.ko.xz kernel/drivers/ata/libata.ko.xz kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz\n\
            kernel/drivers/scsi/sd_mod.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz\n\
            kernel/drivers/usb/storage/usb-storage.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz kernel/drivers/scsi/scsi_common.ko.xz\n\
            kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz\n\
            kernel/fs/jbd2/jbd2.ko.xz:\n\
            kernel/crypto/crc32c_generic.ko.xz:\n\
            kernel/net/e1000.ko.xz:\n";
        let mut files: BTreeMap<String, Vec<u8>> = dep
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(path, _)| (path.to_owned(), format!("\x7fELF {path}").into_bytes()))
            .collect();
        let mut text = |name: &str, content: &str| {
            files.insert(name.to_owned(), content.as_bytes().to_vec());
        };
        text("modules.dep", dep);
        text("modules.builtin", "kernel/drivers/virtio/virtio-pci.ko\n");
        text(
            "modules.alias",
            "# Aliases extracted from modules themselves.\n\
             alias pci:v*d*sv*sd*bc01sc06i01* ahci\n\
             alias scsi:t-0x00* sd_mod\n\
             alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage\n\
             alias fs-ext4 ext4\n\
             alias crypto-crc32c crc32c_generic\n\
             alias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\n",
        );
        text(
            "modules.softdep",
            "# Soft dependencies extracted from modules themselves.\n\
             softdep ext4 pre: crypto-crc32c unknown-thing post: e1000\n\
             softdep e1000 ptp\n",
        );
        MemorySource(files)
    }
}
