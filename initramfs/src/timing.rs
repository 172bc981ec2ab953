//! When each step began and how long it took, for `/run/clawgress/initramfs.json`.
//!
//! Times are milliseconds since the kernel started (CLOCK_BOOTTIME). Only a record; nothing is
//! decided by it.

use std::fs;
use std::io;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// Where the record is left for the real root.
const REPORT: &str = "/run/clawgress/initramfs.json";

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) started_ms: u64,
    pub(crate) took_ms: u64,
}

/// The steps so far, one after the other.
#[derive(Debug)]
pub(crate) struct Timeline {
    steps: Vec<Step>,
    now_ms: fn() -> u64,
    last_ms: u64,
}

/// What the real root may want to know about its own start.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'r> {
    pub(crate) version: &'r str,
    pub(crate) image_id: &'r str,
    pub(crate) medium: Medium<'r>,
    pub(crate) steps: &'r [Step],
    /// Modules that did not load and the like.
    pub(crate) complaints: &'r [String],
}

/// Where the image came from.
#[derive(Debug, Serialize)]
pub(crate) struct Medium<'r> {
    pub(crate) device: &'r str,
    pub(crate) filesystem: &'r str,
}

impl Timeline {
    pub(crate) fn start() -> Self {
        Self::with_clock(boot_time_ms)
    }

    fn with_clock(now_ms: fn() -> u64) -> Self {
        Self {
            steps: Vec::new(),
            now_ms,
            last_ms: now_ms(),
        }
    }

    /// Ends a step that began where the one before it ended; answers its duration.
    pub(crate) fn done(&mut self, name: &'static str) -> u64 {
        let now = (self.now_ms)();
        let took_ms = now.saturating_sub(self.last_ms);
        self.steps.push(Step {
            name,
            started_ms: self.last_ms,
            took_ms,
        });
        self.last_ms = now;
        took_ms
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Leaves the report where the real root finds it.
pub(crate) fn write(report: &Report<'_>) -> io::Result<()> {
    let mut text = serde_json::to_vec(report)?;
    text.push(b'\n');
    fs::write(REPORT, text)
}

fn boot_time_ms() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else {
        return 0;
    };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
    let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or_default();
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn steps_follow_each_other_without_a_gap() {
        static CLOCK: AtomicU64 = AtomicU64::new(100);
        let mut timeline = Timeline::with_clock(|| CLOCK.fetch_add(5, Ordering::SeqCst));
        timeline.done("mounts");
        assert_eq!(timeline.done("search"), 5);
        let times: Vec<(u64, u64)> = timeline
            .steps()
            .iter()
            .map(|step| (step.started_ms, step.took_ms))
            .collect();
        assert_eq!(times, [(100, 5), (105, 5)]);
    }

    #[test]
    fn the_clock_runs() {
        assert!(boot_time_ms() > 0);
    }
}
