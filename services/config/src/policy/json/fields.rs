//! Typed reading of JSON that goes on after an error: what is wrong is reported with its path and place, the rest is
//! read all the same.

use std::fmt::Write as _;

use crate::cidr::Wrong;
use crate::nearest::nearest;
use crate::parse::MAX_PROBLEMS;
use crate::policy::json::scan::{Malformed, Scanner, Type};
use crate::policy::name::shown;

/// Why reading ended early.
pub(super) enum Stop {
    Malformed(Malformed),
    /// So much is wrong already that more would say nothing new.
    Enough,
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

pub(super) type Read<T> = Result<T, Stop>;

/// One step down from a value to one that it holds.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Field(&'static str),
    Key(String),
    Index(u32),
}

/// A problem whose place is still counted in bytes.
pub(super) struct Found {
    pub(super) at: usize,
    pub(super) path: String,
    pub(super) wrong: Wrong,
}

pub(super) struct Reader<'t> {
    pub(super) scanner: Scanner<'t>,
    path: Vec<Step>,
    pub(super) found: Vec<Found>,
}

/// `hosts.agent-1.allow.ips[3]`; names with other characters in brackets and quotes.
pub(super) fn written(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        let name = match step {
            Step::Index(index) => {
                write!(text, "[{index}]").ok();
                continue;
            }
            Step::Field(name) => name,
            Step::Key(name) => name.as_str(),
        };
        let plain = !name.is_empty()
            && name.len() <= 63
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !plain {
            write!(text, "[\"{}\"]", shown(name)).ok();
            continue;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(name);
    }
    text
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            scanner: Scanner::new(text),
            path: Vec::new(),
            found: Vec::new(),
        }
    }

    /// The path of the present value.
    pub(super) fn path(&self) -> String {
        written(&self.path)
    }

    pub(super) fn report(&mut self, at: usize, wrong: Wrong) -> Read<()> {
        self.report_at(at, self.path(), wrong)
    }

    /// Reports for a value that was read before.
    pub(super) fn report_at(&mut self, at: usize, path: String, wrong: Wrong) -> Read<()> {
        self.found.push(Found { at, path, wrong });
        if self.found.len() >= MAX_PROBLEMS {
            return Err(Stop::Enough);
        }
        Ok(())
    }

    /// Reports for a value below the present one.
    pub(super) fn report_below(&mut self, step: Step, at: usize, wrong: Wrong) -> Read<()> {
        self.path.push(step);
        let read = self.report(at, wrong);
        self.path.pop();
        read
    }

    /// The value, or none after a report that says why.
    pub(super) fn accept<T>(&mut self, at: usize, value: Result<T, Wrong>) -> Read<Option<T>> {
        match value {
            Ok(value) => Ok(Some(value)),
            Err(wrong) => {
                self.report(at, wrong)?;
                Ok(None)
            }
        }
    }

    /// The place of the next value if it has this type; else it is reported and passed over.
    pub(super) fn expect(&mut self, want: Type, like: &str) -> Read<Option<usize>> {
        let (found, at) = self.scanner.peek()?;
        if found == want {
            return Ok(Some(at));
        }
        let fix = if found == Type::Null {
            format!("write {like}, or leave the field out")
        } else {
            format!("write {like}")
        };
        self.report(
            at,
            Wrong::new(
                format!("{} is needed, this is {}", want.word(), found.word()),
                fix,
            ),
        )?;
        self.scanner.skip()?;
        Ok(None)
    }

    /// Reads an object of known fields, each at most once. False if there is no object at all.
    pub(super) fn fields(
        &mut self,
        known: &'static [&'static str],
        like: &str,
        mut each: impl FnMut(&mut Self, &'static str) -> Read<()>,
    ) -> Read<bool> {
        if self.expect(Type::Object, like)?.is_none() {
            return Ok(false);
        }
        let mut seen = 0_u32;
        let mut more = self.scanner.open_object()?;
        while more {
            let (key, at) = self.scanner.key()?;
            if let Some(index) = known.iter().position(|name| *name == key) {
                let twice = seen & (1 << index) != 0;
                seen |= 1 << index;
                self.path.push(Step::Field(known[index]));
                let read = if twice {
                    self.twice(at)
                } else {
                    each(self, known[index])
                };
                self.path.pop();
                read?;
            } else {
                let fix = nearest(&key, known.iter().copied()).map_or_else(
                    || format!("known here: {}", known.join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                let wrong = Wrong::new("this field is not known here", fix);
                self.report_below(Step::Key(key.into_owned()), at, wrong)?;
                self.scanner.skip()?;
            }
            more = self.scanner.next_in_object()?;
        }
        Ok(true)
    }

    fn twice(&mut self, at: usize) -> Read<()> {
        self.report(
            at,
            Wrong::new("this field is there twice", "keep one of them"),
        )?;
        self.scanner.skip()?;
        Ok(())
    }

    /// Reads an object whose names are the operator's.
    pub(super) fn entries(
        &mut self,
        like: &str,
        mut each: impl FnMut(&mut Self, &str, usize) -> Read<()>,
    ) -> Read<()> {
        if self.expect(Type::Object, like)?.is_none() {
            return Ok(());
        }
        let mut more = self.scanner.open_object()?;
        while more {
            let (key, at) = self.scanner.key()?;
            each(self, &key, at)?;
            more = self.scanner.next_in_object()?;
        }
        Ok(())
    }

    /// Goes on below the name `key`.
    pub(super) fn below<T>(
        &mut self,
        key: &str,
        each: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<T> {
        self.path.push(Step::Key(key.to_owned()));
        let read = each(self);
        self.path.pop();
        read
    }

    /// Reads an array; `each` reads the value at its place.
    pub(super) fn items(
        &mut self,
        like: &str,
        mut each: impl FnMut(&mut Self, u32) -> Read<()>,
    ) -> Read<Option<usize>> {
        let Some(at) = self.expect(Type::Array, like)? else {
            return Ok(None);
        };
        let mut more = self.scanner.open_array()?;
        let mut index = 0;
        while more {
            self.path.push(Step::Index(index));
            let read = each(self, index);
            self.path.pop();
            read?;
            index += 1;
            more = self.scanner.next_in_array()?;
        }
        Ok(Some(at))
    }

    /// A text and its place.
    pub(super) fn text<T>(
        &mut self,
        like: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Read<Option<(T, usize)>> {
        let Some(at) = self.expect(Type::Text, like)? else {
            return Ok(None);
        };
        let text = self.scanner.text()?;
        let value = self.accept(at, parse(&text))?;
        Ok(value.map(|value| (value, at)))
    }

    /// A whole number that is not negative, and its place.
    pub(super) fn whole<T>(
        &mut self,
        like: &str,
        parse: impl FnOnce(u64) -> Result<T, Wrong>,
    ) -> Read<Option<(T, usize)>> {
        let Some(at) = self.expect(Type::Number, like)? else {
            return Ok(None);
        };
        let text = self.scanner.number()?;
        let number = match text.parse::<u64>() {
            Ok(number) => parse(number),
            Err(_) => Err(not_whole(text, like)),
        };
        let value = self.accept(at, number)?;
        Ok(value.map(|value| (value, at)))
    }
}

fn not_whole(text: &str, like: &str) -> Wrong {
    let kind = if text.contains(['.', 'e', 'E']) {
        "not a whole number in plain digits"
    } else if text.starts_with('-') {
        "negative"
    } else {
        "larger than any number here"
    };
    Wrong::new(
        format!("{} is {kind}", shown(text)),
        format!("write {like}"),
    )
}
