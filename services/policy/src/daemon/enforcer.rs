//! The way to clawgress-enforcer: one question at a time, each with its deadline and the one kind of answer that fits.
//!
//! Takes silence for nothing but silence: whoever asked has to find out what was done.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clawgress_link::{
    ProbeError,
    control::{self, Reply, Report, Request, Status, Telemetry, Window},
};

/// A million names have to be compiled, checked by four programs and loaded.
const WORK: Duration = Duration::from_secs(150);
const LISTING: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("{0}; see journalctl -u clawgress-enforcer")]
    Silent(ProbeError),
    /// It answered, and the answer is of no use.
    #[error("{0}")]
    Refused(ProbeError),
    #[error("asking clawgress-enforcer: it answered another question than {0}")]
    Unfit(&'static str),
    #[error("{0}")]
    NotDone(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Enforcer {
    socket: PathBuf,
    /// For what needs no work.
    deadline: Duration,
}

impl Enforcer {
    pub(crate) fn new(socket: PathBuf, deadline: Duration) -> Self {
        Self { socket, deadline }
    }

    pub(crate) async fn check(&self, file: &Path) -> Result<Report, AskError> {
        let file = file.display().to_string();
        match self.ask(Request::Check { file }, WORK).await? {
            Reply::Report(report) => Ok(report),
            _ => Err(AskError::Unfit("a check")),
        }
    }

    pub(crate) async fn apply(&self, file: &Path) -> Result<Report, AskError> {
        let file = file.display().to_string();
        match self.ask(Request::Apply { file }, WORK).await? {
            Reply::Report(report) => Ok(report),
            _ => Err(AskError::Unfit("an application")),
        }
    }

    pub(crate) async fn status(&self) -> Result<Status, AskError> {
        match self.ask(Request::Status, self.deadline).await? {
            Reply::Status(status) => Ok(*status),
            _ => Err(AskError::Unfit("that for its status")),
        }
    }

    /// The kill switch, whole: nobody else is held by it.
    pub(crate) async fn block(&self, all: bool, agents: Vec<String>) -> Result<(), AskError> {
        match self.ask(Request::Block { agents, all }, LISTING).await? {
            Reply::Report(report) if report.ok => Ok(()),
            Reply::Report(report) => {
                let failed = report.stages.into_iter().find(|stage| !stage.ok);
                let why = failed.map(|stage| format!("{}: {}", stage.name, stage.detail));
                Err(AskError::NotDone(why.unwrap_or_else(|| {
                    "the enforcer names no stage that failed".to_owned()
                })))
            }
            _ => Err(AskError::Unfit("a block")),
        }
    }

    pub(crate) async fn telemetry(&self, window: Window) -> Result<Telemetry, AskError> {
        match self.ask(Request::Telemetry { window }, LISTING).await? {
            Reply::Telemetry(telemetry) => Ok(*telemetry),
            _ => Err(AskError::Unfit("that for telemetry")),
        }
    }

    pub(crate) async fn firewall(&self) -> Result<String, AskError> {
        match self.ask(Request::Firewall, LISTING).await? {
            Reply::Text { text } => Ok(text),
            _ => Err(AskError::Unfit("that for the ruleset")),
        }
    }

    pub(crate) async fn zone(&self, limit: usize) -> Result<(Vec<String>, usize), AskError> {
        match self.ask(Request::Zone { limit }, LISTING).await? {
            Reply::Zone { names, total } => Ok((names, total)),
            _ => Err(AskError::Unfit("that for the zone")),
        }
    }

    async fn ask(&self, request: Request, deadline: Duration) -> Result<Reply, AskError> {
        control::ask(&self.socket, &request, deadline)
            .await
            .map_err(|error| match error {
                ProbeError::Answer { .. } => AskError::Refused(error),
                _ => AskError::Silent(error),
            })
    }
}
