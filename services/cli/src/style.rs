//! How text looks: colours where a person sees them, tables with aligned columns, numbers with units.

use jiff::Timestamp;

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

/// What comes from elsewhere and must not command the terminal.
pub(crate) fn tame(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '·' } else { letter })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under a head, each column as wide as its widest cell.
pub(crate) fn table(head: &[(&str, Align)], rows: &[Vec<String>], style: Style) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        head.get(column)
            .map_or(0, |(name, _)| name.chars().count())
            .max(widest)
    };
    let line = |cells: &[&str]| {
        let padded: Vec<String> = head
            .iter()
            .zip(cells)
            .enumerate()
            .map(|(column, ((_, align), cell))| {
                let gap = " ".repeat(width(column).saturating_sub(cell.chars().count()));
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
    for row in rows {
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
        assert_eq!(tame("a\x1b[2Jb\n"), "a·[2Jb·");
    }
}
