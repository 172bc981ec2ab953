//! From a candidate to a revision in force, or back.
//!
//! The order never opens a gap. A flow needs the kernel's leave and, if it goes by a name, the resolver's: clawgress-dns
//! decides per host, the kernel takes only pins of the revision in force. So named and haproxy, which stand behind
//! these two, go first: what they close is closed early, what they open leads nowhere yet. Then the kernel, which closes
//! and opens in one step; with it the judge of pins is exchanged, so that from then on the old resolver gets no pin. Then
//! the resolver loads the revision, and only then names that are new resolve. Forwarding comes last.
//!
//! Whatever fails on the way leads back to the last good plan, under a new generation, or to the seal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clawgress_policy::Moment;
use tokio::time::{sleep, timeout};

use super::applied::Applied;
use super::candidate::{Candidate, check_haproxy, check_named, check_nft};
use super::clock::until_next_second;
use super::keeper::{AFTER_SECOND, Keeper};
use super::shared::InForce;
use super::steps;
use crate::apply::stages::{Failed, Stages};
use crate::apply::{exchange, haproxy, host, marker, nft};
use crate::pins::Judge;
use crate::plan::{Marker, NamedConf, Plan, Touched};

/// For what has to be answered at once.
const NOW: Duration = Duration::from_secs(2);

type Done = Result<(), Failed>;

/// With how long it took.
async fn timed<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let begun = Instant::now();
    let done = work.await;
    (begun.elapsed(), done)
}

impl Keeper {
    /// The whole way. `rising`: only a higher number than any before is taken. True if the revision is in force now.
    pub(super) async fn enforce_file(
        &mut self,
        file: PathBuf,
        rising: bool,
        stages: &mut Stages,
    ) -> bool {
        let Ok(candidate) = self.compile(file, rising, stages).await else {
            return false;
        };
        if !candidate.revision.enabled {
            return self.disable(&candidate, stages).await;
        }
        self.prepare_resolver(Some((candidate.revision.number, candidate.file.clone())));
        let in_force = self.enforce(&candidate, stages).await;
        self.prepare_resolver(None);
        in_force
    }

    async fn enforce(&mut self, candidate: &Candidate, stages: &mut Stages) -> bool {
        let Ok(named) = self.dry_check(candidate, false, stages).await else {
            return false;
        };
        let before = (self.last_good.clone(), self.enforcing);
        if self.bring_about(candidate, named, stages).await.is_ok() {
            return true;
        }
        self.go_back(before, stages).await;
        false
    }

    pub(super) async fn compile(
        &mut self,
        file: PathBuf,
        rising: bool,
        stages: &mut Stages,
    ) -> Result<Candidate, Failed> {
        let begun = Instant::now();
        let highest = self.highest;
        let reading = self.meanwhile(Candidate::read(file)).await;
        let compiled = reading.and_then(|candidate| {
            let number = candidate.revision.number;
            stages.set_revision(number);
            if rising && number <= highest {
                return Err(format!(
                    "revision {number} is not higher than {highest}, which was in force: numbers only rise; commit the old content anew"
                ));
            }
            let told = format!(
                "{} principals, {} names",
                candidate.index.principals().len(),
                candidate.zones.names
            );
            Ok((candidate, told))
        });
        stages.note("compile", begun, compiled)
    }

    /// Every part is tried before any is changed. What is well is told only if `told`: an application tells it later.
    /// named's configuration, which depends on no moment, is returned.
    pub(super) async fn dry_check(
        &mut self,
        candidate: &Candidate,
        told: bool,
        stages: &mut Stages,
    ) -> Result<NamedConf, Failed> {
        let begun = Instant::now();
        let moment = self.clock.moment(candidate.revision.trust_hardware_clock);
        let carry = {
            let shared = Arc::clone(&self.shared);
            let pinner = shared.pinner.lock().await;
            self.carry(candidate, &pinner, moment)
                .map(|carry| (carry, pinner.touched().clone()))
        };
        let (carry, touched) = match carry {
            Ok(carried) => carried,
            Err(error) => {
                let failed: Result<(NamedConf, String), _> = Err(error);
                return stages.note("nft", begun, failed);
            }
        };
        let before = self.last_good.clone().filter(|_| self.enforcing);
        // What is told to nobody here: compared with what is in force, it must not differ in its number alone.
        let generation = before.as_ref().map_or(1, |before| before.plan.generation);
        let plan = candidate.plan(moment, generation, &carry);
        let known = before.as_ref().filter(|_| self.table_known);
        let transaction = known
            .is_none_or(|before| !plan.says_the_same(&before.plan))
            .then(|| self.transaction(&plan, &touched));
        let conf = plan.named.clone();
        let running = self.front.running.clone();
        let (shared, candidate) = (Arc::clone(&self.shared), candidate.clone());
        let checking = async move {
            let config = &shared.config;
            let before = before.as_ref().map(|before| &before.plan);
            let checked = tokio::join!(
                timed(check_nft(config, transaction.as_deref())),
                timed(check_named(config, &plan, before)),
                timed(check_haproxy(&shared, &candidate, moment, running.as_ref())),
            );
            Ok(checked)
        };
        let (nft, named, haproxy) = match self.meanwhile(checking).await {
            Ok(checked) => checked,
            Err(error) => {
                let failed: Result<(NamedConf, String), _> = Err(error);
                return stages.note("nft", begun, failed);
            }
        };
        let mut well = Ok(());
        for (name, (took, outcome)) in [("nft", nft), ("named", named), ("haproxy", haproxy)] {
            if told || outcome.is_err() {
                let noted = stages.note_took(name, took, outcome.map(|detail| ((), detail)));
                well = well.and(noted);
            }
        }
        well.map(|()| conf)
    }

    async fn bring_about(
        &mut self,
        candidate: &Candidate,
        named: NamedConf,
        stages: &mut Stages,
    ) -> Done {
        let begun = Instant::now();
        let before = self.last_good.clone().filter(|_| self.enforcing);
        let served = self.serve_names(candidate, named, before).await;
        let markers = stages.note("named", begun, served)?;

        let begun = Instant::now();
        let moment = self.clock.moment(candidate.revision.trust_hardware_clock);
        let served = self.serve_front_patiently(candidate, moment).await;
        stages.note("haproxy", begun, served.map(|detail| ((), detail)))?;

        let begun = Instant::now();
        let loaded = self.exchange_kernel(candidate, moment).await;
        let told = loaded.map(|()| ((), format!("generation {}", self.generation)));
        stages.note("nft", begun, told)?;

        let begun = Instant::now();
        let loaded = self.load_resolver(candidate).await;
        stages.note("dns", begun, loaded.map(|detail| ((), detail)))?;

        let begun = Instant::now();
        let verified = self.verify(&markers).await;
        stages.note("verify", begun, verified.map(|detail| ((), detail)))
    }

    /// Waits for something long, and goes on looking at the clock and the kernel: a window that closes meanwhile has to
    /// close. What is waited for must not touch the kernel or haproxy, or tell so (see `Front::busy`).
    pub(super) async fn meanwhile<T: Send + 'static>(
        &mut self,
        long: impl Future<Output = Result<T, String>> + Send + 'static,
    ) -> Result<T, String> {
        let mut task = tokio::spawn(long);
        loop {
            tokio::select! {
                done = &mut task => {
                    return done.unwrap_or_else(|error| Err(format!("it ended early: {error}")));
                }
                () = sleep(until_next_second() + AFTER_SECOND) => self.each_second().await,
            }
        }
    }

    /// named's part, for the names of a revision; `before` is what it serves now.
    pub(super) async fn serve_names(
        &mut self,
        candidate: &Candidate,
        named: NamedConf,
        before: Option<Arc<InForce>>,
    ) -> Result<(Vec<Marker>, String), String> {
        let zones = Arc::clone(&candidate.zones);
        let shared = Arc::clone(&self.shared);
        self.meanwhile(steps::names(shared, zones, named, before))
            .await
    }

    /// haproxy's part. Whatever a window or a cap would change of it meanwhile waits until it is done.
    pub(super) async fn serve_front_patiently(
        &mut self,
        candidate: &Candidate,
        moment: Moment,
    ) -> Result<String, String> {
        // Until haproxy says otherwise, nobody knows what it has.
        let old = self.front.running.take();
        let shared = Arc::clone(&self.shared);
        let step = steps::front(shared, candidate.clone(), moment, old, steps::PATIENT);
        self.front.busy = true;
        let served = self.meanwhile(step).await;
        self.front.busy = false;
        let (front, told) = served?;
        self.front.running = Some(front);
        Ok(told)
    }

    /// As `serve_front_patiently`, within a second or so; what could not be done is tried again each second.
    pub(super) async fn serve_front_now(&mut self, candidate: &Candidate, moment: Moment) {
        self.front.due = true;
        if self.front.busy {
            return;
        }
        let old = self.front.running.take();
        let shared = Arc::clone(&self.shared);
        match steps::front(shared, candidate.clone(), moment, old, NOW).await {
            Ok((front, _)) => {
                self.front.running = Some(front);
                self.front.due = false;
            }
            Err(error) => tracing::error!("telling haproxy of a change: {error}; trying again"),
        }
    }

    /// The kernel, and with it all that goes by the plan in force.
    pub(super) async fn exchange_kernel(
        &mut self,
        candidate: &Candidate,
        moment: Moment,
    ) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let mut pinner = shared.pinner.lock().await;
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let carry = self
            .carry(candidate, &pinner, moment)
            .map_err(|error| text(&error))?;
        let plan = candidate.plan(moment, self.next_generation(), &carry);
        host::set(&plan.host.before).map_err(|error| text(&error))?;
        let programs = &shared.config.programs;
        if self.host.as_ref() != Some(&plan.host) {
            host::routes(&programs.ip, &plan.host)
                .await
                .map_err(|error| text(&error))?;
            self.host = Some(plan.host.clone());
        }
        self.shape(&plan).await?;
        // Spent before the kernel sees it: whatever becomes of it, no other content ever gets this number.
        self.spend_generation(plan.generation)?;
        self.end_counters(Some(&plan));
        if self.exchange_sets(&plan, pinner.touched()) {
            tracing::debug!("the kernel has other sets, and the rules it had");
        } else {
            self.load_rules(&plan, pinner.touched()).await?;
        }
        pinner.filled();
        pinner.judge_by(Some(Judge {
            index: Arc::clone(&candidate.index),
            moment,
        }));
        drop(pinner);
        let new = Arc::new(InForce {
            file: candidate.file.clone(),
            digest: Arc::clone(&candidate.digest),
            revision: Arc::clone(&candidate.revision),
            index: Arc::clone(&candidate.index),
            plan,
            moment,
        });
        self.shared.put_in_force(Some(Arc::clone(&new)));
        let logging = &candidate.revision.logging;
        self.shared
            .deny_log()
            .configure(logging.deny_log, &logging.facility);
        self.last_good = Some(new);
        self.enforcing = true;
        Ok(())
    }

    /// Where the content of sets is all that differs. False: nothing was changed, and nft is to be asked.
    fn exchange_sets(&mut self, plan: &Plan, touched: &Touched) -> bool {
        let before = self.last_good.as_ref().filter(|_| self.table_known);
        let planned = before.and_then(|before| plan.exchange_after(&before.plan, touched));
        let Some(exchanges) = planned.and_then(|planned| exchange::of(&planned)) else {
            return false;
        };
        exchange::apply(&mut self.kernel, &exchanges)
            .inspect_err(|error| tracing::warn!("{error}; asking nft instead"))
            .is_ok()
    }

    async fn load_rules(&mut self, plan: &Plan, touched: &Touched) -> Result<(), String> {
        let program = self.shared.config.programs.nft.clone();
        let transaction = self.transaction(plan, touched);
        let mut loaded = nft::load(&program, &transaction).await;
        if loaded.is_err() && self.table_known {
            // The table may be another than everybody thinks.
            loaded = nft::load(&program, &plan.transaction()).await;
        }
        self.table_known = loaded.is_ok();
        loaded.map_err(|error| error.to_string())
    }

    pub(super) async fn shape(&mut self, plan: &Plan) -> Result<(), String> {
        let (before, leaf) = match &self.shaping {
            Some((before, leaf)) => (Some(before), *leaf),
            None => (None, None),
        };
        if before == Some(&plan.shaping) {
            return Ok(());
        }
        let tc = &self.shared.config.programs.tc;
        let leaf = host::shape(tc, &plan.shaping, before, leaf)
            .await
            .map_err(|error| error.to_string())?;
        self.shaping = Some((plan.shaping.clone(), leaf));
        Ok(())
    }

    pub(super) async fn load_resolver(&mut self, candidate: &Candidate) -> Result<String, String> {
        let number = candidate.revision.number;
        while self.loaded.try_recv().is_ok() {}
        self.tell_resolver(Some((number, candidate.file.clone())));
        let patience = Duration::from_secs(self.shared.config.resolver_load_seconds);
        let end = Instant::now() + patience;
        while Instant::now() < end {
            match timeout(until_next_second() + AFTER_SECOND, self.loaded.recv()).await {
                Ok(Some(loaded)) if loaded.revision == number => {
                    return match loaded.error {
                        None => Ok(format!("clawgress-dns has loaded revision {number}")),
                        Some(error) => Err(format!(
                            "clawgress-dns can't load revision {number}: {error}"
                        )),
                    };
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err("the enforcer is ending".to_owned()),
                Err(_) => self.each_second().await,
            }
        }
        Err(format!(
            "clawgress-dns did not load revision {number} within {patience:?}; is it running?"
        ))
    }

    /// Asks everybody once more, now that all of them should have it; only then is anything forwarded.
    pub(super) async fn verify(&mut self, markers: &[Marker]) -> Result<String, String> {
        let Some(new) = self.last_good.clone().filter(|_| self.enforcing) else {
            return Err("the box was sealed meanwhile".to_owned());
        };
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let present = self.kernel_generation();
        if present != Some(new.plan.generation) {
            return Err(format!(
                "the kernel has generation {present:?} instead of {}: somebody else exchanged its ruleset",
                new.plan.generation
            ));
        }
        let config = &self.shared.config;
        marker::served(config.resolver, markers, NOW)
            .await
            .map_err(|error| text(&error))?;
        if let Some(front) = &self.front.running {
            haproxy::serves(&config.places(), &front.mark, NOW)
                .await
                .map_err(|error| text(&error))?;
        }
        host::set(&new.plan.host.after).map_err(|error| text(&error))?;
        if let Err(error) = std::fs::remove_file(self.held_path())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("forgetting that the box was sealed on order: {error}");
        }
        self.highest = self.highest.max(new.revision.number);
        self.detail = format!("revision {} is enforced", new.revision.number);
        self.note_applied(&new, true)?;
        Ok("kernel, named, haproxy and clawgress-dns have it; forwarding is on".to_owned())
    }

    pub(super) fn note_applied(&self, new: &InForce, enforcing: bool) -> Result<(), String> {
        let applied = Applied {
            file: new.file.clone(),
            digest: new.digest.to_string(),
            revision: new.revision.number,
            generation: new.plan.generation,
            now: new.moment.now,
            clock_trusted: new.moment.trusted,
            enforcing,
        };
        applied
            .write(&self.applied_path())
            .map_err(|error| error.to_string())
    }

    /// The same revision at another moment: what depends on it is the kernel's sets and rules, and haproxy's maps.
    pub(super) async fn exchange(
        &mut self,
        candidate: &Candidate,
        moment: Moment,
    ) -> Result<(), String> {
        // The kernel first: it cuts, and what haproxy still lets through gets no pin any more.
        self.exchange_kernel(candidate, moment).await?;
        if let Some(new) = self.last_good.clone() {
            self.note_applied(&new, true)?;
        }
        self.tell_resolver_standing();
        self.serve_front_now(candidate, moment).await;
        Ok(())
    }
}
