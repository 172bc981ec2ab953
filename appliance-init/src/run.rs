//! The boot from seal to watch: what is done in which order, and what is tried again.
//!
//! Whatever fails, the box is sealed. Nothing in here opens it: a committed revision is put into force by the enforcer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clawgress_link::{ruleset, service::Stop, units};
use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::board::Board;
use crate::boot_config::{self, BootConfig};
use crate::certificate::Holder;
use crate::clock::since_boot_ms;
use crate::consoles::{self, Consoles};
use crate::daemons::{Daemon, ORDER, Patience};
use crate::going::Going;
use crate::machine::Machine;
use crate::network::{self, Plan};
use crate::paths::Paths;
use crate::release::Release;
use crate::{bus, certificate, enforcer, guard, reload, seal, server, services};

/// Between two looks at the daemons: as long as agents may go on after one of them has gone.
const WATCH: Duration = Duration::from_secs(1);
/// Every how many looks each daemon must prove itself again.
const PROOF_EVERY: u32 = 30;
/// Every how many looks their restarts are counted. One that stays away for a look is missed at that look.
const COUNT_EVERY: u32 = 5;
/// For putting a revision into force again.
const RESUME: Duration = Duration::from_secs(120);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs until systemd says stop; the seal stays loaded.
pub(crate) async fn run(paths: Paths) -> Result<()> {
    let mut stop = Stop::listen().context("listening for the signal to stop")?;
    std::fs::create_dir_all(paths.run())
        .with_context(|| format!("creating {}", paths.run().display()))?;
    consoles::prepare(&paths);
    tokio::spawn(watchdog());
    let socket = paths.socket();
    tokio::select! {
        () = stop.requested() => {}
        never = boot(paths) => match never {},
    }
    notify(&[NotifyState::Stopping]);
    let _ = std::fs::remove_file(socket);
    Ok(())
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        eprintln!("telling systemd: {error}");
    }
}

/// Proves that the runtime still turns; a hanging one is replaced by systemd.
async fn watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else {
        return;
    };
    loop {
        notify(&[NotifyState::Watchdog]);
        sleep(period / 3).await;
    }
}

async fn boot(paths: Paths) -> std::convert::Infallible {
    // A second run of this boot: networkd runs already, on what the first one rendered.
    let again = paths.started().exists();
    if let Err(error) = std::fs::write(paths.started(), "") {
        eprintln!("writing {}: {error}", paths.started().display());
    }
    let release = Release::read(&paths);
    let board = Arc::new(Board::new(&paths, &release, Consoles::open(&paths)));
    board
        .step("seal", seal::close_unless_enforcing(&paths, again))
        .await;
    tokio::spawn(guard::watch(paths.clone(), Arc::clone(&board)));

    let started = since_boot_ms();
    let config = boot_config::read(&paths).await;
    board.configured(
        &config.system.host_name,
        &config.plan.cards,
        config.volume_missed,
    );
    board.config_error(config.error.clone());
    let read = match &config.error {
        None => Ok(config.source.clone()),
        Some(error) => Err(anyhow!(
            "{}",
            error.lines().take(2).collect::<Vec<_>>().join(" ")
        )),
    };
    board.record("config", started, read);
    board.warn(config.warnings.iter().cloned());
    board.warn(network::apply_system(&paths, &config.system));
    board.warn(Machine::measure(&paths).warnings());

    let mut keeper = Keeper {
        certificate: None,
        bus: None,
        reload_network: again,
        restarts: HashMap::new(),
        misses: HashMap::new(),
        looks: 0,
        volume_missed: config.volume_missed,
        services_begun: false,
        going: Going::default(),
        paths,
        board,
        release,
        config,
    };
    keeper.network().await;
    keeper.begin_certificate();
    match server::listen(&keeper.paths, &keeper.paths.socket()) {
        Ok(listener) => drop(tokio::spawn(server::serve(keeper.paths.clone(), listener))),
        Err(error) => keeper.board.warn([format!("{error:#}")]),
    }
    match server::listen(&keeper.paths, &keeper.paths.reload_socket()) {
        Ok(listener) => drop(tokio::spawn(reload::serve(keeper.paths.clone(), listener))),
        Err(error) => keeper.board.warn([format!("{error:#}")]),
    }
    notify(&[
        NotifyState::Ready,
        NotifyState::Status("sealed, starting enforcement"),
    ]);
    Box::pin(keeper.keep()).await
}

struct Keeper {
    paths: Paths,
    board: Arc<Board>,
    release: Release,
    config: BootConfig,
    /// Made while other daemons start; haproxy alone waits for it.
    certificate: Option<JoinHandle<Result<String>>>,
    bus: Option<zbus::Connection>,
    /// networkd may have started on files that have changed since.
    reload_network: bool,
    restarts: HashMap<&'static str, u32>,
    /// For how many looks in a row a daemon has been away.
    misses: HashMap<&'static str, u32>,
    looks: u32,
    volume_missed: bool,
    services_begun: bool,
    going: Going,
}

impl Keeper {
    async fn keep(mut self) -> std::convert::Infallible {
        let mut pause = Duration::from_secs(1);
        let mut patience = Patience::Boot;
        loop {
            let whole = self.advance(patience).await;
            if whole {
                self.resume().await;
                self.begin_services();
            }
            self.board.refresh_addresses();
            patience = Patience::Watch;
            let status = if whole {
                "every daemon proves itself"
            } else {
                "sealed; a step failed, trying again"
            };
            notify(&[NotifyState::Status(status)]);
            pause = if whole {
                Duration::from_secs(1)
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            sleep(if whole { WATCH } else { pause }).await;
            if whole {
                self.watch_daemons().await;
            }
            while self.going.was_down() && self.going.is_down(self.bus.as_ref()).await {
                // Until systemd says stop, or has changed its mind.
                sleep(5 * WATCH).await;
            }
            self.late_volume().await;
        }
    }

    /// Attempts, in order, every step that has not succeeded; stops at the first that does not now.
    async fn advance(&mut self, patience: Patience) -> bool {
        if !self.board.is_ok("seal") && !self.board.step("seal", seal::close(&self.paths)).await {
            // Renders every card down, and tells networkd.
            self.network().await;
            self.bus().await;
            return false;
        }
        if !self.board.is_ok("network") && !self.network().await {
            return false;
        }
        if !self.bus().await {
            return false;
        }
        for daemon in ORDER {
            if self.board.is_ok(daemon.step) {
                continue;
            }
            // The banner that the last step brings up shows what the cards have got by then.
            self.board.refresh_addresses();
            if !self.daemon(daemon, patience).await {
                return false;
            }
        }
        true
    }

    /// Renders the plan, or, on a box that could not be sealed, one that holds every card down.
    async fn network(&mut self) -> bool {
        let sealed = self.board.is_ok("seal");
        let (paths, plan) = (&self.paths, &self.config.plan);
        let work = async {
            if sealed {
                return network::apply(paths, plan);
            }
            network::apply(paths, &Plan::default())?;
            Err(anyhow!("every card is held down until the box is sealed"))
        };
        self.reload_network |= self.board.is_ok("bus") || !sealed;
        self.board.step("network", work).await
    }

    async fn bus(&mut self) -> bool {
        if self.bus.is_none() {
            let started = since_boot_ms();
            let outcome = bus::connect().await;
            let recorded = outcome
                .as_ref()
                .map(|_| "connected".to_owned())
                .map_err(|error| anyhow!("{error:#}"));
            self.bus = outcome.ok();
            if !self.board.record("bus", started, recorded) {
                return false;
            }
        }
        if let Some(bus) = &self.bus
            && self.reload_network
        {
            match bus::reload_network(bus).await {
                Ok(()) => self.reload_network = false,
                Err(error) => eprintln!("{error:#}"),
            }
        }
        self.bus.is_some()
    }

    async fn daemon(&mut self, daemon: Daemon, patience: Patience) -> bool {
        let Some(bus) = self.bus.clone() else {
            return false;
        };
        let paths = self.paths.clone();
        let certificate = (daemon.step == "haproxy").then(|| self.take_certificate());
        let again = patience == Patience::Watch;
        let work = async move {
            if let Some(certificate) = certificate {
                certificate
                    .await
                    .context("making the front's certificate")??;
            }
            if again && daemon.step == "nftables" {
                // Its unit stays active whatever happens to the ruleset, so starting it would load nothing.
                seal::load(&paths).await?;
            }
            Box::pin(daemon.start(&bus, &paths, patience)).await
        };
        self.board.step(daemon.step, work).await
    }

    /// Once, and not before the box enforces: nothing of theirs is needed for that.
    fn begin_services(&mut self) {
        if std::mem::replace(&mut self.services_begun, true) {
            return;
        }
        let (paths, name, built) = (
            self.paths.clone(),
            self.config.system.host_name.clone(),
            self.release.built,
        );
        let board = Arc::clone(&self.board);
        tokio::spawn(async move {
            let made = {
                let paths = paths.clone();
                tokio::task::spawn_blocking(move || {
                    certificate::ensure(&paths, Holder::Gateway, &name, built)
                })
            };
            if let Ok(Err(error)) = made.await {
                board.warn([format!("making the gateway's certificate: {error:#}")]);
            }
            services::keep(paths, board).await;
        });
    }

    fn begin_certificate(&mut self) {
        self.certificate = Some(self.make_certificate());
    }

    fn make_certificate(&self) -> JoinHandle<Result<String>> {
        let (paths, name, built) = (
            self.paths.clone(),
            self.config.system.host_name.clone(),
            self.release.built,
        );
        tokio::task::spawn_blocking(move || {
            certificate::ensure(&paths, Holder::Front, &name, built)
        })
    }

    fn take_certificate(&mut self) -> JoinHandle<Result<String>> {
        self.certificate
            .take()
            .unwrap_or_else(|| self.make_certificate())
    }

    /// What is not up, or cannot prove itself any more, loses its step; `advance` then wins it back.
    async fn watch_daemons(&mut self) {
        if self.going.is_down(self.bus.as_ref()).await {
            return;
        }
        self.looks += 1;
        let prove_all = self.looks.is_multiple_of(PROOF_EVERY);
        let states = self.states().await;
        if self.going.was_down() {
            return;
        }
        for (at, daemon) in ORDER.into_iter().enumerate() {
            let started = since_boot_ms();
            let must_prove = match states.as_ref().and_then(|states| states.get(at)) {
                Some(state) if !state.is_up() => {
                    let misses = self.misses.entry(daemon.step).or_default();
                    *misses += 1;
                    if *misses > daemon.grace {
                        let lost = anyhow!("{} is {state}", daemon.unit);
                        self.lost(daemon.step, started, lost).await;
                    }
                    continue;
                }
                Some(_) => self.has_restarted(daemon).await,
                // Without the bus the daemons themselves are all there is to ask.
                None => true,
            };
            self.misses.remove(daemon.step);
            let asked = must_prove || prove_all;
            // What is in force changes without any daemon going away: the console says what is so now.
            if !asked && daemon.step != "enforcer" {
                continue;
            }
            match Box::pin(daemon.prove(&self.paths)).await {
                Ok(detail) if daemon.step == "enforcer" => {
                    self.board.record(daemon.step, started, Ok(detail));
                }
                Err(error) if asked => self.lost(daemon.step, started, error).await,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Died and came back between two looks: up, but not yet known to work.
    async fn has_restarted(&mut self, daemon: Daemon) -> bool {
        if !self.looks.is_multiple_of(COUNT_EVERY) {
            return false;
        }
        let Some(bus) = &self.bus else {
            return false;
        };
        match units::state(bus, daemon.unit).await {
            Ok(state) => self
                .restarts
                .insert(daemon.step, state.restarts)
                .is_some_and(|before| before != state.restarts),
            Err(_) => false,
        }
    }

    /// A daemon of enforcement is missing: the box is sealed first, and whatever else is to be done comes after.
    async fn lost(&mut self, step: &'static str, started: u64, error: anyhow::Error) {
        // It may have begun to stop since this look at the daemons began.
        if self.going.is_down(self.bus.as_ref()).await {
            return;
        }
        if let Err(error) = seal::close(&self.paths).await {
            self.board.record("seal", started, Err(error));
        }
        self.board.record(step, started, Err(error));
    }

    /// With every daemon well, a box that stands sealed though a revision is committed goes back to that revision.
    async fn resume(&mut self) {
        let now = ruleset::generation().await;
        if now != Ok(Some(ruleset::SEALED)) {
            return;
        }
        let started = since_boot_ms();
        match enforcer::resume(&self.paths, RESUME).await {
            // Nothing is committed: sealed is what this box is to be.
            Ok(None) => {}
            Ok(Some(detail)) => {
                self.board.record("enforcer", started, Ok(detail));
            }
            Err(error) => {
                self.board.record("enforcer", started, Err(error));
            }
        }
    }

    /// What systemd says of every daemon; a bus that does not answer is given up and connected to anew.
    async fn states(&mut self) -> Option<Vec<units::UnitState>> {
        let started = since_boot_ms();
        match units::states(self.bus.as_ref()?, &ORDER.map(|daemon| daemon.unit)).await {
            Ok(states) => Some(states),
            Err(error) => {
                self.bus = None;
                if !self.going.is_down(None).await {
                    self.board.record("bus", started, Err(anyhow!("{error}")));
                }
                None
            }
        }
    }

    /// A volume that was too slow for this boot is not used, but nobody should have to wonder why.
    async fn late_volume(&mut self) {
        if std::mem::take(&mut self.volume_missed)
            && boot_config::volume_appeared(&self.paths).await
        {
            let text =
                "a CLAWGRESS-CFG volume turned up after the boot config was read; reboot to use it";
            self.board.warn([text.to_owned()]);
        }
    }
}
