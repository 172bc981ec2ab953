//! The report of an application, written while it goes: each stage with its time and what came of it.

use std::time::{Duration, Instant};

use clawgress_link::control::{Report, Stage};

#[derive(Debug)]
pub struct Stages {
    revision: u64,
    stages: Vec<Stage>,
}

/// A stage failed; what went wrong is in the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

impl Stages {
    pub fn of(revision: u64) -> Self {
        Self {
            revision,
            stages: Vec::new(),
        }
    }

    pub fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// Notes how a stage that began then has ended.
    pub fn note<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        begun: Instant,
        outcome: Result<(T, String), E>,
    ) -> Result<T, Failed> {
        self.note_took(name, begun.elapsed(), outcome)
    }

    /// Notes how a stage has ended that took so long.
    pub fn note_took<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        took: Duration,
        outcome: Result<(T, String), E>,
    ) -> Result<T, Failed> {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let mut push = |ok, detail| {
            self.stages.push(Stage {
                name: name.to_owned(),
                ok,
                took_ms,
                detail,
            });
        };
        match outcome {
            Ok((value, detail)) => {
                push(true, detail);
                Ok(value)
            }
            Err(error) => {
                push(false, error.to_string());
                Err(Failed)
            }
        }
    }

    pub fn report(self, applied: bool) -> Report {
        Report {
            revision: self.revision,
            ok: self.stages.iter().all(|stage| stage.ok),
            applied,
            stages: self.stages,
        }
    }

    /// What went wrong first.
    pub fn complaint(&self) -> Option<String> {
        let broken = self.stages.iter().find(|stage| !stage.ok)?;
        Some(format!("{}: {}", broken.name, broken.detail))
    }
}
