//! The end of a boot that failed: say it, then stay, restart, or give the person a shell.
//!
//! Nothing here ever returns or exits: the kernel panics when its first process ends.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use crate::cmdline::{CommandLine, Rescue};
use crate::console::{Level, announce, log, main_console};
use crate::failure::Failure;

const BUSYBOX: &str = "/bin/busybox";
const SECONDS_TO_REBOOT: u64 = 60;

/// Announces the failure and does what the command line says.
pub(crate) fn stop(failure: &Failure, line: &CommandLine) -> ! {
    let shell = line.rescue != Rescue::Never;
    announce(&failure.text(&closing(line, shell && has_shell())));
    if shell && has_shell() {
        loop {
            run_shell();
            // A shell that ends at once must not fill the console.
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    if line.reboot_on_failure {
        restart_after_countdown();
    }
    stay()
}

/// What happens next, in words.
fn closing(line: &CommandLine, shell: bool) -> String {
    let asked_in_vain = line.rescue != Rescue::Never && !shell;
    let mut text = String::new();
    if asked_in_vain {
        text.push_str("clawgress.rescue was asked for, but this image has no rescue shell.\n");
    }
    text.push_str(if shell {
        "A rescue shell follows. Ctrl-Alt-Del or `reboot -f` restarts the machine."
    } else if line.reboot_on_failure {
        "The machine restarts in 60 seconds (clawgress.onfail=reboot)."
    } else {
        "Stopped. Ctrl-Alt-Del or a power cycle restarts the machine."
    });
    text
}

fn has_shell() -> bool {
    Path::new(BUSYBOX).exists()
}

/// A shell before the switch of roots, if there is one; boot goes on when it ends.
pub(crate) fn shell_before_switch() {
    if has_shell() {
        announce("\nThe root is ready in /newroot. `exit` goes on.\n");
        run_shell();
    } else {
        announce("\nclawgress.rescue=switch: this image has no rescue shell.\n");
    }
}

/// Runs a shell with job control on the main console until it ends, reaping everything.
fn run_shell() {
    let device = main_console().map_or("/dev/console".to_owned(), |name| format!("/dev/{name}"));
    let open = || -> std::io::Result<(File, File, File)> {
        let console = File::options().read(true).write(true).open(&device)?;
        Ok((console.try_clone()?, console.try_clone()?, console))
    };
    let shell = open().and_then(|(input, output, errors)| {
        Command::new(BUSYBOX)
            .args(["setsid", "-c", BUSYBOX, "sh"])
            .env("PATH", "/bin:/sbin")
            .env("PS1", "clawgress rescue # ")
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(errors))
            .spawn()
    });
    match shell {
        Ok(child) => {
            let pid = i32::try_from(child.id()).map(Pid::from_raw).ok();
            loop {
                match wait() {
                    Ok(WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, _, _))
                        if Some(ended) == pid =>
                    {
                        return;
                    }
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return,
                }
            }
        }
        Err(error) => {
            let bound = if fs::exists(BUSYBOX).unwrap_or(false) {
                device.as_str()
            } else {
                BUSYBOX
            };
            log(
                Level::Error,
                &format!("starting the rescue shell on {bound}: {error}"),
            );
        }
    }
}

fn restart_after_countdown() {
    for left in (1..=SECONDS_TO_REBOOT).rev() {
        if left.is_multiple_of(10) || left <= 5 {
            announce(&format!("Restart in {left} s.\n"));
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    announce(&format!(
        "Restarting failed: {error}. Switch the machine off and on.\n"
    ));
}

/// Stays alive for ever and reaps what is orphaned to it.
pub(crate) fn stay() -> ! {
    loop {
        if !matches!(wait(), Ok(_) | Err(Errno::EINTR)) {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmdline::parse;

    #[test]
    fn the_closing_words_fit_the_command_line() {
        let closing_of = |text: &str, shell| closing(&parse(text), shell);
        assert!(closing_of("", false).starts_with("Stopped."));
        assert!(closing_of("clawgress.onfail=reboot", false).contains("60 seconds"));
        assert!(closing_of("clawgress.rescue", true).contains("shell follows"));
        let in_vain = closing_of("clawgress.rescue clawgress.onfail=reboot", false);
        assert!(in_vain.contains("no rescue shell") && in_vain.contains("60 seconds"));
        assert!(
            !closing_of("clawgress.rescue clawgress.onfail=reboot", true).contains("60 seconds"),
            "a person at the shell is not cut off"
        );
    }
}
