//! Words to the person in front of the machine: the kernel log and every console.
//!
//! Nothing here may fail or block for long: a console that does not take bytes is given up.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use nix::fcntl::OFlag;

/// `/dev` and `/sys` lie below these, before and while the root is being switched.
const ROOTS: [&str; 2] = ["", "/newroot"];

/// Importance of a line in the kernel log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
    /// Kept in the log, not shown.
    Debug = 7,
}

/// Writes one line to the kernel log, which shows it on the consoles as its level allows.
pub(crate) fn log(level: Level, text: &str) {
    let line = format!("<{}>clawgress-init: {text}\n", level as u8);
    for root in ROOTS {
        // Opened anew each time: the kernel limits the rate of lines per open file.
        let kmsg = OpenOptions::new()
            .write(true)
            .open(format!("{root}/dev/kmsg"));
        if let Ok(mut kmsg) = kmsg
            && kmsg.write_all(line.as_bytes()).is_ok()
        {
            return;
        }
    }
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Writes a block of text to every console, and to the kernel log without showing it twice.
pub(crate) fn announce(text: &str) {
    for line in text.lines().filter(|line| !line.is_empty()) {
        log(Level::Debug, line);
    }
    let consoles = open_all();
    if consoles.is_empty() {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
    for mut console in consoles {
        write_patiently(&mut console, text.as_bytes());
    }
}

/// The names of all active consoles (`tty0`, `ttyS0`).
fn names(active: &str) -> Vec<String> {
    active.split_whitespace().map(str::to_owned).collect()
}

fn open_all() -> Vec<File> {
    for root in ROOTS {
        let Ok(active) = fs::read_to_string(format!("{root}/sys/class/tty/console/active")) else {
            continue;
        };
        let open: Vec<File> = names(&active)
            .iter()
            .filter_map(|name| {
                OpenOptions::new()
                    .write(true)
                    .custom_flags((OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits())
                    .open(format!("{root}/dev/{name}"))
                    .ok()
            })
            .collect();
        if !open.is_empty() {
            return open;
        }
    }
    Vec::new()
}

/// The name of the console that `/dev/console` stands for: the last active one.
pub(crate) fn main_console() -> Option<String> {
    let active = fs::read_to_string("/sys/class/tty/console/active").ok()?;
    names(&active).pop()
}

/// A serial line drains slowly, and one with its cable pulled never: two seconds without progress
/// end the attempt.
fn write_patiently(console: &mut File, mut bytes: &[u8]) {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut idle = 0_u32;
    while !bytes.is_empty() && idle < 100 {
        match console.write(bytes) {
            Ok(0) => idle = idle.saturating_add(1),
            Ok(written) => {
                bytes = bytes.get(written..).unwrap_or_default();
                idle = 0;
                continue;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                idle = idle.saturating_add(1);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_active_consoles_are_named() {
        assert_eq!(names("tty0 ttyS0\n"), ["tty0", "ttyS0"]);
        assert!(names("").is_empty());
    }
}
