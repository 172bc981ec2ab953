//! The ways back: to the last good plan when a new one can't be brought about whole, to the seal when there is none, and
//! to what the kernel enforces already when this process is started again.

use std::sync::Arc;
use std::time::Instant;

use clawgress_policy::Moment;

use super::applied::Applied;
use super::candidate::Candidate;
use super::keeper::Keeper;
use super::shared::InForce;
use crate::apply::stages::Stages;
use crate::apply::{haproxy, host, nft};
use crate::pins::Judge;

impl Keeper {
    /// Back to what was good before, or to the seal.
    pub(super) async fn go_back(
        &mut self,
        (good, enforced): (Option<Arc<InForce>>, bool),
        stages: &mut Stages,
    ) {
        let begun = Instant::now();
        self.last_good.clone_from(&good);
        let back = match good.filter(|_| enforced) {
            None => Err("there is no good plan to go back to".to_owned()),
            Some(good) => self.restore(&good).await,
        };
        let outcome = match back {
            Ok(detail) => Ok(((), detail)),
            Err(why) => match self.seal(&why).await {
                Ok(()) => Ok(((), format!("{why}; the box is sealed"))),
                Err(error) => Err(format!("{why}; and sealing failed: {error}")),
            },
        };
        let _ = stages.note("rollback", begun, outcome);
    }

    async fn restore(&mut self, good: &InForce) -> Result<String, String> {
        let candidate = Candidate::again(good);
        let moment = self.clock.moment(good.revision.trust_hardware_clock);
        // The failed plan may have left its files and its table.
        self.table_known = false;
        self.enforcing = false;
        self.serve_names(&candidate, good.plan.named.clone(), None)
            .await?;
        self.serve_front_patiently(&candidate, moment).await?;
        self.exchange_kernel(&candidate, moment).await?;
        self.load_resolver(&candidate).await?;
        self.verify(&[]).await?;
        Ok(format!(
            "revision {} is in force again, generation {}",
            good.revision.number, self.generation
        ))
    }

    /// A revision that does not enable enforcement seals the box.
    pub(super) async fn disable(&mut self, candidate: &Candidate, stages: &mut Stages) -> bool {
        let begun = Instant::now();
        let number = candidate.revision.number;
        let sealed = self
            .seal("the revision in force does not enable enforcement")
            .await;
        let told = sealed.map(|()| {
            (
                (),
                "sealed: the revision does not enable enforcement".to_owned(),
            )
        });
        if stages.note("nft", begun, told).is_err() {
            return false;
        }
        self.highest = self.highest.max(number);
        self.last_good = None;
        let applied = Applied {
            file: candidate.file.clone(),
            digest: candidate.digest.to_string(),
            revision: number,
            generation: self.generation,
            now: 0,
            clock_trusted: false,
            enforcing: false,
        };
        if let Err(error) = applied.write(&self.applied_path()) {
            tracing::error!("{error}");
        }
        true
    }

    /// Forwards nothing, drops everything, pins nothing, resolves nothing.
    pub(super) async fn seal(&mut self, why: &str) -> Result<(), String> {
        self.end_counters(None);
        self.enforcing = false;
        self.table_known = false;
        self.detail = format!("sealed: {why}");
        let stopped = host::stop_forwarding();
        self.tell_resolver(None);
        let config = &self.shared.config;
        let mut pinner = self.shared.pinner.lock().await;
        let sealed = nft::seal(&config.programs.nft, &config.sealed_ruleset).await;
        pinner.judge_by(None);
        drop(pinner);
        self.shared.put_in_force(None);
        if let Some(good) = &self.last_good
            && let Err(error) = self.note_applied(good, false)
        {
            tracing::error!("{error}");
        }
        stopped.map_err(|error| error.to_string())?;
        sealed.map_err(|error| error.to_string())
    }

    /// Takes over what the process before this one put into the kernel.
    pub(super) async fn adopt(&mut self, applied: &Applied) -> Result<(), String> {
        let candidate = Candidate::read(applied.file.clone()).await?;
        if *candidate.digest != *applied.digest {
            return Err(format!(
                "{} is not the revision {} any more that the kernel enforces",
                applied.file.display(),
                applied.revision
            ));
        }
        let moment = Moment {
            now: applied.now,
            trusted: applied.clock_trusted,
        };
        let shared = Arc::clone(&self.shared);
        let mut pinner = shared.pinner.lock().await;
        let carry = self
            .carry(&candidate, &pinner, moment)
            .map_err(|error| error.to_string())?;
        let plan = candidate.plan(moment, applied.generation, &carry);
        pinner.judge_by(Some(Judge {
            index: Arc::clone(&candidate.index),
            moment,
        }));
        drop(pinner);
        let over_cap = self.shared.over_cap().clone();
        let blocked = self.shared.blocked().clone();
        let places = self.shared.config.places();
        let front = candidate.front(moment, &over_cap, &blocked, &places);
        if haproxy::mark(&places)
            .await
            .is_ok_and(|mark| mark == front.mark)
        {
            self.front.running = Some(front);
        } else {
            // Caps may have filled since; what haproxy has by now is of this revision in any case.
            self.front.due = true;
        }
        let logging = &candidate.revision.logging;
        self.shared
            .deny_log()
            .configure(logging.deny_log, &logging.facility);
        self.enforcing = true;
        self.detail = format!("revision {} is enforced", applied.revision);
        let good = Arc::new(InForce {
            file: candidate.file,
            digest: candidate.digest,
            revision: candidate.revision,
            index: candidate.index,
            plan,
            moment,
        });
        self.shared.put_in_force(Some(Arc::clone(&good)));
        self.tell_resolver(Some((good.revision.number, good.file.clone())));
        self.last_good = Some(good);
        tracing::info!(
            "took over revision {}, generation {}",
            applied.revision,
            applied.generation
        );
        Ok(())
    }
}
