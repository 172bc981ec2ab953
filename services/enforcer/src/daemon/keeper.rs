//! The loop that keeps one revision in force: takes orders one after the other, looks at the clock and at the kernel
//! each second, and compiles anew when a window opens or closes, a cap fills, or the clock jumps.
//!
//! It alone changes what is in force. What it can't bring about whole it takes back (see `enforce`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clawgress_link::control::{Report, Status};
use clawgress_link::durable;
use clawgress_policy::Moment;
use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::applied::Applied;
use super::blocked;
use super::candidate::Candidate;
use super::clock::{Clock, until_next_second};
use super::numbers::{self, Numbers};
use super::shared::{InForce, Loaded, Shared};
use crate::apply::stages::Stages;
use crate::front::Rendered;
use crate::kernel::{Socket, sets};
use crate::plan::{Blocked, HostNeeds, Leaf, Shaping, layout};

/// A little after a second begins, the clock shows it.
pub(super) const AFTER_SECOND: Duration = Duration::from_millis(1);

/// An order, and where its answer goes.
pub(super) enum Order {
    Check(PathBuf, oneshot::Sender<Report>),
    Apply(PathBuf, oneshot::Sender<Report>),
    Resume(oneshot::Sender<Report>),
    Seal(oneshot::Sender<Report>),
    /// The kill switch is to hold these and nobody else.
    Block(Blocked, oneshot::Sender<Report>),
    /// The set of used-up caps is another than before.
    CapsChanged,
}

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) kernel: Socket,
    /// Of the last plan that was made, in force or not.
    pub(super) generation: u32,
    /// The highest that was ever in force on this kernel.
    pub(super) highest: u64,
    /// The last good one; kept while the box is sealed, to be resumed.
    pub(super) last_good: Option<Arc<InForce>>,
    pub(super) enforcing: bool,
    /// Whether the kernel's table is exactly that of the last good plan, and can be changed in part.
    pub(super) table_known: bool,
    pub(super) front: Front,
    /// What this process has set beside the rules.
    pub(super) host: Option<HostNeeds>,
    pub(super) shaping: Option<(Shaping, Option<Leaf>)>,
    pub(super) numbers: Numbers,
    pub(super) loaded: mpsc::Receiver<Loaded>,
    pub(super) status: watch::Sender<Status>,
    pub(super) detail: String,
}

/// How far haproxy is.
#[derive(Default)]
pub(super) struct Front {
    /// What the running process has, if anybody knows.
    pub(super) running: Option<Rendered>,
    /// It is being told of a revision; what else it has to be told waits.
    pub(super) busy: bool,
    /// It still has to be told of something.
    pub(super) due: bool,
}

pub(super) fn sealed_status(detail: &str) -> Status {
    Status {
        revision: None,
        generation: 0,
        enforcing: false,
        detail: detail.to_owned(),
        principals: 0,
        domains: 0,
        pins: 0,
        clock_trusted: false,
        next_change: None,
        warnings: Vec::new(),
    }
}

impl Keeper {
    pub(super) fn new(
        shared: Arc<Shared>,
        clock: Clock,
        kernel: Socket,
        loaded: mpsc::Receiver<Loaded>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            numbers: Numbers::open(shared.config.run(numbers::FILE)),
            shared,
            clock,
            kernel,
            generation: 0,
            highest: 0,
            last_good: None,
            enforcing: false,
            table_known: false,
            front: Front::default(),
            host: None,
            shaping: None,
            loaded,
            status,
            detail: String::new(),
        }
    }

    /// Serves orders for ever. `begun` is told when the first state is reached, whichever it is.
    pub(super) async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        begun: oneshot::Sender<()>,
    ) {
        self.begin().await;
        self.tell_status().await;
        // Nobody waits for it any more while the process ends.
        let _ = begun.send(());
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                () = sleep(until_next_second() + AFTER_SECOND) => self.each_second().await,
            }
            self.tell_status().await;
        }
    }

    async fn obey(&mut self, order: Order) {
        // Whoever asked may have gone; what was asked for is done all the same.
        match order {
            Order::Check(file, answer) => drop(answer.send(self.check(file).await)),
            Order::Apply(file, answer) => drop(answer.send(self.apply(file).await)),
            Order::Resume(answer) => drop(answer.send(self.resume().await)),
            Order::Seal(answer) => drop(answer.send(self.seal_on_order().await)),
            Order::Block(blocked, answer) => drop(answer.send(self.block(blocked).await)),
            Order::CapsChanged => self.caps_changed().await,
        }
    }

    /// A restart changes nothing: what the last process put into the kernel is taken over. A sealed kernel gets the
    /// revision that a boot begins with, if there is one.
    async fn begin(&mut self) {
        let applied = Applied::read(&self.applied_path());
        let present = self.kernel_generation();
        if let Some(applied) = &applied {
            self.generation = applied.generation;
            self.highest = applied.revision;
            if applied.enforcing && present == Some(applied.generation) {
                match self.adopt(applied).await {
                    Ok(()) => {
                        // The last process may have died between the disk and the kernel.
                        if self.shared.config.state.join(blocked::FILE).exists() {
                            self.judge_again().await;
                        }
                        return;
                    }
                    Err(why) => tracing::error!("taking over what the kernel enforces: {why}"),
                }
            }
        }
        for number in [present, self.spent_generation()].into_iter().flatten() {
            self.generation = self.generation.max(number);
        }
        if self.held_path().exists() {
            "sealed on order".clone_into(&mut self.detail);
            if present != Some(0)
                && let Err(error) = self.seal("sealed on order").await
            {
                tracing::error!("{error}");
            }
            return;
        }
        let Some(file) = self.boot_file(applied.as_ref()) else {
            "no revision was committed: the box stays sealed".clone_into(&mut self.detail);
            tracing::info!("{}", self.detail);
            if present != Some(0)
                && let Err(error) = self.seal("no revision was committed").await
            {
                tracing::error!("{error}");
            }
            return;
        };
        let mut stages = Stages::of(0);
        let applied = self.enforce_file(file, false, &mut stages).await;
        self.conclude("the boot's revision", stages, applied);
        // Whatever a dead process left half done: nobody answers for it.
        if !self.enforcing && self.kernel_generation() != Some(0) {
            let why = self.detail.trim_start_matches("sealed: ").to_owned();
            if let Err(error) = self.seal(&why).await {
                tracing::error!("{error}");
            }
        }
    }

    /// Where the revision lies that a boot begins with; a newer one that this kernel has seen goes before it.
    fn boot_file(&self, applied: Option<&Applied>) -> Option<PathBuf> {
        let config = &self.shared.config;
        let link = std::fs::canonicalize(&config.boot_revision).ok();
        let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        match (link, applied) {
            (Some(link), Some(applied)) if number(&link) < Some(applied.revision) => {
                Some(applied.file.clone())
            }
            (Some(link), _) => Some(link),
            (None, Some(applied)) => Some(applied.file.clone()),
            (None, None) => None,
        }
    }

    async fn check(&mut self, file: PathBuf) -> Report {
        let mut stages = Stages::of(0);
        let candidate = self.compile(file, true, &mut stages).await;
        if let Ok(candidate) = candidate {
            // The stages say what became of it.
            let _ = self.dry_check(&candidate, true, &mut stages).await;
        }
        stages.report(false)
    }

    async fn apply(&mut self, file: PathBuf) -> Report {
        let mut stages = Stages::of(0);
        let applied = self.enforce_file(file, true, &mut stages).await;
        self.conclude("a revision", stages, applied)
    }

    /// Enforces again what was in force, or what a boot begins with.
    async fn resume(&mut self) -> Report {
        let mut stages = Stages::of(self.highest);
        if self.enforcing && self.kernel_generation() == Some(self.generation) {
            return stages.report(true);
        }
        let file = match &self.last_good {
            Some(good) => Some(good.file.clone()),
            None => self.boot_file(Applied::read(&self.applied_path()).as_ref()),
        };
        let Some(file) = file else {
            "no revision was committed: the box stays sealed".clone_into(&mut self.detail);
            return stages.report(false);
        };
        let applied = self.enforce_file(file, false, &mut stages).await;
        self.conclude("the revision again", stages, applied)
    }

    async fn seal_on_order(&mut self) -> Report {
        let mut stages = Stages::of(self.highest);
        let begun = std::time::Instant::now();
        // Before anything else: a restart must not undo it.
        let held = durable::replace(&self.held_path(), b"");
        let sealed = self.seal("on order").await;
        let sealed = sealed.and(held.map_err(|error| error.to_string()));
        let told = sealed.map(|()| ((), "all chains drop, forwarding is off".to_owned()));
        let done = stages.note("nft", begun, told).is_ok();
        stages.report(done)
    }

    /// On disk first, so that no restart forgets it; then in force, for live flows, too.
    async fn block(&mut self, blocked: Blocked) -> Report {
        let mut stages = Stages::of(self.highest);
        let begun = std::time::Instant::now();
        let kept = blocked::write(&self.shared.config.state, &blocked);
        let held = if blocked.all {
            "everybody is held".to_owned()
        } else {
            format!("{} agents are held", blocked.agents.len())
        };
        let changed = *self.shared.blocked() != blocked;
        *self.shared.blocked() = blocked;
        // Also where the disk failed: whoever asked wants nobody to go on now, and is told.
        if changed {
            self.judge_again().await;
        }
        let done = stages.note("blocked", begun, kept.map(|()| ((), held)));
        stages.report(done.is_ok())
    }

    /// By what else than the moment has changed.
    async fn judge_again(&mut self) {
        match self.last_good.clone().filter(|_| self.enforcing) {
            Some(good) => {
                let moment = self.clock.moment(good.revision.trust_hardware_clock);
                self.renew(&good, moment).await;
            }
            None => self.tell_resolver_standing(),
        }
    }

    fn conclude(&mut self, what: &str, stages: Stages, applied: bool) -> Report {
        match stages.complaint() {
            None => tracing::info!("{what} is in force, generation {}", self.generation),
            Some(why) => {
                tracing::error!("{what} was not put into force: {why}");
                if !self.enforcing {
                    self.detail = format!("sealed: {why}");
                }
            }
        }
        stages.report(applied)
    }

    pub(super) async fn each_second(&mut self) {
        // Nobody else closes a window: if this stops to turn, systemd starts the process again.
        if sd_notify::watchdog_enabled().is_some()
            && let Err(error) = sd_notify::notify(&[NotifyState::Watchdog])
        {
            tracing::warn!("telling systemd that the keeper turns: {error}");
        }
        let jumped = self.clock.jumped();
        let Some(good) = self.last_good.clone().filter(|_| self.enforcing) else {
            return;
        };
        let moment = self.clock.moment(good.revision.trust_hardware_clock);
        if let Err(error) = self.clock.keep(moment) {
            tracing::error!("writing down the time: {error}");
        }
        if jumped {
            tracing::warn!("the clock jumped; every flow is judged again");
        }
        if self.kernel_generation() != Some(good.plan.generation) {
            self.lost().await;
            return;
        }
        let due = good.plan.next_change.is_some_and(|next| moment.now >= next);
        let trust = moment.trusted != good.moment.trusted;
        // Back before the moment of the plan: what it knows of the next change is of no use.
        let behind = moment.now < good.moment.now;
        if due || trust || jumped || behind {
            self.renew(&good, moment).await;
        } else if self.front.due {
            self.serve_front_now(&Candidate::again(&good), good.moment)
                .await;
        }
    }

    /// Somebody else exchanged the kernel's table. appliance-init seals when a daemon is not well, and says when to
    /// go on.
    async fn lost(&mut self) {
        tracing::error!(
            "the kernel no longer has the ruleset of the revision in force; waiting to be told to resume"
        );
        self.enforcing = false;
        self.table_known = false;
        "sealed by somebody else; the revision is enforced again on `Resume`"
            .clone_into(&mut self.detail);
        self.shared.pinner.lock().await.judge_by(None);
        self.shared.put_in_force(None);
        self.tell_resolver(None);
    }

    /// The same revision at another moment. What has to close must close: if the plan can't be exchanged, the box is
    /// sealed.
    async fn renew(&mut self, good: &InForce, moment: Moment) {
        let candidate = Candidate::again(good);
        if let Err(why) = self.exchange(&candidate, moment).await {
            tracing::error!("judging by another moment: {why}; once more");
            if let Err(why) = self.exchange(&candidate, moment).await {
                let why =
                    format!("the ruleset could not be exchanged when a window changed: {why}");
                tracing::error!("{why}; sealing");
                if let Err(error) = self.seal(&why).await {
                    tracing::error!("{error}");
                }
            }
        }
    }

    async fn caps_changed(&mut self) {
        self.tell_resolver_standing();
        let Some(good) = self.last_good.clone().filter(|_| self.enforcing) else {
            return;
        };
        self.serve_front_now(&Candidate::again(&good), good.moment)
            .await;
    }

    /// There while the box is sealed on order.
    pub(super) fn held_path(&self) -> PathBuf {
        self.shared.config.run("held")
    }

    pub(super) fn applied_path(&self) -> PathBuf {
        self.shared.config.run(super::applied::APPLIED)
    }

    /// What the kernel has now. None: no table of ours, or nobody can tell.
    pub(super) fn kernel_generation(&mut self) -> Option<u32> {
        match sets::only_number(&mut self.kernel, layout::TABLE, "generation") {
            Ok(generation) => generation,
            Err(error) => {
                tracing::error!("asking the kernel for its generation: {error}");
                None
            }
        }
    }

    async fn tell_status(&self) {
        let pins = self.shared.pinner.lock().await.table().len();
        let good = self.last_good.as_ref().filter(|_| self.enforcing);
        let status = match good {
            None => Status {
                pins,
                warnings: Vec::new(),
                ..sealed_status(&self.detail)
            },
            Some(good) => Status {
                revision: Some(good.revision.number),
                generation: good.plan.generation,
                enforcing: true,
                detail: self.detail.clone(),
                principals: good.index.principals().len(),
                domains: good.plan.zones.names,
                pins,
                clock_trusted: good.moment.trusted,
                next_change: good.plan.next_change,
                warnings: good.plan.warnings.clone(),
            },
        };
        self.status.send_if_modified(|known| {
            let differs = *known != status;
            *known = status;
            differs
        });
    }
}
