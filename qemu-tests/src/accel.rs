//! Owns the question whether KVM really runs a guest here, and what that means for time limits.
//!
//! `/dev/kvm` may exist and open, and a kernel may still die or hang in it (nested virtualisation). So the question
//! is answered by booting the very kernel under test up to its init.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::{IoContext, Result};
use crate::process;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

/// A kernel under KVM reaches its init in two seconds; a hung one never does.
const PROBE_LIMIT: Duration = Duration::from_secs(15);
/// What the kernel prints when it hands over to init.
const REACHED_INIT: &str = "Run /init as init process";

impl Accelerator {
    /// Asks once per process; the answer is also kept in a file until the next boot of this machine.
    pub fn probe(kernel: &Path, initrd: &Path) -> Result<Self> {
        static ANSWER: OnceLock<Accelerator> = OnceLock::new();
        if let Some(answer) = ANSWER.get() {
            return Ok(*answer);
        }
        let answer = probe(kernel, initrd)?;
        Ok(*ANSWER.get_or_init(|| answer))
    }

    pub fn qemu_arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // Five-level page tables only make emulated page walks longer.
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max,la57=off"],
        }
    }

    /// A time limit meant for KVM, as it must be here.
    pub fn scale(self, limit: Duration) -> Duration {
        match self {
            Self::Kvm => limit,
            Self::Tcg => limit * 6,
        }
    }
}

fn probe(kernel: &Path, initrd: &Path) -> Result<Accelerator> {
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Ok(Accelerator::Tcg);
    }
    let cache = cache_file()?;
    match fs::read_to_string(&cache).as_deref() {
        Ok("kvm") => return Ok(Accelerator::Kvm),
        Ok("tcg") => return Ok(Accelerator::Tcg),
        _ => {}
    }
    let works = kernel_reaches_init(kernel, initrd)?;
    let word = if works { "kvm" } else { "tcg" };
    // Written whole and renamed: another test process may ask at the same moment.
    let draft = cache.with_extension(std::process::id().to_string());
    fs::write(&draft, word).doing("writing", &draft)?;
    fs::rename(&draft, &cache).doing("renaming to", &cache)?;
    Ok(if works {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    })
}

/// A new boot of this machine or another QEMU may change the answer: both are in the name.
fn cache_file() -> Result<PathBuf> {
    let boot_id = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read_to_string(boot_id).doing("reading", boot_id)?;
    let version = process::run(&process::words("qemu-system-x86_64 --version"))?;
    // "QEMU emulator version 7.2.22 (…)"
    let version = version.split_whitespace().nth(3).unwrap_or("unknown");
    let user = nix::unistd::getuid();
    Ok(std::env::temp_dir().join(format!("clawgress-accel-{user}-{}-{version}", boot.trim())))
}

fn kernel_reaches_init(kernel: &Path, initrd: &Path) -> Result<bool> {
    let serial = tempfile::NamedTempFile::new()
        .doing("making a scratch file in", "the temporary directory")?;
    let mut arguments = process::words(
        "qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -m 512 -machine q35 -accel kvm -cpu host",
    );
    arguments.extend([
        "-kernel".to_owned(),
        kernel.display().to_string(),
        "-initrd".to_owned(),
        initrd.display().to_string(),
        "-append".to_owned(),
        "console=ttyS0 loglevel=7 panic=-1".to_owned(),
        "-serial".to_owned(),
        format!("file:{}", serial.path().display()),
    ]);
    let mut child = process::spawn(&arguments, |command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    })?;
    let deadline = Instant::now() + PROBE_LIMIT;
    let reached = loop {
        let said = fs::read(serial.path()).doing("reading", serial.path())?;
        if String::from_utf8_lossy(&said).contains(REACHED_INIT) {
            break true;
        }
        let ended = process::wait_bounded(&mut child, Duration::from_millis(100))?;
        if ended.is_some() || Instant::now() > deadline {
            break false;
        }
    };
    process::end(&mut child);
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_gets_more_time() {
        let limit = Duration::from_secs(10);
        assert_eq!(Accelerator::Kvm.scale(limit), limit);
        assert!(Accelerator::Tcg.scale(limit) >= 5 * limit);
    }
}
