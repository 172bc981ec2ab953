//! What goes from one plan to the next, and what the resolver is told of it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clawgress_policy::Moment;

use super::candidate::Candidate;
use super::caps::{self, Book};
use super::keeper::Keeper;
use super::shared::Standing;
use crate::kernel::{KernelError, names, objects};
use crate::pins::Pinner;
use crate::plan::{Carry, MeterObjects, Plan, layout};

impl Keeper {
    pub(super) fn transaction(&self, plan: &Plan) -> String {
        match &self.last_good {
            Some(before) if self.table_known => plan.transaction_after(&before.plan),
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

    /// What of the caps and the clock the resolver judges by.
    pub(super) fn tell_resolver_standing(&self) {
        let over_cap: Vec<(String, String)> = self
            .shared
            .over_cap()
            .iter()
            .map(|(who, pattern)| (who.clone(), pattern.as_str().to_owned()))
            .collect();
        let trusted = self
            .shared
            .in_force()
            .is_some_and(|in_force| in_force.moment.trusted);
        self.shared.standing.send_if_modified(|standing| {
            let new = Standing {
                load: standing.load.clone(),
                order: standing.order,
                over_cap,
                clock_trusted: trusted,
            };
            let differs = *standing != new;
            *standing = new;
            differs
        });
    }
}
