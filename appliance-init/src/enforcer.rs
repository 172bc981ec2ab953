//! What the boot and the watch have to say to the enforcer: how it is, and that all is well again.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clawgress_link::control::{self, Reply, Request, Status};

use crate::paths::Paths;

/// How the line of a box ends whose revision is in force.
pub(crate) const IN_FORCE: &str = "is in force";
/// The line of a box without a revision.
pub(crate) const NO_POLICY: &str = "no policy is committed: sealed";

pub(crate) async fn status(paths: &Paths, deadline: Duration) -> Result<Status> {
    match ask(paths, &Request::Status, deadline).await? {
        Reply::Status(status) => Ok(*status),
        other => bail!("asked for its status the enforcer said {other:?}"),
    }
}

/// Has the last good revision put into force again, after the box had to be sealed. None: nothing was ever committed.
pub(crate) async fn resume(paths: &Paths, deadline: Duration) -> Result<Option<String>> {
    match ask(paths, &Request::Resume, deadline).await? {
        Reply::Report(report) if report.ok => {
            Ok(Some(format!("revision {} {IN_FORCE}", report.revision)))
        }
        Reply::Report(report) => {
            let failed = report.stages.iter().find(|stage| !stage.ok);
            let why = failed.map_or_else(
                || "no stage says why".to_owned(),
                |stage| format!("{}: {}", stage.name, stage.detail),
            );
            bail!(
                "revision {} could not be put into force again: {why}",
                report.revision
            )
        }
        Reply::Status(_) => Ok(None),
        other => bail!("told to resume the enforcer said {other:?}"),
    }
}

async fn ask(paths: &Paths, request: &Request, deadline: Duration) -> Result<Reply> {
    // The error holds its cause already.
    control::ask(&paths.enforcer_socket(), request, deadline)
        .await
        .map_err(|error| anyhow!("{error}"))
}
