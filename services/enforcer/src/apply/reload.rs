//! Telling named and haproxy to read their files again: through appliance-init, which alone may command systemd, or by
//! a signal to the process that a file names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clawgress_link::reload::{self, Daemon};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

const DEADLINE: Duration = Duration::from_secs(25);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reload {
    /// Its reload socket.
    ApplianceInit(PathBuf),
    /// Where each daemon's main process has written its number.
    PidFiles { named: PathBuf, haproxy: PathBuf },
}

#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Asked(#[from] clawgress_link::ProbeError),
    #[error("reading the process number of {} from {}: {why}", daemon.word(), path.display())]
    PidFile {
        daemon: Daemon,
        path: PathBuf,
        why: String,
    },
    #[error("telling {} (process {pid}) to reload: {errno}", daemon.word())]
    Signal {
        daemon: Daemon,
        pid: i32,
        errno: Errno,
    },
}

impl Reload {
    pub async fn daemon(&self, daemon: Daemon) -> Result<(), ReloadError> {
        match self {
            Self::ApplianceInit(socket) => {
                reload::ask(socket, daemon, DEADLINE).await?;
                Ok(())
            }
            Self::PidFiles { named, haproxy } => match daemon {
                Daemon::Named => signal(daemon, named, Signal::SIGHUP),
                Daemon::Haproxy => signal(daemon, haproxy, Signal::SIGUSR2),
            },
        }
    }
}

fn signal(daemon: Daemon, path: &Path, signal: Signal) -> Result<(), ReloadError> {
    let wrong = |why: String| ReloadError::PidFile {
        daemon,
        path: path.to_owned(),
        why,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    // The first line: a master of haproxy has its workers on the others.
    let first = text.lines().next().unwrap_or_default().trim();
    let pid: i32 = first
        .parse()
        .ok()
        .filter(|pid| *pid > 1)
        .ok_or_else(|| wrong(format!("`{first}` is no process")))?;
    kill(Pid::from_raw(pid), signal).map_err(|errno| ReloadError::Signal { daemon, pid, errno })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_process_is_never_signalled() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("pid");
        for text in ["", "0", "-1", "1", "x"] {
            std::fs::write(&path, text).unwrap();
            let reload = Reload::PidFiles {
                named: path.clone(),
                haproxy: path.clone(),
            };
            let error = reload.daemon(Daemon::Named).await.unwrap_err();
            assert!(
                matches!(error, ReloadError::PidFile { .. }),
                "{text}: {error}"
            );
        }
    }
}
