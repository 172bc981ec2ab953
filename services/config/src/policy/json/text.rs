//! Texts of JSON: what stands between two quotes, its escapes resolved. A text without escapes is not copied.

use std::borrow::Cow;

use crate::policy::json::scan::{Scanned, Scanner};

impl<'t> Scanner<'t> {
    /// The text whose opening quote is next.
    pub(super) fn text(&mut self) -> Scanned<Cow<'t, str>> {
        let start = self.at + 1;
        self.at = start;
        self.run()?;
        if self.byte() == Some(b'"') {
            let text = self.text.get(start..self.at).unwrap_or_default();
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut text = self.text.get(start..self.at).unwrap_or_default().to_owned();
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => text.push(self.escape()?),
                _ => {
                    let from = self.at;
                    self.run()?;
                    text.push_str(self.text.get(from..self.at).unwrap_or_default());
                }
            }
        }
    }

    /// Advances to the next quote or backslash.
    fn run(&mut self) -> Scanned<()> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        self.at += length.unwrap_or(rest.len());
        match self.byte() {
            Some(b'"' | b'\\') => Ok(()),
            None => self.fail("the text ends inside quotes", "close the double quote"),
            Some(b'\n' | b'\r') => self.fail(
                "this line ends inside quotes",
                "close the double quote before the line ends, or write \\n",
            ),
            Some(_) => self.fail(
                "a control character stands inside quotes",
                "remove it, or write it as \\u and four digits",
            ),
        }
    }

    fn escape(&mut self) -> Scanned<char> {
        let start = self.at;
        self.at += 1;
        let plain = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(start),
            _ => {
                self.at = start;
                return self.fail(
                    "this backslash begins no escape of JSON",
                    "write \\\\ for a backslash",
                );
            }
        };
        self.at += 1;
        Ok(plain)
    }

    /// `u` is next; a pair of surrogates is one character.
    fn unicode(&mut self, start: usize) -> Scanned<char> {
        let first = self.four_digits();
        let code = match first {
            Some(high @ 0xd800..=0xdbff) => {
                let follows = self.text.as_bytes().get(self.at..self.at + 2) == Some(b"\\u");
                self.at += usize::from(follows);
                follows
                    .then(|| self.four_digits())
                    .flatten()
                    .filter(|low| (0xdc00..=0xdfff).contains(low))
                    .map(|low| 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
            }
            other => other,
        };
        if let Some(c) = code.and_then(char::from_u32) {
            return Ok(c);
        }
        self.at = start;
        self.fail(
            "this escape is no character",
            "write \\u and four digits, or the character itself",
        )
    }

    /// `u` and four digits; the place is behind them.
    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at + 1..self.at + 5)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 5;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_unescaped() {
        let mut scanner = Scanner::new(r#""a\"\\\u00fc\ud83d\ude00 b""#);
        assert_eq!(scanner.text().unwrap(), "a\"\\ü😀 b");
        assert!(matches!(
            Scanner::new("\"plain\"").text(),
            Ok(Cow::Borrowed("plain"))
        ));
    }
}
