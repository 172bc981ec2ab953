//! Owns what the serial console said: bytes in, clean text and a log with a time on each line out.
//! It must never lose a printable byte; terminal control codes are dropped here and nowhere else.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

/// Removes terminal control sequences from a byte stream that may be cut anywhere.
#[derive(Default)]
pub(crate) struct Cleaner {
    state: State,
    csi_final_is_motion: bool,
    at_line_start: bool,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Text,
    Escape,
    /// After `ESC [`: parameters until a final byte.
    Control,
    /// After `ESC ]`, `ESC P`, `ESC ^`, `ESC _`: a string until BEL or `ESC \`.
    String,
    StringEscape,
    /// After `ESC (` and the like: one more byte.
    Charset,
}

impl Cleaner {
    pub(crate) fn clean(&mut self, input: &[u8], output: &mut Vec<u8>) {
        for &byte in input {
            self.state = match self.state {
                State::Text => self.text(byte, output),
                State::Escape => match byte {
                    b'[' => State::Control,
                    b']' | b'P' | b'^' | b'_' | b'X' => State::String,
                    0x20..=0x2f => State::Charset,
                    _ => State::Text,
                },
                State::Control => match byte {
                    0x40..=0x7e => {
                        self.csi_final_is_motion = matches!(byte, b'H' | b'f');
                        // A boot menu is drawn by cursor motion alone: a line end there keeps its words apart.
                        if self.csi_final_is_motion && !self.at_line_start {
                            self.emit(b'\n', output);
                        }
                        State::Text
                    }
                    0x1b => State::Escape,
                    _ => State::Control,
                },
                State::String => match byte {
                    0x07 => State::Text,
                    0x1b => State::StringEscape,
                    // A sequence that never ends must not swallow the log.
                    b'\n' => self.text(byte, output),
                    _ => State::String,
                },
                State::StringEscape => match byte {
                    b'\\' => State::Text,
                    _ => State::String,
                },
                State::Charset => match byte {
                    0x20..=0x2f => State::Charset,
                    _ => State::Text,
                },
            };
        }
    }

    fn text(&mut self, byte: u8, output: &mut Vec<u8>) -> State {
        match byte {
            0x1b => return State::Escape,
            b'\n' | b'\t' | 0x20..=0x7e | 0x80..=0xff => self.emit(byte, output),
            _ => {}
        }
        State::Text
    }

    fn emit(&mut self, byte: u8, output: &mut Vec<u8>) {
        self.at_line_start = byte == b'\n';
        output.push(byte);
    }
}

/// The console's text so far, and its log file.
pub(crate) struct Transcript {
    cleaner: Cleaner,
    text: String,
    /// Clean bytes that are not yet a whole character.
    partial: Vec<u8>,
    line_start: usize,
    line_began_ms: Option<u128>,
    power_on: Instant,
    log: File,
}

impl Transcript {
    pub(crate) fn new(log: File, power_on: Instant) -> Self {
        Self {
            cleaner: Cleaner::default(),
            text: String::new(),
            partial: Vec::new(),
            line_start: 0,
            line_began_ms: None,
            power_on,
            log,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let before = self.text.len();
        self.cleaner.clean(bytes, &mut self.partial);
        self.take_characters();
        if self.text.len() > before && self.line_began_ms.is_none() {
            self.line_began_ms = Some(self.power_on.elapsed().as_millis());
        }
        while let Some(length) = self.text[self.line_start..].find('\n') {
            let end = self.line_start + length + 1;
            self.log_line(end);
            self.line_start = end;
            if end < self.text.len() {
                self.line_began_ms = Some(self.power_on.elapsed().as_millis());
            }
        }
    }

    /// Moves whole characters from the bytes to the text; a character cut by the end of a read waits for its rest.
    fn take_characters(&mut self) {
        loop {
            let (whole, skip) = match std::str::from_utf8(&self.partial) {
                Ok(text) => {
                    self.text.push_str(text);
                    self.partial.clear();
                    return;
                }
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            self.text
                .push_str(&String::from_utf8_lossy(&self.partial[..whole]));
            self.partial.drain(..whole + skip.unwrap_or(0));
            if skip.is_none() {
                return;
            }
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    /// Writes the last, unfinished line to the log.
    pub(crate) fn finish(&mut self) {
        if self.line_start < self.text.len() {
            self.text.push('\n');
            self.log_line(self.text.len());
            self.line_start = self.text.len();
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The last lines, for an error message.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        // The framework's own tagged lines tell a person nothing.
        let lines: Vec<&str> = self
            .text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("@@"))
            .collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    fn log_line(&mut self, end: usize) {
        let began = self.line_began_ms.take().unwrap_or_default();
        let line = &self.text[self.line_start..end];
        // A full disk must not end the test run: the text stays in memory and in the error message.
        let _ = write!(self.log, "{began:>8} ms  {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(pieces: &[&[u8]]) -> String {
        let mut cleaner = Cleaner::default();
        let mut output = Vec::new();
        for piece in pieces {
            cleaner.clean(piece, &mut output);
        }
        String::from_utf8_lossy(&output).into_owned()
    }

    #[test]
    fn colours_titles_and_carriage_returns_are_dropped() {
        assert_eq!(
            clean(&[b"\x1b[0;1;31mfailed\x1b[0m\r\n\x1b]0;title\x07ok\x1b(B!"]),
            "failed\nok!"
        );
    }

    #[test]
    fn a_sequence_cut_between_two_reads_is_still_one_sequence() {
        assert_eq!(clean(&[b"a\x1b", b"[1", b";2", b"mb"]), "ab");
        assert_eq!(
            clean(&[b"x\x1b]3008;start=1", b"\x1b", b"\\y"]),
            "xy",
            "an OSC ended by ESC backslash"
        );
    }

    #[test]
    fn cursor_motion_separates_the_words_of_a_menu() {
        assert_eq!(
            clean(&[b"GNU GRUB\x1b[4;2HClawgress\x1b[5;2HRescue"]),
            "GNU GRUB\nClawgress\nRescue"
        );
    }

    #[test]
    fn an_unended_string_sequence_stops_at_the_line_end() {
        assert_eq!(clean(&[b"\x1bPjunk\nkernel panic"]), "\nkernel panic");
    }

    #[test]
    fn words_beyond_ascii_survive() {
        assert_eq!(clean(&["größer — ok".as_bytes()]), "größer — ok");
    }

    #[test]
    fn a_character_cut_between_two_reads_is_whole_and_a_broken_one_is_marked() {
        let log = tempfile::tempfile().expect("a scratch file");
        let mut transcript = Transcript::new(log, Instant::now());
        transcript.push(b"\xe2\x80");
        transcript.push(b"\x94 \xff!");
        assert_eq!(transcript.text(), "— \u{fffd}!");
    }

    #[test]
    fn the_log_has_a_time_on_every_line_and_the_last_lines_are_the_last() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("serial.log");
        let log = File::create(&path).expect("the log");
        let mut transcript = Transcript::new(log, Instant::now());
        transcript.push(b"one\r\ntw");
        transcript.push(b"o\r\nthree");
        transcript.finish();
        let logged = std::fs::read_to_string(&path).expect("the log again");
        let lines: Vec<&str> = logged.lines().collect();
        assert_eq!(lines.len(), 3, "{logged}");
        assert!(
            lines.iter().all(|line| line[..11].ends_with(" ms")),
            "{logged}"
        );
        assert!(lines[1].ends_with("  two"), "{logged}");
        assert_eq!(transcript.last_lines(2), "two\nthree");
    }
}
