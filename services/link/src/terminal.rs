//! Text that others wrote, made safe to be looked at: what would command a terminal, hide, or turn the order of
//! letters around is shown as an escape.
//!
//! Every way out to a person ends here: what `clawgress` prints, banner and consoles, the daemons' logs. Nothing here
//! shortens or drops anything, and text that is safe already stays as it is.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write},
};

/// What Unicode 16 calls format characters or default-ignorable: nobody sees them, and some turn the text around.
const UNSEEN: [(char, char); 31] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    // With the separators of lines and paragraphs.
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    // Tags and selectors.
    ('\u{e0000}', '\u{e0fff}'),
    // For private use: what they look like, nobody knows.
    ('\u{e000}', '\u{f8ff}'),
    ('\u{f0000}', '\u{ffffd}'),
    ('\u{100000}', '\u{10fffd}'),
    // No characters at all.
    ('\u{fdd0}', '\u{fdef}'),
    ('\u{fffe}', '\u{ffff}'),
    ('\u{1fffe}', '\u{1ffff}'),
];

/// True of what a terminal obeys, or what nobody would see.
pub fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || (!letter.is_ascii()
            && UNSEEN
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&letter)))
}

/// One line: `\n`, `\u{1b}` and `\u{202e}` stand for what they name.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Several lines; they and their tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |letter| matches!(letter, '\n' | '\t'))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harmful = |letter: char| is_unseen(letter) && !stays(letter);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if harmful(letter) {
            match letter {
                '\n' | '\r' | '\t' => safe.extend(letter.escape_default()),
                _ => safe.extend(letter.escape_unicode()),
            }
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

/// A JSON text that says the same, with its strings' unseen characters as JSON's own escapes. They can be nowhere else,
/// but for the whitespace between its parts, which stays.
pub fn json(text: &str) -> Cow<'_, str> {
    let harmful = |letter: char| is_unseen(letter) && !matches!(letter, '\n' | '\t' | '\r');
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if harmful(letter) {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                let _ = write!(safe, "\\u{unit:04x}");
            }
        } else {
            safe.push(letter);
        }
    }
    Cow::Owned(safe)
}

/// A log into which each write is one entry, and stays one line whatever it holds.
#[derive(Debug)]
pub struct Entries<W>(pub W);

impl<W: Write> Write for Entries<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let mut whole = line(text).into_owned();
        whole.push('\n');
        self.0.write_all(whole.as_bytes())?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind: C0, DEL, C1, bidirectional, joiners, tags, separators.
    const HOSTILE: &str =
        "a\u{1b}[2J\u{7f}\u{9b}1m\u{202e}\u{2066}\u{200d}\u{e0041}\u{2028}\u{ad}\u{feff}b";

    #[test]
    fn what_commands_or_hides_is_shown() {
        assert_eq!(
            line(HOSTILE),
            r"a\u{1b}[2J\u{7f}\u{9b}1m\u{202e}\u{2066}\u{200d}\u{e0041}\u{2028}\u{ad}\u{feff}b"
        );
        assert_eq!(line("a\tb\r\nc"), r"a\tb\r\nc");
        assert_eq!(lines("a\tb\nc\rd\u{85}"), "a\tb\nc\\rd\\u{85}");
        let plain = "bücher.example/日本 — “x” 🦀";
        assert!(matches!(line(plain), Cow::Borrowed(same) if same == plain));
        assert_eq!(line(&line(HOSTILE)), line(HOSTILE));
    }

    #[test]
    fn every_character_is_either_seen_or_escaped() {
        for letter in (0..=0x10_FFFF).filter_map(char::from_u32) {
            let text = letter.to_string();
            let safe = line(&text);
            assert!(!safe.contains(is_unseen), "{letter:?}");
            assert_eq!(line(&safe), safe, "{letter:?}");
        }
    }

    #[test]
    fn json_says_the_same() {
        let value = serde_json::json!({ "name": HOSTILE, "plain": "é" });
        let text = serde_json::to_string_pretty(&value).unwrap();
        let safe = json(&text);
        assert!(
            !safe
                .chars()
                .any(|letter| is_unseen(letter) && letter != '\n'),
            "{safe}"
        );
        assert!(
            safe.contains("\\u202e") && safe.contains("\\udb40\\udc41"),
            "{safe}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&safe).unwrap(),
            value
        );
    }

    #[test]
    fn an_entry_stays_one_line() {
        let mut log = Entries(Vec::new());
        log.write_all("WARN a name\nINFO forged\u{1b}[2J \u{202e}x\n".as_bytes())
            .unwrap();
        assert_eq!(
            String::from_utf8(log.0).unwrap(),
            "WARN a name\\nINFO forged\\u{1b}[2J \\u{202e}x\n"
        );
    }
}
