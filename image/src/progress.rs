//! Progress of long work: bars with bytes and time left on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One named step. Says so when it starts and how long it took when it ends.
pub(crate) struct Step {
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
    said: bool,
}

impl Step {
    /// A step of unknown length.
    pub(crate) fn begin(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(name.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("  {name} …");
        }
        Self {
            name,
            started: Instant::now(),
            bar,
            said: false,
        }
    }

    /// Gives the step a length in bytes.
    pub(crate) fn bytes(&self, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            if let Ok(style) = ProgressStyle::with_template(
                "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
            ) {
                bar.set_style(style);
            }
        }
    }

    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Ends the step with what came of it.
    pub(crate) fn done(mut self, outcome: impl AsRef<str>) {
        self.said = true;
        let line = format!(
            "  {}: {} ({:.1} s)",
            self.name,
            outcome.as_ref(),
            self.started.elapsed().as_secs_f64()
        );
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            None => eprintln!("{line}"),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let (false, Some(bar)) = (self.said, &self.bar) {
            bar.finish_and_clear();
        }
    }
}

/// Bytes as people read them.
pub(crate) fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
