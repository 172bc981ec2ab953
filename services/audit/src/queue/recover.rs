//! Putting a lane in order when it is opened: what was begun and not ended becomes an event marked `interrupted`, the
//! numbers go on where they stood, and files that were never in use go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::append::{Inner, Open};
use super::files::{Queueing, random};
use super::folds::{Folds, interrupted_as};
use super::record::{FileHeader, Kind, Scan, file_name, number_of};
use super::{OpenError, Refused, Settings, Shared};
use crate::disk::{Disk, DiskError, read_all};
use crate::event::Outcome;

#[derive(Default)]
struct Found {
    files: VecDeque<Queueing>,
    queue: Option<[u8; 16]>,
    begun: BTreeMap<u64, Open>,
    next_file: u64,
    next_sequence: u64,
    next_ticket: u64,
    /// Everything before it had been acknowledged.
    first_sequence: Option<u64>,
}

impl Shared {
    pub(super) fn recover(disk: Box<dyn Disk>, settings: Settings) -> Result<Arc<Self>, OpenError> {
        let found = find(&*disk)?;
        let mut queue = [0; 16];
        let (first, second) = queue.split_at_mut(8);
        first.copy_from_slice(&random().to_le_bytes());
        second.copy_from_slice(&random().to_le_bytes());
        let next_sequence = found.next_sequence.max(1);
        let mut inner = Inner {
            queue: found.queue.unwrap_or(queue),
            files: found.files,
            spares: VecDeque::new(),
            newest: None,
            next_file: found.next_file.max(1),
            next_sequence,
            next_ticket: found.next_ticket.max(1),
            begun: HashMap::new(),
            reserved: 0,
            shares: HashMap::new(),
            dropped: HashMap::new(),
            dropped_ever: 0,
            position: 0,
            acknowledged: found.first_sequence.unwrap_or(next_sequence) - 1,
            gone: found.first_sequence.unwrap_or(next_sequence) - 1,
            unended: VecDeque::new(),
            folds: Folds::new(),
            durable_sequence: 0,
            broken: None,
            scratch: Vec::new(),
        };
        for file in &inner.files {
            for (owner, bytes) in &file.charges {
                *inner.shares.entry(Arc::clone(owner)).or_default() += bytes;
            }
        }
        inner.begun.extend(found.begun);
        inner.reserved = inner.begun.values().map(Open::reserve).sum();
        let shared = Arc::new(Self {
            settings,
            disk,
            inner: Mutex::new(inner),
            durable: watch::channel(0).0,
            dirty: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            keeper: Mutex::new(None),
        });
        shared.end_interrupted()?;
        Ok(shared)
    }

    fn end_interrupted(&self) -> Result<(), OpenError> {
        let failed = |refused| match refused {
            Refused::Space(error) => OpenError::Disk(error),
            other => OpenError::Disk(DiskError::of(
                "putting in order",
                self.disk.place().to_owned(),
            )(std::io::Error::other(other.to_string()))),
        };
        let begun: Vec<(u64, Outcome<'_>)> = {
            let mut inner = self.lock();
            // Never behind what a crash may have torn.
            inner.turn(self).map_err(failed)?;
            let mut begun: Vec<(u64, Outcome<'_>)> = inner
                .begun
                .iter()
                .map(|(number, open)| (*number, interrupted_as(open)))
                .collect();
            begun.sort_unstable_by_key(|(number, _)| *number);
            begun
        };
        for (number, outcome) in begun {
            self.end(number, &outcome);
        }
        self.sync_all();
        match &self.lock().broken {
            Some(broken) => Err(failed(Refused::Broken(broken.clone()))),
            None => Ok(()),
        }
    }
}

fn find(disk: &dyn Disk) -> Result<Found, OpenError> {
    let place = disk.place().to_owned();
    let names = disk
        .names()
        .map_err(DiskError::of("listing", place.clone()))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    let mut found = Found::default();
    for number in numbers {
        let name = file_name(number);
        let error = |doing| DiskError::of(doing, place.join(&name));
        found.next_file = found.next_file.max(number + 1);
        let sheet = disk.open(&name).map_err(error("opening"))?;
        // What is read now is acted upon, so it has to stay.
        sheet.sync().map_err(error("syncing"))?;
        let bytes = read_all(&*sheet).map_err(error("reading"))?;
        let header = FileHeader::read(&bytes).filter(|header| header.number == number);
        let used = header.filter(|header| Scan::new(header, &bytes).next().is_some());
        let Some(header) = used else {
            disk.remove(&name).map_err(error("removing"))?;
            continue;
        };
        if *found.queue.get_or_insert(header.queue) != header.queue {
            return Err(OpenError::Mixed {
                place: place.display().to_string(),
                one: hex(found.queue.unwrap_or_default()),
                other: hex(header.queue),
            });
        }
        let mut file = Queueing {
            number,
            seed: header.seed(),
            at: 0,
            size: bytes.len() as u64,
            synced: 0,
            last_sequence: 0,
            open: 0,
            carried: 0,
            charges: HashMap::new(),
            sheet,
        };
        found.take(&mut file, Scan::new(&header, &bytes));
        found.files.push_back(file);
    }
    for open in found.begun.values() {
        if let Some(file) = found.files.iter_mut().find(|file| file.number == open.file) {
            file.open += 1;
        }
    }
    disk.sync_names().map_err(DiskError::of("syncing", place))?;
    Ok(found)
}

impl Found {
    fn take(&mut self, file: &mut Queueing, mut records: Scan<'_>) {
        for record in records.by_ref() {
            match record.kind {
                Kind::Base => {
                    self.first_sequence.get_or_insert(record.sequence.max(1));
                    self.next_sequence = self.next_sequence.max(record.sequence);
                    self.next_ticket = self.next_ticket.max(record.ticket);
                }
                Kind::Begun => {
                    self.next_ticket = self.next_ticket.max(record.ticket.saturating_add(1));
                    let open = Open {
                        file: file.number,
                        owner: record.owner.len() as u8,
                        body: [record.owner, record.text].concat().into(),
                    };
                    self.begun.insert(record.ticket, open);
                }
                Kind::Ended | Kind::Whole => {
                    self.begun.remove(&record.ticket);
                    self.next_sequence = self.next_sequence.max(record.sequence.saturating_add(1));
                }
            }
            if record.kind != Kind::Base {
                let owner = String::from_utf8_lossy(record.owner);
                let bytes = (record.owner.len() + record.text.len()) as u64;
                *file.charges.entry(Arc::from(owner)).or_default() += bytes;
            }
        }
        file.at = records.at as u64;
        file.synced = file.at;
        file.last_sequence = self.next_sequence.saturating_sub(1);
    }
}

fn hex(bytes: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(bytes))
}
