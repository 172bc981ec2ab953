//! JSON as a stream of values, each with its place in the text.
//!
//! It knows nothing of policies. Memory and stack are bounded whatever the text: nothing is kept, depth is limited, and
//! every step consumes at least one byte or fails.

use std::borrow::Cow;

/// Deeper than any policy is.
pub(super) const MAX_DEPTH: u32 = 32;

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Object,
    Array,
    Text,
    Number,
    Boolean,
    Null,
}

impl Type {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "a list",
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Null => "null",
        }
    }
}

/// The text is no JSON from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) at: usize,
    pub(super) what: String,
    pub(super) fix: &'static str,
}

pub(super) struct Scanner<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
    depth: u32,
}

pub(super) type Scanned<T> = Result<T, Malformed>;

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    pub(super) fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn fail<T>(&self, what: impl Into<String>, fix: &'static str) -> Scanned<T> {
        Err(Malformed {
            at: self.at,
            what: what.into(),
            fix,
        })
    }

    /// The character at the current place as it belongs into a message.
    fn found(&self) -> String {
        match self
            .text
            .get(self.at..)
            .and_then(|rest| rest.chars().next())
        {
            None => "the text ends".to_owned(),
            Some(c) => format!("`{}` stands", c.escape_debug()),
        }
    }

    fn skip_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// What comes next, and where.
    pub(super) fn peek(&mut self) -> Scanned<(Type, usize)> {
        self.skip_space();
        let found = match self.byte() {
            Some(b'{') => Type::Object,
            Some(b'[') => Type::Array,
            Some(b'"') => Type::Text,
            Some(b'-' | b'0'..=b'9') => Type::Number,
            Some(b't' | b'f') => Type::Boolean,
            Some(b'n') => Type::Null,
            Some(b'N' | b'I' | b'+' | b'.') => {
                return self.fail(
                    format!("{} where a value belongs", self.found()),
                    "write a whole number in digits; JSON has no NaN and no Infinity",
                );
            }
            Some(b'\'') => {
                return self.fail(
                    "a single quote stands where a value belongs",
                    "use double quotes",
                );
            }
            Some(b'/') => {
                return self.fail("a comment stands here", "remove it; JSON has no comments");
            }
            Some(b']' | b'}') => {
                return self.fail(
                    format!("{} where a value belongs", self.found()),
                    "remove the comma before it",
                );
            }
            _ => {
                return self.fail(
                    format!("{} where a value belongs", self.found()),
                    "write a value; texts are in double quotes",
                );
            }
        };
        Ok((found, self.at))
    }

    fn enter(&mut self) -> Scanned<()> {
        if self.depth >= MAX_DEPTH {
            return self.fail(
                format!("values are nested deeper than {MAX_DEPTH}"),
                "check for a missing ] or }; no policy is that deep",
            );
        }
        self.depth += 1;
        self.at += 1;
        self.skip_space();
        Ok(())
    }

    /// After a member: true if another follows.
    fn another(&mut self, close: u8) -> Scanned<bool> {
        self.skip_space();
        match self.byte() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(false)
            }
            _ if close == b']' => self.fail(
                format!("{} inside a list", self.found()),
                "write a comma between two values and ] after the last",
            ),
            _ => self.fail(
                format!("{} inside an object", self.found()),
                "write a comma between two fields and } after the last",
            ),
        }
    }

    /// Enters an array: true if it has a value.
    pub(super) fn open_array(&mut self) -> Scanned<bool> {
        self.enter()?;
        Ok(self.unless_empty(b']'))
    }

    pub(super) fn next_in_array(&mut self) -> Scanned<bool> {
        self.another(b']')
    }

    /// Enters an object: true if it has a field.
    pub(super) fn open_object(&mut self) -> Scanned<bool> {
        self.enter()?;
        Ok(self.unless_empty(b'}'))
    }

    pub(super) fn next_in_object(&mut self) -> Scanned<bool> {
        self.another(b'}')
    }

    fn unless_empty(&mut self, close: u8) -> bool {
        if self.byte() == Some(close) {
            self.at += 1;
            self.depth -= 1;
            return false;
        }
        true
    }

    /// A field's name with its colon, and where the name stands.
    pub(super) fn key(&mut self) -> Scanned<(Cow<'t, str>, usize)> {
        self.skip_space();
        let at = self.at;
        match self.byte() {
            Some(b'"') => {}
            Some(b'}') => {
                return self.fail("a comma stands before this }", "remove that comma");
            }
            _ => {
                return self.fail(
                    format!("{} where a field's name belongs", self.found()),
                    "write the name in double quotes",
                );
            }
        }
        let key = self.text()?;
        self.skip_space();
        if self.byte() != Some(b':') {
            return self.fail(
                format!("{} behind a field's name", self.found()),
                "write a colon between name and value",
            );
        }
        self.at += 1;
        Ok((key, at))
    }

    /// The number that begins here, as it is written.
    pub(super) fn number(&mut self) -> Scanned<&'t str> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let whole = self.digits();
        let leading_zero = whole > 1 && self.text.as_bytes().get(self.at - whole) == Some(&b'0');
        let mut good = whole > 0 && !leading_zero;
        if self.byte() == Some(b'.') {
            self.at += 1;
            good &= self.digits() > 0;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            good &= self.digits() > 0;
        }
        if !good
            || self
                .byte()
                .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'.')
        {
            self.at = start;
            return self.fail(
                "this is not a number",
                "write a whole number in digits, without leading zeros or units",
            );
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.byte().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - start
    }

    fn literal(&mut self) -> Scanned<()> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let word = ["true", "false", "null"]
            .into_iter()
            .find(|word| rest.starts_with(word));
        let Some(word) = word else {
            return self.fail(
                "this word is no value of JSON",
                "put texts in double quotes",
            );
        };
        self.at += word.len();
        if self.byte().is_some_and(|b| b.is_ascii_alphanumeric()) {
            self.at -= word.len();
            return self.fail(
                "this word is no value of JSON",
                "put texts in double quotes",
            );
        }
        Ok(())
    }

    /// Passes over a whole value.
    pub(super) fn skip(&mut self) -> Scanned<()> {
        match self.peek()?.0 {
            Type::Text => self.text().map(drop),
            Type::Number => self.number().map(drop),
            Type::Boolean | Type::Null => self.literal(),
            Type::Array => {
                let mut more = self.open_array()?;
                while more {
                    self.skip()?;
                    more = self.next_in_array()?;
                }
                Ok(())
            }
            Type::Object => {
                let mut more = self.open_object()?;
                while more {
                    self.key()?;
                    self.skip()?;
                    more = self.next_in_object()?;
                }
                Ok(())
            }
        }
    }

    /// Behind the one value that a text holds.
    pub(super) fn end(&mut self) -> Scanned<()> {
        self.skip_space();
        if self.at < self.text.len() {
            return self.fail(
                format!("{} behind the end of the policy", self.found()),
                "remove what follows the last }",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<(), Malformed> {
        let mut scanner = Scanner::new(text);
        scanner.skip()?;
        scanner.end()
    }

    #[test]
    fn it_agrees_with_another_reader_of_json() {
        for text in [
            "{}",
            "[]",
            "[1,2]",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "{a:1}",
            "-",
            "-0",
            "-01",
            "01",
            "1.",
            "1.5",
            "1e5",
            "1E+5",
            "1e",
            ".5",
            "+1",
            "NaN",
            "Infinity",
            "-Infinity",
            "0x10",
            "1_000",
            "true",
            "tru",
            "truex",
            "nul",
            "null",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ud83dx\"",
            "\"\\ude00\"",
            "\"a\nb\"",
            "\"\u{7f}\"",
            "{} x",
            "{}{}",
            "",
            " ",
            "[\"a\",{\"b\":[null]}]",
            "'a'",
            "// x\n{}",
            "\"\\ud83d\\u0041\"",
            "\"\\/\\b\\f\\n\\r\\t\"",
            "[1 2]",
            "{\"a\":}",
            "]",
            "}",
            "[}",
        ] {
            let other = serde_json::from_str::<serde_json::Value>(text);
            assert_eq!(whole(text).is_ok(), other.is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let wrong = whole(&"[".repeat(1_000_000)).unwrap_err();
        assert!(wrong.what.contains("deeper than 32"), "{}", wrong.what);
        assert!(whole(&"{\"a\":".repeat(1_000_000)).is_err());
        assert!(whole(&format!("{}{}", "[".repeat(32), "]".repeat(32))).is_ok());
    }
}
