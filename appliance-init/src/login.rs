//! What a console shows before anybody is logged in: the boot as it goes, the banner, then the login.
//!
//! Only a box without any credential logs its console in by itself.

use std::collections::HashSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::accounts::credential_exists;
use crate::atomic::read_bounded;
use crate::banner::STATUS_COMMAND;
use crate::consoles;
use crate::paths::Paths;
use crate::report::{Report, State};

/// How long a console waits for the boot.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: u16 = 200;
/// Far above any report of ours.
const LARGEST: u64 = 1 << 20;

/// Returns only if the login could not be started.
pub(crate) fn login(paths: &Paths) -> Result<()> {
    let console = console_name();
    if let Some(name) = &console {
        consoles::claim(paths, name);
    }
    wait_for_boot(paths, PATIENCE);
    show_banner(paths, console.as_deref());
    let mut command = Command::new(paths.login());
    if !credential_exists(paths) {
        command.args(["-f", "root"]);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("starting {}", paths.login().display()))
}

/// The name below /dev of the terminal that this runs on.
fn console_name() -> Option<String> {
    let terminal = fs::read_link("/proc/self/fd/0").ok()?;
    let name = terminal.strip_prefix("/dev").ok()?.to_str()?;
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric())
        .then(|| name.to_owned())
}

pub(crate) fn read_report(paths: &Paths) -> Result<Report> {
    let path = paths.report();
    let bytes = read_bounded(&path, LARGEST).context("is appliance-init.service running?")?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("reading {}: it is not a boot report", path.display()))
}

/// Shows steps as they end, until the boot has come to an end, Enter is pressed or patience is over.
fn wait_for_boot(paths: &Paths, patience: Duration) {
    let start = Instant::now();
    let mut shown: HashSet<String> = HashSet::new();
    let mut waiting = false;
    loop {
        let report = read_report(paths).ok();
        if report
            .as_ref()
            .is_some_and(|report| report.state != State::Starting)
        {
            return;
        }
        if !waiting {
            say("Clawgress is starting. Press Enter to log in before it is done.\n");
            waiting = true;
        }
        for step in report.iter().flat_map(|report| &report.steps) {
            let line = step.line();
            if shown.insert(line.clone()) {
                say(&format!("{line}\n"));
            }
        }
        if enter_pressed() || start.elapsed() > patience {
            return;
        }
    }
}

fn show_banner(paths: &Paths, console: Option<&str>) {
    match fs::read_to_string(paths.banner()) {
        Ok(banner) => {
            // On a serial line it may already be right above.
            let shown = console.and_then(|name| consoles::take_shown(paths, name));
            if shown.as_deref() != Some(banner.as_str()) {
                say(&banner);
            }
        }
        Err(_) => say(&format!(
            "\nThe boot is not complete; {STATUS_COMMAND}\nshows its steps.\n\n"
        )),
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Waits a moment for a line on standard input; its end (a hung-up line) counts as pressed.
fn enter_pressed() -> bool {
    let input = std::io::stdin();
    let mut ready = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::from(LOOK)).unwrap_or(0) == 0 {
        return false;
    }
    let mut typed = [0; 256];
    match input.lock().read(&mut typed) {
        Ok(0) => true,
        Ok(length) => typed[..length]
            .iter()
            .any(|byte| matches!(byte, b'\n' | b'\r')),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_report_says_what_to_look_at() {
        let dir = tempfile::tempdir().unwrap();
        let error = format!("{:#}", read_report(&Paths::below(dir.path())).unwrap_err());
        assert!(
            error.contains("appliance-init.service") && error.contains("boot.json"),
            "{error}"
        );
    }

    #[test]
    fn a_boot_that_has_ended_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(paths.run()).unwrap();
        let mut report = Report::new("0.1.0".into(), "debian-13".into());
        report.state = State::Failed;
        fs::write(paths.report(), serde_json::to_vec(&report).unwrap()).unwrap();
        let start = Instant::now();
        wait_for_boot(&paths, Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
