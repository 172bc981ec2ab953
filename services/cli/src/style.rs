//! How text looks: colours where a person sees them, tables with aligned columns, numbers with units.

use clawgress_link::terminal;
use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    colours: bool,
    terminal: bool,
}

impl Style {
    pub(crate) fn of(terminal: bool) -> Self {
        // https://no-color.org
        Self {
            colours: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            terminal,
        }
    }

    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self {
            colours: false,
            terminal: false,
        }
    }

    /// Somebody is looking on as it is printed.
    pub(crate) fn is_for_people(self) -> bool {
        self.terminal
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn loud(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// What comes from elsewhere and must neither command the terminal nor break its line.
pub(crate) fn tame(text: &str) -> String {
    terminal::line(text).into_owned()
}

/// The last thing that happens to a text before people see it: of all that terminals obey, only lines and the colours
/// of [`Style`] are left, whoever put the text together.
pub(crate) fn seen(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(ESCAPE) {
        safe.push_str(&terminal::lines(&rest[..at]));
        let colour = COLOURS.iter().find(|code| rest[at..].starts_with(**code));
        let end = at + colour.map_or(ESCAPE.len_utf8(), |code| code.len());
        match colour {
            Some(code) => safe.push_str(code),
            None => safe.push_str(&terminal::line(&rest[at..end])),
        }
        rest = &rest[end..];
    }
    safe.push_str(&terminal::lines(rest));
    safe
}

const ESCAPE: char = '\u{1b}';
const COLOURS: [&str; 4] = ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under a head, each column as wide as its widest cell is on a terminal.
pub(crate) fn table(head: &[(&str, Align)], rows: &[Vec<String>], style: Style) -> String {
    // Escapes make a cell longer, so they come before it is measured.
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| tame(cell)).collect())
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.width()).max().unwrap_or(0);
        head.get(column)
            .map_or(0, |(name, _)| name.width())
            .max(widest)
    };
    let line = |cells: &[&str]| {
        let padded: Vec<String> = head
            .iter()
            .zip(cells)
            .enumerate()
            .map(|(column, ((_, align), cell))| {
                let gap = " ".repeat(width(column).saturating_sub(cell.width()));
                match align {
                    Align::Left => format!("{cell}{gap}"),
                    Align::Right => format!("{gap}{cell}"),
                }
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let names: Vec<&str> = head.iter().map(|(name, _)| *name).collect();
    let mut lines = vec![style.loud(&line(&names))];
    for row in &rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        lines.push(line(&cells));
    }
    lines.join("\n")
}

/// `12,345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 event`, `12,345 events`.
pub(crate) fn some(number: u64, what: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {what}{end}", count(number))
}

/// `1.5 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    for next in units {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// In UTC, to the second.
pub(crate) fn time(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("second {seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_and_groups() {
        assert_eq!(
            [count(0), count(999), count(1_234_567)],
            ["0", "999", "1,234,567"]
        );
        assert_eq!(
            [some(0, "event"), some(1, "event"), some(1000, "event")],
            ["0 events", "1 event", "1,000 events"]
        );
        let sizes = [0, 1023, 1024, 1_572_864, 1_048_575, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 MiB",
                "1.0 MiB",
                "16384.0 PiB"
            ]
        );
        assert_eq!(time(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(time(i64::MAX), "second 9223372036854775807");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let rows = vec![
            vec!["a".to_owned(), "10".to_owned(), "x".to_owned()],
            vec!["äöü".to_owned(), "9".to_owned(), String::new()],
        ];
        let head = [
            ("NAME", Align::Left),
            ("N", Align::Right),
            ("", Align::Left),
        ];
        assert_eq!(
            table(&head, &rows, Style::plain()),
            "NAME   N\na     10  x\näöü    9"
        );
    }

    #[test]
    fn what_others_wrote_moves_no_column() {
        let rows = vec![
            vec!["\u{202e}a\n".to_owned(), "10".to_owned()],
            vec!["日本".to_owned(), "9".to_owned()],
            vec!["e\u{301}".to_owned(), "8".to_owned()],
        ];
        let head = [("NAME", Align::Left), ("N", Align::Right)];
        assert_eq!(
            table(&head, &rows, Style::plain()),
            "NAME          N\n\\u{202e}a\\n  10\n日本          9\ne\u{301}             8"
        );
    }

    #[test]
    fn only_own_colours_reach_a_terminal() {
        let style = Style {
            colours: true,
            terminal: true,
        };
        let text = format!("{}\n\tx\x1b[2J\u{9b}2J\u{202e}\x1b", style.bad("no"));
        assert_eq!(
            seen(&text),
            "\x1b[31mno\x1b[0m\n\tx\\u{1b}[2J\\u{9b}2J\\u{202e}\\u{1b}"
        );
    }
}
