//! Lanes: each process that queues has a directory of its own below the queue's, locked while it lives. A lane whose
//! process is gone is taken by the next one, or shipped to its end by whoever finds it.

use std::io;
use std::path::{Path, PathBuf};

use super::{OpenError, Queue, Settings};
use crate::disk::{Directory, Disk, DiskError};

/// Processes at a time; a restart needs two.
const MOST: usize = 16;

fn lane(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("lane-{number}"))
}

/// The first lane that nobody has.
pub(super) fn take(directory: &Path) -> Result<Directory, OpenError> {
    let mut last = None;
    for number in 1..=MOST {
        match Directory::lock(&lane(directory, number)) {
            Ok(disk) => return Ok(disk),
            Err(error) if error.is_taken() => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    let none = || {
        DiskError::of("taking a lane of", directory.to_owned())(io::ErrorKind::WouldBlock.into())
    };
    Err(last.unwrap_or_else(none).into())
}

/// A lane that nobody has and that still holds something.
pub struct Lane {
    disk: Directory,
}

/// All those below `directory`, locked for the caller.
pub fn lanes(directory: &Path) -> Result<Vec<Lane>, DiskError> {
    let mut found = Vec::new();
    for number in 1..=MOST {
        let path = lane(directory, number);
        if !path.is_dir() {
            continue;
        }
        match Directory::lock(&path) {
            Ok(disk) => {
                let names = disk.names().map_err(DiskError::of("listing", path))?;
                if !names.is_empty() {
                    found.push(Lane { disk });
                }
            }
            Err(error) if error.is_taken() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

impl Lane {
    /// Open for shipping: what its process had begun has ended as interrupted.
    pub fn open(self, settings: Settings) -> Result<Queue, OpenError> {
        Queue::start(Box::new(self.disk), settings)
    }
}

impl Queue {
    /// Removes a lane of which the store has everything; false: it has not.
    pub fn discard(mut self) -> Result<bool, DiskError> {
        self.stop_house();
        let mut inner = self.shared.lock();
        if !inner.begun.is_empty() || inner.acknowledged + 1 < inner.next_sequence {
            return Ok(false);
        }
        let place = self.shared.disk.place();
        let error = |doing| DiskError::of(doing, place.to_owned());
        // Oldest first, each for certain before the next: an end must not go before its beginning.
        let mut numbers: Vec<u64> = inner.files.drain(..).map(|file| file.number).collect();
        numbers.extend(inner.spares.drain(..).map(|spare| spare.number));
        for number in numbers {
            let name = super::record::file_name(number);
            self.shared
                .disk
                .remove(&name)
                .map_err(error("removing files in"))?;
            self.shared.disk.sync_names().map_err(error("syncing"))?;
        }
        Ok(true)
    }
}
