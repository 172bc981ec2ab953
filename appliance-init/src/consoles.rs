//! Who sees what on which console. Writing to a console may block for seconds; nothing in the boot waits for it.
//!
//! A console whose login has begun belongs to that login: it gets notices, no step lines and no banner.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use clawgress_link::terminal;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::paths::Paths;

/// A console that takes nothing for this long loses the rest of the text.
const PATIENCE_MS: u16 = 2000;
const QUEUE: usize = 64;

#[derive(Debug, Clone)]
enum Text {
    /// Progress, for consoles that nobody uses yet.
    Line(String),
    /// The banner, for the same.
    Banner(String),
    /// News for everybody.
    Notice(String),
}

/// The consoles of this machine, each with its own writer.
#[derive(Debug)]
pub(crate) struct Consoles {
    queues: Vec<SyncSender<Text>>,
}

/// Names of all consoles: the kernel's, and the first screen.
pub(crate) fn names(paths: &Paths) -> Vec<String> {
    let active = fs::read_to_string(paths.active_consoles()).unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for name in active.split_whitespace().chain(["tty1"]) {
        // tty0 is whatever screen is shown; logins are on the first.
        let name = if name == "tty0" { "tty1" } else { name };
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if plain && !names.iter().any(|known| known == name) && paths.devices().join(name).exists()
        {
            names.push(name.to_owned());
        }
    }
    names
}

impl Consoles {
    pub(crate) fn open(paths: &Paths) -> Self {
        let queues = names(paths)
            .into_iter()
            .filter_map(|name| {
                let (queue, texts) = sync_channel(QUEUE);
                let paths = paths.clone();
                std::thread::Builder::new()
                    .name(format!("console {name}"))
                    .stack_size(128 * 1024)
                    .spawn(move || show(&paths, &name, &texts))
                    .ok()
                    .map(|_| queue)
            })
            .collect();
        Self { queues }
    }

    fn send(&self, text: &Text) {
        for queue in &self.queues {
            // A full queue means a dead console.
            let _ = queue.try_send(text.clone());
        }
    }

    pub(crate) fn line(&self, line: &str) {
        self.send(&Text::Line(line.to_owned()));
    }

    pub(crate) fn banner(&self, banner: &str) {
        self.send(&Text::Banner(banner.to_owned()));
    }

    pub(crate) fn notice(&self, line: &str) {
        self.send(&Text::Notice(line.to_owned()));
    }
}

fn show(paths: &Paths, name: &str, texts: &Receiver<Text>) {
    while let Ok(text) = texts.recv() {
        match text {
            Text::Notice(line) => drop(write(paths, name, &line)),
            _ if claimed(paths, name) => {}
            Text::Line(line) => drop(write(paths, name, &line)),
            Text::Banner(banner) => {
                // A screen is cleared when its login begins, a serial line is not.
                if write(paths, name, &banner).is_ok() && !is_screen(name) {
                    let _ = fs::write(paths.consoles().join(format!("{name}.shown")), &banner);
                }
            }
        }
    }
}

fn is_screen(name: &str) -> bool {
    name.strip_prefix("tty")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn write(paths: &Paths, name: &str, text: &str) -> std::io::Result<()> {
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let mut console = OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open(paths.devices().join(name))?;
    let text = terminal::lines(text.trim_end_matches('\n')).replace('\n', "\r\n") + "\r\n";
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match console.write(rest) {
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(console.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut ready, PollTimeout::from(PATIENCE_MS)).unwrap_or(0) == 0 {
                    return Err(error);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes the directory of claims.
pub(crate) fn prepare(paths: &Paths) {
    let _ = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(paths.consoles());
}

/// The login of this process takes the console.
pub(crate) fn claim(paths: &Paths, name: &str) {
    prepare(paths);
    let _ = fs::write(paths.consoles().join(name), std::process::id().to_string());
}

/// True while the process that took the console, or what it became, lives.
fn claimed(paths: &Paths, name: &str) -> bool {
    fs::read_to_string(paths.consoles().join(name))
        .ok()
        .and_then(|pid| pid.trim().parse::<u32>().ok())
        .is_some_and(|pid| fs::metadata(format!("/proc/{pid}")).is_ok())
}

/// The banner that is still to be read above on this console, which then counts as read.
pub(crate) fn take_shown(paths: &Paths, name: &str) -> Option<String> {
    let mark = paths.consoles().join(format!("{name}.shown"));
    let shown = fs::read_to_string(&mark).ok()?;
    let _ = fs::remove_file(mark);
    Some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn machine(active: &str, devices: &[&str]) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        fs::create_dir_all(paths.active_consoles().parent().unwrap()).unwrap();
        fs::write(paths.active_consoles(), active).unwrap();
        fs::create_dir_all(paths.devices()).unwrap();
        for device in devices {
            fs::write(paths.devices().join(device), "").unwrap();
        }
        prepare(&paths);
        (dir, paths)
    }

    fn wait_for(path: &std::path::Path, text: &str) {
        let start = Instant::now();
        while fs::read_to_string(path).unwrap_or_default() != text {
            assert!(
                start.elapsed() < Duration::from_secs(5),
                "{:?}",
                fs::read_to_string(path)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn consoles_are_those_of_the_kernel_and_the_first_screen() {
        let (_dir, paths) = machine("tty0 ttyS0 ../../x\n", &["tty1", "ttyS0"]);
        assert_eq!(names(&paths), ["tty1", "ttyS0"]);
        let (_dir, paths) = machine("", &[]);
        assert_eq!(names(&paths), Vec::<String>::new());
    }

    #[test]
    fn a_free_console_gets_everything_and_remembers_the_banner() {
        let (_dir, paths) = machine("ttyS0", &["ttyS0"]);
        let consoles = Consoles::open(&paths);
        consoles.banner("a\nb\n");
        wait_for(&paths.devices().join("ttyS0"), "a\r\nb\r\n");
        let start = Instant::now();
        while take_shown(&paths, "ttyS0").as_deref() != Some("a\nb\n") {
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        assert_eq!(take_shown(&paths, "ttyS0"), None);
    }

    #[test]
    fn a_console_in_use_gets_notices_only() {
        let (_dir, paths) = machine("ttyS0", &["ttyS0"]);
        claim(&paths, "ttyS0");
        let consoles = Consoles::open(&paths);
        consoles.line("line");
        consoles.banner("banner");
        consoles.notice("notice \u{1b}c");
        wait_for(&paths.devices().join("ttyS0"), "notice \\u{1b}c\r\n");
    }

    #[test]
    fn the_claim_of_a_dead_login_is_void() {
        let (_dir, paths) = machine("ttyS0", &["ttyS0"]);
        fs::write(paths.consoles().join("ttyS0"), "4194305").unwrap();
        assert!(!claimed(&paths, "ttyS0"));
    }
}
