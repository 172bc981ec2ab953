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

use clawgress_link::reload::Daemon;
use clawgress_policy::Moment;
use tokio::time::timeout;

use super::applied::Applied;
use super::candidate::{
    Candidate, FRONT_CONFIG, check_haproxy, check_named, check_nft, front_tree, trial_places,
};
use super::keeper::Keeper;
use super::shared::InForce;
use crate::apply::stages::{Failed, Stages};
use crate::apply::{files, haproxy, host, marker, nft};
use crate::front::{Rendered, Update, difference};
use crate::pins::Judge;
use crate::plan::{Carry, Marker, Plan};

/// named and haproxy may take a while for a million names.
const SERVED: Duration = Duration::from_secs(60);

type Done = Result<(), Failed>;

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
        if self.dry_check(&candidate, false, stages).await.is_err() {
            return false;
        }
        if self.bring_about(&candidate, stages).await.is_ok() {
            return true;
        }
        self.go_back(stages).await;
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
        let compiled = Candidate::read(file).await.and_then(|candidate| {
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
    pub(super) async fn dry_check(
        &mut self,
        candidate: &Candidate,
        told: bool,
        stages: &mut Stages,
    ) -> Done {
        let begun = Instant::now();
        let moment = self.clock.moment(candidate.revision.trust_hardware_clock);
        let carry = {
            let shared = Arc::clone(&self.shared);
            let pinner = shared.pinner.lock().await;
            self.carry(candidate, &pinner, moment)
        };
        let carry = match carry {
            Ok(carry) => carry,
            Err(error) => {
                let failed: Result<((), String), _> = Err(error);
                return stages.note("nft", begun, failed);
            }
        };
        let plan = candidate.plan(moment, self.next_generation(), &carry);
        let config = &self.shared.config;
        let over_cap = self.shared.over_cap().clone();
        let front = candidate.front(moment, &over_cap, &config.places());
        let trial_places = trial_places(config);
        let trial = candidate.front(moment, &over_cap, &trial_places);
        let before = self.last_good.as_ref().filter(|_| self.enforcing);
        let transaction = self.transaction(&plan);
        let (nft, named, haproxy) = tokio::join!(
            check_nft(config, &transaction),
            check_named(config, &plan, before.map(|before| &before.plan)),
            check_haproxy(config, &front, &trial, &trial_places, self.front.as_ref()),
        );
        let mut well = Ok(());
        for (name, outcome) in [("nft", nft), ("named", named), ("haproxy", haproxy)] {
            if told || outcome.is_err() {
                let noted = stages.note(name, begun, outcome.map(|detail| ((), detail)));
                well = well.and(noted);
            }
        }
        well
    }

    async fn bring_about(&mut self, candidate: &Candidate, stages: &mut Stages) -> Done {
        let moment = self.clock.moment(candidate.revision.trust_hardware_clock);
        // For the files alone: the transaction is compiled again, when no pin can be added any more.
        let draft = candidate.plan(moment, self.next_generation(), &Carry::default());

        let begun = Instant::now();
        let served = self.serve_names(&draft).await;
        let markers = stages.note("named", begun, served)?;

        let begun = Instant::now();
        let over_cap = self.shared.over_cap().clone();
        let front = candidate.front(moment, &over_cap, &self.shared.config.places());
        let served = self.serve_front(&front).await;
        stages.note("haproxy", begun, served.map(|detail| ((), detail)))?;

        let begun = Instant::now();
        let loaded = self.exchange_kernel(candidate, moment, front).await;
        let told = loaded.map(|()| ((), format!("generation {}", self.generation)));
        stages.note("nft", begun, told)?;

        let begun = Instant::now();
        let loaded = self.load_resolver(candidate).await;
        stages.note("dns", begun, loaded.map(|detail| ((), detail)))?;

        let begun = Instant::now();
        let verified = self.verify(&markers).await;
        stages.note("verify", begun, verified.map(|detail| ((), detail)))
    }

    /// named's files and its proof that it has read them. The markers to ask for again are returned.
    pub(super) async fn serve_names(
        &mut self,
        plan: &Plan,
    ) -> Result<(Vec<Marker>, String), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let config = &self.shared.config;
        let before = self.last_good.as_ref().filter(|_| self.enforcing);
        let changed = match before {
            Some(before) => plan.zones.changed(&before.plan.zones),
            None => plan.zones.zones.iter().collect(),
        };
        let same_text = before.is_some_and(|before| before.plan.named == plan.named);
        let mut tree: files::Tree = changed
            .iter()
            .map(|zone| (format!("zones/{}", zone.file), zone.text.clone()))
            .collect();
        tree.insert("named.conf".to_owned(), plan.named.text.clone());
        let directory = config.run("");
        let placed = files::place(&directory, &tree, config.group).map_err(|error| text(&error))?;
        let markers: Vec<Marker> = changed.iter().map(|zone| zone.marker.clone()).collect();
        if !placed.is_empty() || !same_text {
            let reload = config.reload.daemon(Daemon::Named).await;
            reload.map_err(|error| text(&error))?;
        }
        marker::served(config.resolver, &markers, SERVED)
            .await
            .map_err(|error| text(&error))?;
        let names: Vec<&str> = plan
            .zones
            .zones
            .iter()
            .map(|zone| zone.file.as_str())
            .collect();
        files::keep_only(&config.run("zones"), &names).map_err(|error| text(&error))?;
        Ok((
            markers,
            format!("{} zones changed, named serves them", changed.len()),
        ))
    }

    /// The front's files, and haproxy's word that it has them.
    pub(super) async fn serve_front(&mut self, front: &Rendered) -> Result<String, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let config = &self.shared.config;
        let places = config.places();
        let tree = front_tree(front, &places.directory)?;
        let directory = std::path::Path::new(&places.directory);
        files::place(directory, &tree, config.group).map_err(|error| text(&error))?;
        let tree = files::Tree::from([(FRONT_CONFIG.to_owned(), front.config.clone())]);
        files::place(&config.run(""), &tree, config.group).map_err(|error| text(&error))?;
        let update = match &self.front {
            Some(old) => difference(old, front, &places),
            None => Update::Reload,
        };
        // Until haproxy says otherwise, nobody knows what it has.
        self.front = None;
        let told = match &update {
            Update::Nothing => "nothing changes".to_owned(),
            Update::Runtime(commands) => match haproxy::command(&places, commands).await {
                Ok(()) => format!("{} changes in the running process", commands.len()),
                Err(error) => {
                    tracing::warn!("{error}; reloading it instead");
                    self.reload_front().await?
                }
            },
            Update::Reload => self.reload_front().await?,
        };
        haproxy::serves(&places, &front.mark, SERVED)
            .await
            .map_err(|error| text(&error))?;
        self.front = Some(front.clone());
        Ok(told)
    }

    async fn reload_front(&self) -> Result<String, String> {
        let reload = self.shared.config.reload.daemon(Daemon::Haproxy).await;
        reload.map_err(|error| error.to_string())?;
        Ok("reloaded".to_owned())
    }

    /// The kernel, and with it all that goes by the plan in force.
    pub(super) async fn exchange_kernel(
        &mut self,
        candidate: &Candidate,
        moment: Moment,
        front: Rendered,
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
        host::routes(&programs.ip, &plan.host)
            .await
            .map_err(|error| text(&error))?;
        self.shape(&plan).await?;
        let partly = self.table_known;
        let mut loaded = nft::load(&programs.nft, &self.transaction(&plan)).await;
        if loaded.is_err() && partly {
            // The table may be another than everybody thinks.
            loaded = nft::load(&programs.nft, &plan.transaction()).await;
        }
        self.table_known = loaded.is_ok();
        loaded.map_err(|error| text(&error))?;
        self.generation = plan.generation;
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
            front,
            moment,
        });
        self.shared.put_in_force(Some(Arc::clone(&new)));
        let logging = &candidate.revision.logging;
        self.shared
            .deny_log()
            .configure(logging.deny_log, &logging.facility);
        self.in_progress = Some(new);
        Ok(())
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
        let answer = async {
            loop {
                match self.loaded.recv().await {
                    Some(loaded) if loaded.revision == number => return loaded.error,
                    Some(_) => {}
                    None => return Some("the enforcer is ending".to_owned()),
                }
            }
        };
        match timeout(patience, answer).await {
            Ok(None) => Ok(format!("clawgress-dns has loaded revision {number}")),
            Ok(Some(error)) => Err(format!(
                "clawgress-dns can't load revision {number}: {error}"
            )),
            Err(_) => Err(format!(
                "clawgress-dns did not load revision {number} within {patience:?}; is it running?"
            )),
        }
    }

    /// Asks everybody once more, now that all of them should have it; only then is anything forwarded.
    pub(super) async fn verify(&mut self, markers: &[Marker]) -> Result<String, String> {
        let Some(new) = self.in_progress.take() else {
            return Err("there is no plan to verify".to_owned());
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
        marker::served(config.resolver, markers, SERVED)
            .await
            .map_err(|error| text(&error))?;
        let said = haproxy::mark(&config.places()).await;
        let said = said.map_err(|error| text(&error))?;
        if said != new.front.mark {
            return Err(format!(
                "haproxy serves the state {said} instead of {}",
                new.front.mark
            ));
        }
        host::set(&new.plan.host.after).map_err(|error| text(&error))?;
        self.highest = self.highest.max(new.revision.number);
        self.enforcing = true;
        self.detail = format!("revision {} is enforced", new.revision.number);
        self.note_applied(&new, true)?;
        self.last_good = Some(new);
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
        let over_cap = self.shared.over_cap().clone();
        let front = candidate.front(moment, &over_cap, &self.shared.config.places());
        // The kernel first: it cuts, and what haproxy still lets through gets no pin any more.
        self.exchange_kernel(candidate, moment, front.clone())
            .await?;
        if let Some(new) = self.in_progress.take() {
            self.note_applied(&new, true)?;
            self.last_good = Some(new);
        }
        self.tell_resolver_standing();
        self.serve_front(&front).await?;
        Ok(())
    }

    /// haproxy's maps anew, for caps that filled or began anew.
    pub(super) async fn renew_front(&mut self, good: &InForce) -> Result<(), String> {
        let over_cap = self.shared.over_cap().clone();
        let candidate = Candidate::again(good);
        let front = candidate.front(good.moment, &over_cap, &self.shared.config.places());
        self.serve_front(&front).await?;
        Ok(())
    }
}
