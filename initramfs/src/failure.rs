//! What to say when the boot can't go on.
//!
//! Every failure tells what was sought, what was found and what to do. This module only words it;
//! stopping is `stop`'s work.

use std::fmt::Write;

use clawgress_initramfs::identity::{ImageIdentity, short_id};

/// A boot that can't go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    /// One sentence without the full stop.
    pub(crate) what: String,
    pub(crate) sought: Vec<String>,
    pub(crate) found: Vec<String>,
    pub(crate) advice: Vec<String>,
}

impl Failure {
    /// A failure of which only the step is known: the image itself or the machine is at fault.
    pub(crate) fn of_step(doing: impl Into<String>, error: impl std::fmt::Display) -> Self {
        Self {
            what: format!("{}: {error}", doing.into()),
            ..Self::default()
        }
    }

    pub(crate) fn sought(mut self, line: impl Into<String>) -> Self {
        self.sought.push(line.into());
        self
    }

    pub(crate) fn found(mut self, line: impl Into<String>) -> Self {
        self.found.push(line.into());
        self
    }

    pub(crate) fn advice(mut self, line: impl Into<String>) -> Self {
        self.advice.push(line.into());
        self
    }

    /// The block for the consoles.
    pub(crate) fn text(&self, closing: &str) -> String {
        const RULE: &str = "======================================================================";
        // Below whatever half a line the kernel has left.
        let mut text = format!("\n{RULE}\nClawgress can't start: {}.\n\n", self.what);
        for (label, lines) in [
            ("Sought:", &self.sought),
            ("Found:", &self.found),
            ("To do:", &self.advice),
        ] {
            for (index, line) in lines.iter().enumerate() {
                let label = if index == 0 { label } else { "" };
                // Writing to a string can't fail.
                let _ = writeln!(text, "{label:<9}{line}");
            }
        }
        let _ = write!(text, "\n{closing}\n{RULE}\n");
        text
    }
}

/// The image in words: version and the start of its id.
pub(crate) fn image(identity: &ImageIdentity) -> String {
    format!(
        "Clawgress {}, image {}",
        identity.version,
        short_id(&identity.image_id)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_answers_three_questions() {
        let failure = Failure {
            what: "its medium was not found within 30 s".to_owned(),
            ..Failure::default()
        }
        .sought("Clawgress 0.1.0, image ab")
        .found("/dev/sr0: no medium in the drive")
        .found("/dev/vda: blank")
        .advice("Attach it.");
        assert_eq!(
            failure.text("Stopped."),
            "\n======================================================================\n\
             Clawgress can't start: its medium was not found within 30 s.\n\n\
             Sought:  Clawgress 0.1.0, image ab\n\
             Found:   /dev/sr0: no medium in the drive\n         /dev/vda: blank\n\
             To do:   Attach it.\n\nStopped.\n\
             ======================================================================\n"
        );
    }
}
