//! Pins in memory, on the journal and in the kernel, kept the same.
//!
//! Whatever is told to be pinned is in the kernel by then. Nothing is pinned that the revision in force does not allow
//! at the moment of the plan in force: asked of the same function that fills the sets of a plan.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use clawgress_link::pins::Pin;
use clawgress_policy::{Index, Moment};

use super::journal::{Journal, JournalError};
use super::table::{Full, Limits, Pinned, Placement, SetName, Table};
use crate::kernel::conntrack;
use crate::kernel::sets::{self, Change, Key, Verb};
use crate::kernel::{KernelError, Socket};
use crate::plan::{CarriedPin, Place, Touched, carry, places};

/// An answer is used for a while after it was given.
const GRACE: u64 = 10;
/// Whatever the resolver says: a day is the longest that an answer may be kept.
const LONGEST: u64 = 86_400;
/// How long an expired pin that flows use is left alone before it is looked at again.
const IN_USE: u64 = 30;

/// By what pins are judged: the plan in force.
#[derive(Clone)]
pub struct Judge {
    pub index: Arc<Index>,
    pub moment: Moment,
}

impl Placement for Judge {
    fn sets(&self, principal: &str, name: &str, address: IpAddr, leaving: bool) -> Vec<SetName> {
        places(&self.index, principal, name, address, self.moment)
            .into_iter()
            .filter(|place| place.holds(leaving))
            .map(|place| SetName {
                table: place.table,
                set: place.set(address).to_owned(),
                port: place.port,
            })
            .collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error("no revision is in force")]
    Sealed,
    #[error("the pin is of revision {asked}, in force is {current}")]
    OtherRevision { asked: u64, current: u64 },
    #[error("{principal} may not reach {name} now")]
    NotAllowed { principal: String, name: String },
    #[error(transparent)]
    Full(#[from] Full),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("putting addresses into the kernel: {0}")]
    Kernel(#[from] KernelError),
}

pub struct Pinner {
    table: Table,
    journal: Journal,
    socket: Socket,
    judge: Option<Judge>,
    touched: Touched,
}

impl Pinner {
    /// Knows what the journal knows. Pins nothing until it has a judge. `now` is in seconds since the boot: what had
    /// expired by then opens nothing before flows are found that use it.
    pub fn open(journal: &Path, limits: Limits, now: u64) -> Result<Self, PinError> {
        let mut table = Table::new(limits);
        let journal = Journal::open(journal, &mut table)?;
        for pin in table.expired(now) {
            table.leave(&pin);
        }
        Ok(Self {
            table,
            journal,
            socket: Socket::open()?,
            judge: None,
            touched: Touched::new(),
        })
    }

    /// From now on pins are judged by this plan, which is in force. None: the box is sealed, and nothing is pinned.
    pub fn judge_by(&mut self, judge: Option<Judge>) {
        self.judge = judge;
    }

    /// The sets that were told anything since a plan last filled them, whatever became of it.
    pub fn touched(&self) -> &Touched {
        &self.touched
    }

    /// A plan has filled all sets.
    pub fn filled(&mut self) {
        self.touched.clear();
    }

    fn tell(&mut self, changes: &[Change]) -> Result<(), KernelError> {
        self.touched
            .extend(changes.iter().map(|change| change.set.clone()));
        sets::change(&mut self.socket, changes)
    }

    pub fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref()
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    /// For the next plan.
    pub fn carried(&self) -> Vec<CarriedPin> {
        let mut carried: BTreeMap<(Arc<str>, Arc<str>, bool), BTreeSet<IpAddr>> = BTreeMap::new();
        for pin in self.table.iter() {
            carried
                .entry((pin.principal, pin.name, pin.leaving))
                .or_default()
                .insert(pin.address);
        }
        carried
            .into_iter()
            .map(|((principal, name, leaving), addresses)| CarriedPin {
                principal: principal.to_string(),
                name: name.to_string(),
                addresses,
                leaving,
            })
            .collect()
    }

    /// Pins in one transaction, or, if that is refused, each in its own, so that one that can't be made takes no
    /// others with it. `now` is in seconds since the boot.
    pub fn pin(&mut self, pins: &[Pin], now: u64) -> Vec<Result<(), PinError>> {
        let taken: Vec<Result<Vec<Change>, PinError>> =
            pins.iter().map(|pin| self.take(pin, now)).collect();
        let mut all: Vec<Change> = taken.iter().flatten().flatten().cloned().collect();
        all.sort_unstable();
        all.dedup();
        let together = self.tell(&all);
        taken
            .into_iter()
            .zip(pins)
            .map(|(taken, pin)| {
                let changes = taken?;
                if together.is_err() {
                    self.tell(&changes).inspect_err(|_| self.undo(pin))?;
                }
                Ok(())
            })
            .collect()
    }

    /// Notes a pin; what the kernel has to be told is returned.
    fn take(&mut self, pin: &Pin, now: u64) -> Result<Vec<Change>, PinError> {
        let judge = self.judge.as_ref().ok_or(PinError::Sealed)?;
        let current = judge.index.revision();
        if pin.revision != current {
            return Err(PinError::OtherRevision {
                asked: pin.revision,
                current,
            });
        }
        let placed: Vec<(IpAddr, Place)> = pin
            .addresses
            .iter()
            .flat_map(|address| {
                let places = places(
                    &judge.index,
                    &pin.principal,
                    &pin.name,
                    *address,
                    judge.moment,
                );
                places.into_iter().map(|place| (*address, place))
            })
            .collect();
        if !placed.iter().any(|(_, place)| place.opens) {
            return Err(PinError::NotAllowed {
                principal: pin.principal.clone(),
                name: pin.name.clone(),
            });
        }
        self.table.fits(&pin.principal, &pin.name, &pin.addresses)?;
        let until = now + u64::from(pin.seconds).min(LONGEST) + GRACE;
        self.journal
            .note(&pin.principal, &pin.name, &pin.addresses, until)?;
        self.table
            .pin(&pin.principal, &pin.name, &pin.addresses, until)?;
        // Told again also where they should be there: then it is certain that they are.
        let changes = placed.iter().map(|(address, place)| Change {
            table: place.table,
            set: place.set(*address).to_owned(),
            verb: Verb::Add,
            key: key(*address, place.port),
        });
        let mut changes: Vec<Change> = changes.collect();
        changes.sort_unstable();
        changes.dedup();
        Ok(changes)
    }

    fn undo(&mut self, pin: &Pin) {
        for address in &pin.addresses {
            self.table.unpin(&Pinned {
                principal: pin.principal.as_str().into(),
                address: *address,
                name: pin.name.as_str().into(),
                until: 0,
                leaving: false,
            });
        }
        if let Err(error) = self
            .journal
            .forget(&pin.principal, &pin.name, &pin.addresses)
        {
            tracing::warn!("forgetting a pin that the kernel refused: {error}");
        }
    }

    /// What might go by now.
    pub fn expired(&self, now: u64) -> Vec<Pinned> {
        self.table.expired(now)
    }

    /// Takes away what has expired, but for what flows use: `looked_at` are the expired pins for which flows were sought
    /// since, `used` those for which some were found. Each goes in two steps, a sweep apart. First it opens nothing any
    /// more; only if no flow is found after that does it stop to count: a flow may have begun between the search and
    /// the first step.
    pub fn sweep(
        &mut self,
        now: u64,
        looked_at: &[Pinned],
        used: &HashSet<(Arc<str>, IpAddr)>,
    ) -> Result<usize, PinError> {
        let expired: Vec<Pinned> = {
            let looked_at: HashSet<&Pinned> = looked_at.iter().collect();
            let mut expired = self.table.expired(now);
            expired.retain(|pin| looked_at.contains(pin));
            expired
        };
        let addresses: HashSet<IpAddr> = expired.iter().map(|pin| pin.address).collect();
        let before = self.placed(&addresses);
        for (principal, address) in used {
            let until = now + IN_USE;
            for name in self.table.prolong(principal, *address, until) {
                self.journal.note(principal, &name, &[*address], until)?;
            }
        }
        let unused = |pin: &&Pinned| !used.contains(&(Arc::clone(&pin.principal), pin.address));
        for pin in expired.iter().filter(unused) {
            if pin.leaving {
                self.journal
                    .forget(&pin.principal, &pin.name, &[pin.address])?;
                self.table.unpin(pin);
            } else {
                self.table.leave(pin);
            }
        }
        let after = self.placed(&addresses);
        let back: Vec<Change> = after
            .difference(&before)
            .map(|(set, address)| Change {
                table: set.table,
                set: set.set.clone(),
                verb: Verb::Add,
                key: key(*address, set.port),
            })
            .collect();
        self.tell(&back)?;
        let gone: Vec<Change> = before
            .difference(&after)
            .map(|(set, address)| Change {
                table: set.table,
                set: set.set.clone(),
                verb: Verb::Delete,
                key: key(*address, set.port),
            })
            .collect();
        if self.tell(&gone).is_err() {
            // Something of it was not there. What is not there need not go.
            for change in &gone {
                match self.tell(std::slice::from_ref(change)) {
                    Err(error) if !error.is_missing() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        self.journal.compact(&self.table)?;
        Ok(expired.len())
    }

    fn placed(&self, addresses: &HashSet<IpAddr>) -> BTreeSet<(SetName, IpAddr)> {
        let Some(judge) = &self.judge else {
            return BTreeSet::new();
        };
        addresses
            .iter()
            .flat_map(|address| {
                self.table
                    .placed_by_anybody(*address, judge)
                    .into_iter()
                    .map(|set| (set, *address))
            })
            .collect()
    }
}

fn key(address: IpAddr, port: Option<u16>) -> Key {
    match port {
        Some(port) => Key::AddressAndPort(address, port),
        None => Key::Address(address),
    }
}

/// Which of these pins live flows use. Walks all flows of the kernel: not to be called with the pins locked.
pub fn in_use(
    socket: &mut Socket,
    expired: &[Pinned],
    index: &Index,
) -> Result<HashSet<(Arc<str>, IpAddr)>, KernelError> {
    let wanted: HashSet<(Arc<str>, IpAddr)> = expired
        .iter()
        .map(|pin| (Arc::clone(&pin.principal), pin.address))
        .collect();
    let front: Arc<str> = Arc::from(carry::FRONT);
    let mut used = HashSet::new();
    conntrack::visit(
        socket,
        // A dump that begins anew finds the same again; what it found before did exist.
        |_| {},
        |seen| {
            // Also of a flow that looks closed: as long as conntrack knows it, its packets pass.
            let front = (Arc::clone(&front), seen.flow.destination);
            if wanted.contains(&front) {
                used.insert(front);
            }
            if let Some(who) = index.principal_of(seen.flow.source) {
                let own = (Arc::from(who.name.as_str()), seen.flow.destination);
                if wanted.contains(&own) {
                    used.insert(own);
                }
            }
        },
    )?;
    Ok(used)
}
