//! Loading kernel modules: for devices, by name, and on the kernel's own request.
//!
//! Loads from the initramfs only and only what the table lists. A module that does not load is
//! noted for the failure report, never a reason to stop.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clawgress_initramfs::modules::{TABLE_PATH, Table};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use crate::cmdline::CommandLine;
use crate::failure::Failure;

/// Loads each module at most once; may be used from several threads.
#[derive(Debug)]
pub(crate) struct Loader {
    table: Table,
    line: CommandLine,
    done: Mutex<BTreeSet<usize>>,
    complaints: Mutex<Vec<String>>,
}

impl Loader {
    /// Reads the table of the initramfs.
    pub(crate) fn open(line: &CommandLine) -> Result<Self, Failure> {
        let failed = |error: String| {
            Failure::of_step(format!("reading {TABLE_PATH} of the initramfs"), error)
                .advice("The initramfs is damaged or was built wrongly: write the medium again.")
        };
        let text = fs::read_to_string(TABLE_PATH).map_err(|error| failed(error.to_string()))?;
        let table = Table::parse(&text).map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            table,
            line: line.clone(),
            done: Mutex::default(),
            complaints: Mutex::default(),
        })
    }

    /// Loads every module that claims this device, or that has this name or alias. Tells whether
    /// there was one and all went well.
    pub(crate) fn load(&self, wanted: &str) -> bool {
        let found = self.table.find(wanted);
        let mut well = !found.is_empty();
        for position in found {
            let before = self
                .table
                .modules
                .get(position)
                .map(|module| &module.before);
            for needed in before.into_iter().flatten() {
                self.insert(*needed);
            }
            well &= self.insert(position);
        }
        well
    }

    /// What did not load, for the failure report.
    pub(crate) fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }

    fn insert(&self, position: usize) -> bool {
        let Some(module) = self.table.modules.get(position) else {
            return false;
        };
        if lock(&self.done).contains(&position) {
            return true;
        }
        if self.line.blacklist.contains(&module.name) {
            return false;
        }
        // Another thread may be loading the same module: the kernel then makes this call wait
        // and answers EEXIST.
        let result = self.finit(&module.name, &module.path);
        lock(&self.done).insert(position);
        match result {
            Ok(()) | Err(Errno::EEXIST) => true,
            // The module looked at the machine and found nothing to do.
            Err(Errno::ENODEV) => false,
            Err(error) => {
                lock(&self.complaints).push(format!(
                    "module {} did not load: {}",
                    module.name,
                    error.desc()
                ));
                false
            }
        }
    }

    fn finit(&self, name: &str, path: &str) -> Result<(), Errno> {
        let file = File::open(path)
            .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
        let parameters = self.line.parameters.get(name).cloned().unwrap_or_default();
        let parameters = CString::new(parameters).unwrap_or_default();
        finit_module(&file, &parameters, ModuleInitFlags::empty())
    }
}

/// A thread that panicked is impossible here, but a poisoned lock must not become a panic either.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The names in `modprobe -q -- NAME…`, as the kernel calls it when it needs a module that no
/// device names (a character set, a checksum).
pub(crate) fn requested(arguments: impl Iterator<Item = String>) -> Vec<String> {
    arguments
        .filter(|argument| !argument.starts_with('-'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_request() {
        let arguments = ["-q", "--", "nls_ascii"].map(str::to_owned);
        assert_eq!(requested(arguments.into_iter()), ["nls_ascii"]);
    }
}
