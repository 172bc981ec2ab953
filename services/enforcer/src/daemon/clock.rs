//! The clock: what time it is, whether that may be believed, and what the machine has lived through meanwhile.
//!
//! The clock is believed once the kernel says that a time server has disciplined it (or the revision trusts the
//! hardware clock), and only as long as it is not behind the last time that was believed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clawgress_link::durable::{self, FileError};
use clawgress_policy::Moment;
use nix::time::{ClockId, clock_gettime};

use super::discipline::is_disciplined;

/// How often the believed time is written down.
const KEEP_EVERY: u64 = 60;
/// More than this between two clocks is a jump.
const JUMP: i64 = 2;

#[derive(Debug)]
pub(super) struct Clock {
    path: PathBuf,
    /// The last time that was believed and written down.
    kept: i64,
    kept_at: u64,
    /// Of the wall clock, less that of the boot.
    offset: Option<i64>,
}

/// Seconds since the machine was started, suspension included.
pub(super) fn since_boot() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .ok()
        .and_then(|now| u64::try_from(now.tv_sec()).ok())
        .unwrap_or(0)
}

/// Seconds since 1970, as the machine believes.
pub(super) fn wall() -> i64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |now| now.tv_sec())
}

/// How long until the wall clock shows the next full second.
pub(super) fn until_next_second() -> Duration {
    let nanoseconds = clock_gettime(ClockId::CLOCK_REALTIME)
        .ok()
        .and_then(|now| u64::try_from(now.tv_nsec()).ok())
        .unwrap_or(0);
    Duration::from_nanos(1_000_000_000_u64.saturating_sub(nanoseconds))
}

impl Clock {
    /// Remembers the last believed time, where there is one.
    pub(super) fn open(state: &Path) -> Self {
        let path = state.join("time");
        let kept = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        Self {
            path,
            kept,
            kept_at: 0,
            offset: None,
        }
    }

    /// What time it is for a revision.
    pub(super) fn moment(&self, trust_hardware_clock: bool) -> Moment {
        self.judge(wall(), is_disciplined(), trust_hardware_clock)
    }

    fn judge(&self, now: i64, disciplined: bool, trust_hardware_clock: bool) -> Moment {
        Moment {
            now,
            trusted: (disciplined || trust_hardware_clock) && now >= self.kept,
        }
    }

    /// Called each second: true if the wall clock has jumped since the last call.
    pub(super) fn jumped(&mut self) -> bool {
        self.jumped_to(wall().saturating_sub(i64::try_from(since_boot()).unwrap_or(i64::MAX)))
    }

    fn jumped_to(&mut self, offset: i64) -> bool {
        let before = self.offset.replace(offset);
        before.is_some_and(|before| (offset - before).abs() > JUMP)
    }

    /// Called each second: writes the time down now and then.
    pub(super) fn keep(&mut self, moment: Moment) -> Result<(), FileError> {
        let now = since_boot();
        if !moment.trusted || (self.kept_at != 0 && now < self.kept_at + KEEP_EVERY) {
            return Ok(());
        }
        durable::replace(&self.path, format!("{}\n", moment.now).as_bytes())?;
        self.kept = moment.now;
        self.kept_at = now.max(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_behind_the_last_believed_time_is_not_believed() {
        let scratch = tempfile::tempdir().unwrap();
        let mut clock = Clock::open(scratch.path());
        clock.keep(Moment::trusted(1000)).unwrap();
        for clock in [clock, Clock::open(scratch.path())] {
            assert!(clock.judge(1000, true, false).trusted);
            assert!(!clock.judge(999, true, true).trusted);
            assert!(!clock.judge(2000, false, false).trusted);
            assert!(clock.judge(2000, false, true).trusted);
        }
    }

    #[test]
    fn a_time_that_is_not_believed_is_not_written_down() {
        let scratch = tempfile::tempdir().unwrap();
        let mut clock = Clock::open(scratch.path());
        clock.keep(Moment::untrusted(5000)).unwrap();
        assert_eq!(Clock::open(scratch.path()).kept, 0);
    }

    #[test]
    fn jumps_are_told_from_slow_corrections() {
        let mut clock = Clock::open(Path::new("/nonexistent"));
        assert!(!clock.jumped_to(100), "the first look");
        assert!(!clock.jumped_to(102));
        assert!(clock.jumped_to(99));
        assert!(!clock.jumped_to(99));
    }
}
