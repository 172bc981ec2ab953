//! What goes from one plan to the next, and what the resolver is told of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clawgress_link::durable;
use clawgress_policy::Moment;

use super::candidate::Candidate;
use super::caps::{self, Book};
use super::keeper::Keeper;
use super::observe;
use super::shared::Standing;
use crate::kernel::{KernelError, names, objects};
use crate::pins::Pinner;
use crate::plan::layout::{self, TABLE};
use crate::plan::{Carry, MeterObjects, Plan, Touched};

impl Keeper {
    pub(super) fn transaction(&self, plan: &Plan, touched: &Touched) -> String {
        match &self.last_good {
            Some(before) if self.table_known => plan.transaction_after(&before.plan, touched),
            _ => plan.transaction(),
        }
    }

    /// Never 0, and always another than that of the last plan, in all of its bits that are stamped on flows.
    pub(super) fn next_generation(&self) -> u32 {
        match self.generation.wrapping_add(1) {
            0 => 1,
            next => next,
        }
    }

    /// From here on this number belongs to one plan alone, also after a restart.
    pub(super) fn spend_generation(&mut self, generation: u32) -> Result<(), String> {
        let path = self.spent_path();
        durable::replace(&path, generation.to_string().as_bytes())
            .map_err(|error| error.to_string())?;
        self.generation = generation;
        Ok(())
    }

    /// The highest number that any process on this kernel has spent.
    pub(super) fn spent_generation(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.spent_path()).ok()?;
        text.trim().parse().ok()
    }

    fn spent_path(&self) -> PathBuf {
        self.shared.config.run("generation")
    }

    /// Reads the main table's counters a last time, unless this plan keeps them.
    pub(super) fn end_counters(&mut self, next: Option<&Plan>) {
        let kept = self.table_known
            && self
                .last_good
                .as_ref()
                .zip(next)
                .is_some_and(|(before, next)| next.keeps_counters(&before.plan));
        if !kept {
            observe::read_counters(&self.shared, &mut self.kernel);
            self.shared.meters().end(TABLE);
        }
    }

    pub(super) fn carry(
        &mut self,
        candidate: &Candidate,
        pinner: &Pinner,
        moment: Moment,
    ) -> Result<Carry, KernelError> {
        let zone = caps::zone(&candidate.revision.time_zone);
        let book = Book::open(&self.shared.config.state);
        Ok(Carry {
            pins: pinner.carried(),
            used: book.used(&candidate.index, &zone, moment),
            meter: self.meter_objects()?,
            blocked: self.shared.blocked().clone(),
            proxied: self.numbers.of(&candidate.index),
        })
    }

    fn meter_objects(&mut self) -> Result<MeterObjects, KernelError> {
        let kernel = &mut self.kernel;
        let none_where_missing = |found: Result<BTreeSet<String>, KernelError>| match found {
            Err(error) if error.is_missing() => Ok(BTreeSet::new()),
            other => other,
        };
        let counters =
            objects::counters(kernel, layout::METER).map(|all| all.into_keys().collect());
        let counters = none_where_missing(counters)?;
        let quotas = objects::quotas(kernel, layout::METER).map(|all| all.into_keys().collect());
        let quotas = none_where_missing(quotas)?;
        Ok(MeterObjects {
            counters,
            quotas,
            sets: names::sets(kernel, layout::METER)?,
            chains: names::chains(kernel, layout::METER)?,
        })
    }

    pub(super) fn tell_resolver(&self, load: Option<(u64, PathBuf)>) {
        self.shared.standing.send_modify(|standing| {
            standing.load = load;
            standing.order += 1;
        });
        self.tell_resolver_standing();
    }

    /// The resolver may compile a revision while the other parts are still tried and changed.
    pub(super) fn prepare_resolver(&self, prepare: Option<(u64, PathBuf)>) {
        self.shared.standing.send_if_modified(|standing| {
            let differs = standing.prepare != prepare;
            standing.prepare = prepare;
            differs
        });
    }

    /// What of the caps and the clock the resolver judges by.
    pub(super) fn tell_resolver_standing(&self) {
        let over_cap: Vec<(String, String)> = self
            .shared
            .over_cap()
            .iter()
            .map(|(who, pattern)| (who.clone(), pattern.as_str().to_owned()))
            .collect();
        let blocked = self.shared.blocked().clone();
        let trusted = self
            .shared
            .in_force()
            .is_some_and(|in_force| in_force.moment.trusted);
        self.shared.standing.send_if_modified(|standing| {
            let new = Standing {
                load: standing.load.clone(),
                prepare: standing.prepare.clone(),
                order: standing.order,
                over_cap,
                clock_trusted: trusted,
                blocked,
            };
            let differs = *standing != new;
            *standing = new;
            differs
        });
    }
}
