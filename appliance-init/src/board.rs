//! The one place that changes the boot report. Every change is at once in boot.json, in the banner and on the consoles.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use clawgress_config::Ethernet;
use clawgress_link::terminal;

use crate::atomic;
use crate::banner::{Card, Facts, banner};
use crate::clock::since_boot_ms;
use crate::consoles::Consoles;
use crate::machine;
use crate::paths::Paths;
use crate::release::Release;
use crate::report::{Report, STEPS, State, Step};

#[derive(Debug)]
pub(crate) struct Board {
    paths: Paths,
    consoles: Consoles,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    report: Report,
    facts: Facts,
}

impl Board {
    pub(crate) fn new(paths: &Paths, release: &Release, consoles: Consoles) -> Self {
        let report = Report::new(release.version.clone(), release.base.clone());
        let facts = Facts {
            live: machine::is_live(paths),
            ..Facts::default()
        };
        let board = Self {
            paths: paths.clone(),
            consoles,
            inner: Mutex::new(Inner { report, facts }),
        };
        board.publish(&board.lock());
        board
    }

    /// A panic elsewhere must not silence the report.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes both files; a full /run is worth a line in the journal, not the end of the boot.
    fn publish(&self, inner: &Inner) {
        let json = serde_json::to_vec(&inner.report).unwrap_or_default();
        // The banner first: who reads in the report that the boot has ended shows the banner next.
        let shown = if inner.report.state == State::Starting {
            let _ = std::fs::remove_file(self.paths.banner());
            Ok(())
        } else {
            let text = banner(&inner.report, &inner.facts);
            atomic::write(&self.paths.banner(), text.as_bytes(), 0o644, None)
        };
        let written = shown.and(atomic::write(&self.paths.report(), &json, 0o644, None));
        if let Err(error) = written {
            eprintln!("publishing the boot report: {error:#}");
        }
    }

    /// Runs one step, records how it ended and says so.
    pub(crate) async fn step(
        &self,
        name: &str,
        work: impl Future<Output = Result<String>>,
    ) -> bool {
        let started_ms = since_boot_ms();
        let outcome = work.await;
        self.record(name, started_ms, outcome)
    }

    /// Records a step that began at `started_ms` and has ended now. Returns whether it ended well.
    pub(crate) fn record(&self, name: &str, started_ms: u64, outcome: Result<String>) -> bool {
        let ok = outcome.is_ok();
        let detail = outcome.unwrap_or_else(|error| format!("{error:#}"));
        let took_ms = since_boot_ms().saturating_sub(started_ms);
        let step = Step {
            name: name.to_owned(),
            started_ms,
            took_ms,
            ok,
            detail,
        };
        let line = step.line();
        let mut inner = self.lock();
        let before = inner.report.state;
        if !inner.report.record(step) {
            return ok;
        }
        eprintln!("{}", terminal::lines(&line));
        self.consoles.line(&line);
        self.publish(&inner);
        let state = inner.report.state;
        if state != before && state != State::Starting {
            self.consoles.banner(&banner(&inner.report, &inner.facts));
            // The first news is the banner itself, which every login shows.
            if before != State::Starting {
                let why: Vec<_> = inner
                    .report
                    .broken()
                    .map(|step| step.name.as_str())
                    // The services around the gateway open and seal nothing.
                    .filter(|name| STEPS.contains(name))
                    .collect();
                let why = if why.is_empty() {
                    String::new()
                } else {
                    format!(": {}", why.join(", "))
                };
                self.consoles
                    .notice(&format!("clawgress: the box is now {}{why}", state.word()));
            }
        }
        ok
    }

    pub(crate) fn is_ok(&self, name: &str) -> bool {
        self.lock().report.is_ok(name)
    }

    /// True once the step has been attempted.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lock().report.step(name).is_some()
    }

    pub(crate) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        let mut inner = self.lock();
        for warning in warnings {
            if !inner.report.warnings.contains(&warning) {
                eprintln!("warning: {}", terminal::line(&warning));
                inner.report.warnings.push(warning);
            }
        }
        self.publish(&inner);
    }

    pub(crate) fn config_error(&self, error: Option<String>) {
        let mut inner = self.lock();
        if let Some(error) = &error {
            eprintln!("the configuration is wrong: {}", terminal::lines(error));
        }
        inner.report.config_error = error;
        self.publish(&inner);
    }

    /// What the boot config said about name and cards.
    pub(crate) fn configured(&self, host_name: &str, cards: &[Ethernet], unconfigured: bool) {
        let mut inner = self.lock();
        host_name.clone_into(&mut inner.facts.host_name);
        inner.facts.unconfigured = unconfigured;
        inner.facts.cards = cards
            .iter()
            .map(|card| {
                let roles: Vec<_> = card.roles.iter().map(|role| role.word()).collect();
                Card {
                    name: card.name.clone(),
                    roles: roles.join("+"),
                    addresses: Vec::new(),
                    waits_for_dhcp: card.uses_dhcp(),
                }
            })
            .collect();
        drop(inner);
        self.refresh_addresses();
    }

    /// Looks at the cards again; what has changed is shown.
    pub(crate) fn refresh_addresses(&self) {
        let mut now = machine::addresses();
        let mut inner = self.lock();
        let mut changed = false;
        for card in &mut inner.facts.cards {
            let addresses = now.remove(&card.name).unwrap_or_default();
            if addresses != card.addresses {
                card.addresses = addresses;
                changed = true;
                let line = format!(
                    "clawgress: {} ({}): {}",
                    card.name,
                    card.roles,
                    card.shown()
                );
                eprintln!("{}", terminal::lines(&line));
                self.consoles.line(&line);
            }
        }
        if changed {
            self.publish(&inner);
        }
    }
}
