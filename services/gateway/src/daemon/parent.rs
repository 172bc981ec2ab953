//! The process that the service manager knows: starts the gateway as its child, and when it is told to stop, lets it drain
//! beside the successor instead of waiting for it.
//!
//! It holds nothing of an agent's and opens no socket. The two are bound by the child's standard streams: when the input
//! ends, the child drains, however this process came to its end; a byte on the output says that it accepts nobody any more
//! and that its quotas are handed over.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use clawgress_link::service::Stop;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::doors::HANDED_OVER;

/// Set for the child alone.
pub const CHILD: &str = "CLAWGRESS_GATEWAY_CHILD";
/// So long the child has to hand over before the successor may begin.
const HANDING_OVER: Duration = Duration::from_secs(2);

/// Whether this process is the gateway itself.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs until the child has ended, or has been told to drain.
pub async fn run() -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen().context("listening for the signal to stop")?;
    let mut child = start()?;
    let input = child.stdin.take();
    let output = child.stdout.take();
    tokio::select! {
        ended = child.wait() => {
            let status = ended.context("waiting for the gateway")?;
            // Its own reason is in the log; the code says whether starting again may help.
            let code = status.code().and_then(|code| u8::try_from(code).ok());
            return Ok(ExitCode::from(code.unwrap_or(1)));
        }
        () = stop.requested() => {}
    }
    drop(input);
    if let Some(mut output) = output {
        let mut byte = [0];
        // However it answers, the successor may begin.
        let _ = timeout(HANDING_OVER, output.read(&mut byte)).await;
    }
    Ok(ExitCode::SUCCESS)
}

fn start() -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("looking for this program's own file")?;
    let mine = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let sockets = std::env::var("LISTEN_FDS").ok().filter(|_| mine);
    let mut command = Command::new(&program);
    command
        .args(std::env::args_os().skip(1))
        .env(CHILD, "1")
        .env(HANDED_OVER, sockets.unwrap_or_default())
        .env_remove("LISTEN_PID")
        .env_remove("LISTEN_FDS")
        .env_remove("LISTEN_FDNAMES")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}
