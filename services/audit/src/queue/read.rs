//! Reading a lane for shipping: events in the order of their numbers, and only what no power cut can take back. An
//! event that had been shipped and was then lost here would give its number to another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::files::Queueing;
use super::lanes::{Lane, lanes};
use super::{Settings, Shared, record};
use crate::disk::{DiskError, Sheet};

const CHUNK: u64 = 256 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    pub sequence: u64,
    /// A JSON object without its origin.
    pub text: Vec<u8>,
}

pub struct Reader {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    file: u64,
    offset: u64,
}

/// Where a queue's other lanes are.
#[derive(Debug, Clone)]
pub struct Beside {
    directory: Option<PathBuf>,
    pub settings: Settings,
}

impl Beside {
    /// Those whose processes are gone.
    pub fn orphans(&self) -> Result<Vec<Lane>, DiskError> {
        self.directory.as_deref().map_or(Ok(Vec::new()), lanes)
    }
}

struct Here {
    number: u64,
    sheet: Arc<dyn Sheet>,
    seed: u32,
    synced: u64,
    next: Option<u64>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            durable: shared.durable.subscribe(),
            shared,
            file: 0,
            offset: 0,
        }
    }

    /// Of the queue, in hexadecimal.
    pub fn queue(&self) -> String {
        let mut text = String::new();
        for byte in self.shared.lock().queue {
            text.push_str(&format!("{byte:02x}"));
        }
        text
    }

    /// Up to this sequence nothing is here any more, because it was acknowledged.
    pub fn gone(&self) -> u64 {
        self.shared.lock().gone
    }

    pub fn beside(&self) -> Beside {
        Beside {
            directory: self.shared.disk.place().parent().map(Path::to_owned),
            settings: self.shared.settings,
        }
    }

    /// The highest sequence that there ever was.
    pub fn last(&self) -> u64 {
        self.shared.lock().next_sequence - 1
    }

    /// Reads from the oldest file on again.
    pub fn rewind(&mut self) {
        self.file = 0;
        self.offset = 0;
    }

    /// The next events above `after`, until they hold `limit` bytes; none: everything durable has been read.
    pub fn read(&mut self, after: u64, limit: usize) -> Result<Vec<Queued>, DiskError> {
        let mut events = Vec::new();
        let mut length = 0;
        while length < limit {
            let Some(here) = self.here() else { break };
            if self.file != here.number {
                self.file = here.number;
                self.offset = record::FILE_HEADER as u64;
            }
            if self.offset >= here.synced {
                match here.next {
                    Some(next) => {
                        self.file = next;
                        self.offset = record::FILE_HEADER as u64;
                        continue;
                    }
                    None => break,
                }
            }
            length += self.read_chunk(&here, after, limit - length, &mut events)?;
        }
        Ok(events)
    }

    fn read_chunk(
        &mut self,
        here: &Here,
        after: u64,
        limit: usize,
        events: &mut Vec<Queued>,
    ) -> Result<usize, DiskError> {
        let path = || {
            self.shared
                .disk
                .place()
                .join(record::file_name(here.number))
        };
        let mut bytes = vec![0; CHUNK.min(here.synced - self.offset) as usize];
        let filled = here
            .sheet
            .read_at(self.offset, &mut bytes)
            .map_err(DiskError::of("reading", path()))?;
        bytes.truncate(filled);
        let (mut at, mut length) = (0, 0);
        while let Some((record, size)) = bytes
            .get(at..)
            .and_then(|rest| record::read(here.seed, rest))
        {
            at += size;
            if record.kind.is_event() && record.sequence > after {
                length += record.text.len();
                events.push(Queued {
                    sequence: record.sequence,
                    text: record.text.to_vec(),
                });
                if length >= limit {
                    break;
                }
            }
        }
        if at == 0 {
            let source = std::io::Error::other(format!(
                "no whole record at byte {}, where one was synced; the disk has spoiled it",
                self.offset
            ));
            return Err(DiskError::of("reading", path())(source));
        }
        self.offset += at as u64;
        Ok(length)
    }

    /// The file to read in, and the one behind it if this one will not grow.
    fn here(&self) -> Option<Here> {
        let inner = self.shared.lock();
        let mut files = inner
            .files
            .iter()
            .skip_while(|file| file.number < self.file);
        let file: &Queueing = files.next()?;
        let next = files.next().map(|next| next.number);
        Some(Here {
            number: file.number,
            sheet: Arc::clone(&file.sheet),
            seed: file.seed,
            synced: file.synced,
            next: next.filter(|_| file.synced == file.at),
        })
    }

    /// The store has everything up to this one; what it has need not lie here.
    pub fn acknowledge(&self, sequence: u64) {
        let mut inner = self.shared.lock();
        inner.acknowledged = sequence.min(inner.durable_sequence).max(inner.acknowledged);
        drop(inner);
        self.shared.touched();
    }

    /// Returns when more has become durable than at the last call.
    pub async fn more(&mut self) {
        // The sender lives in what this reader holds.
        let _ = self.durable.changed().await;
    }
}
