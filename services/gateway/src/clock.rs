//! Whether the clock on the wall can be believed: a time server holds it, it has not gone back behind what it has shown
//! before, and it did not jump.

#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clawgress_link::durable;
use nix::libc;

/// A clock that differs by more from one that only rises has been set.
const JUMP: i64 = 2;
/// How often the latest time is written down, in seconds.
const KEEP_EVERY: i64 = 60;
const LONGEST_FILE: u64 = 64;

/// Whether a time server holds the kernel's clock. Any doubt is a no.
pub fn is_disciplined() -> bool {
    // SAFETY: `timex` is plain numbers, for which all zeros is a value; with `modes` zero the call only reads, and it
    // writes nothing but this structure, which lives until it returns.
    let (state, status) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&raw mut timex);
        (state, timex.status)
    };
    (0..libc::TIME_ERROR).contains(&state) && status & libc::STA_UNSYNC == 0
}

/// What one look at the clock has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// By so many seconds it was set since the look before; below zero: back.
    pub jump: Option<i64>,
    /// It shows a time before one that it has shown while it was to be believed.
    pub is_behind: bool,
}

/// Looks at the clock beside one that only rises, and keeps the latest time that was to be believed over restarts.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    latest: i64,
    kept: i64,
    last: Option<(Duration, Instant)>,
}

impl Watch {
    /// A file that can't be read is told: from then on only this process's own looks count.
    pub fn new(file: &Path) -> Self {
        let kept = durable::read(file, LONGEST_FILE)
            .inspect_err(|error| tracing::error!("{error}; the clock is compared with itself only"))
            .ok()
            .flatten()
            .and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok())
            .unwrap_or(0);
        Self {
            file: file.to_owned(),
            latest: kept,
            kept,
            last: None,
        }
    }

    /// `wall`: since 1970. `believed`: a time server holds it, or the revision says to believe it anyhow.
    pub fn look(&mut self, wall: Duration, rising: Instant, believed: bool) -> Look {
        let before = self.last.replace((wall, rising));
        let jump = before.and_then(|(old, since)| {
            let passed = rising.saturating_duration_since(since);
            let moved = signed(wall) - signed(old + passed);
            (moved.abs() > JUMP * 1000).then_some(moved / 1000)
        });
        let now = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX);
        let is_behind = now + JUMP < self.latest;
        if believed && !is_behind && now > self.latest {
            self.latest = now;
            if now - self.kept >= KEEP_EVERY {
                self.kept = now;
                if let Err(error) = durable::replace(&self.file, format!("{now}\n").as_bytes()) {
                    tracing::error!("{error}; after a restart an earlier time will be believed");
                }
            }
        }
        Look { jump, is_behind }
    }
}

/// In milliseconds.
fn signed(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_764_000_000;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&directory.path().join("clock"));
        let began = Instant::now();
        for (wall, rising, jump) in [
            (NOW, 0, None),
            (NOW + 1, 1, None),
            // Slewed by a little.
            (NOW + 4, 3, None),
            (NOW + 4 - 3600, 3, Some(-3600)),
            (NOW + 5 - 3600, 4, None),
            (NOW + 5, 4, Some(3600)),
            (NOW + 1005, 1004, None),
        ] {
            let look = watch.look(at(wall), began + at(rising), true);
            assert_eq!(look.jump, jump, "{wall} {rising}");
        }
    }

    #[test]
    fn a_time_before_the_latest_is_behind_also_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clock");
        let began = Instant::now();
        let mut watch = Watch::new(&file);
        assert!(!watch.look(at(NOW), began, true).is_behind);
        assert!(watch.look(at(NOW - 10), began, true).is_behind);
        assert!(!watch.look(at(NOW - 1), began, true).is_behind);
        let mut again = Watch::new(&file);
        assert!(again.look(at(NOW - 600), began, true).is_behind);
        assert!(!again.look(at(NOW + 1), began, true).is_behind);
    }

    #[test]
    fn a_time_that_nobody_believed_holds_nobody_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&directory.path().join("clock"));
        let began = Instant::now();
        watch.look(at(NOW + 10_000_000), began, false);
        assert!(!watch.look(at(NOW), began, true).is_behind);
    }
}
