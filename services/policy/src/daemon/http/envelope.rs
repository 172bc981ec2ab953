//! Opens the JSON object of a call: known members with their places in the text, everything else an error that says
//! where. The members' own meaning is somebody else's matter.
//!
//! No input panics, recurses or takes more memory than a few times its size.

use std::ops::Range;

use axum::http::StatusCode;
use clawgress_link::admin::Trouble;
use serde::de::{Deserialize, Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::daemon::http::refusal::Refusal;

/// Deeper than any policy, far from what hurts.
const DEEPEST: usize = 32;
/// More problems than these help nobody.
const MOST_PROBLEMS: usize = 100;

#[derive(Debug)]
pub(crate) struct Envelope<'b> {
    text: &'b str,
    members: Vec<(&'static str, &'b RawValue)>,
}

impl<'b> Envelope<'b> {
    /// Nothing at all counts as an empty object.
    pub(crate) fn open(body: &'b [u8], known: &'static [&'static str]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|error| {
            let sane = body.get(..error.valid_up_to()).unwrap_or_default();
            let (line, column) = place(&String::from_utf8_lossy(sane), error.valid_up_to());
            malformed(Trouble {
                line: Some(line),
                column: Some(column),
                ..trouble("this is not UTF-8", "send UTF-8")
            })
        })?;
        if text.is_empty() {
            return Ok(Self {
                text,
                members: Vec::new(),
            });
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let raw = reader
            .deserialize_map(Members { known })
            .and_then(|raw| reader.end().map(|()| raw))
            .map_err(|error| malformed(syntax(&error)))?;
        let envelope = Self {
            text,
            members: raw.members,
        };
        if raw.problems.is_empty() {
            return envelope.shallow();
        }
        let problems = raw
            .problems
            .into_iter()
            .map(|(at, problem)| envelope.located(at, problem))
            .collect();
        Err(Refusal::troubles(
            StatusCode::BAD_REQUEST,
            "malformed request",
            problems,
        ))
    }

    pub(crate) fn member(&self, name: &str) -> Option<&'b RawValue> {
        let (_, raw) = self.members.iter().find(|(member, _)| *member == name)?;
        // What `null` says is: there is none.
        (raw.get() != "null").then_some(*raw)
    }

    /// The member as a `T`, or none if it is absent.
    pub(crate) fn read<T: Deserialize<'b>>(
        &self,
        name: &'static str,
        fix: &'static str,
    ) -> Result<Option<T>, Refusal> {
        let Some(raw) = self.member(name) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| {
            let problem = Trouble {
                path: name.to_owned(),
                ..trouble(&format!("{} is of no use here", shortened(raw.get())), fix)
            };
            Refusal::troubles(
                StatusCode::BAD_REQUEST,
                "malformed request",
                vec![self.located(Some(raw), problem)],
            )
        })
    }

    /// Line and column where a member begins; both count from 1.
    pub(crate) fn place_of(&self, raw: &RawValue) -> (u32, u32) {
        place(self.text, self.range_of(raw).start)
    }

    /// The bytes of the body that a member is.
    pub(crate) fn range_of(&self, raw: &RawValue) -> Range<usize> {
        let start = (raw.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        start..start + raw.get().len()
    }

    fn located(&self, at: Option<&RawValue>, problem: Trouble) -> Trouble {
        let Some(raw) = at else {
            return problem;
        };
        let (line, column) = self.place_of(raw);
        Trouble {
            line: Some(line),
            column: Some(column),
            ..problem
        }
    }

    /// Refuses what is nested so deep that no reader after this one should have to be careful.
    fn shallow(self) -> Result<Self, Refusal> {
        for (name, raw) in &self.members {
            if let Some(offset) = too_deep(raw.get()) {
                let (line, column) = place(self.text, self.range_of(raw).start + offset);
                return Err(malformed(Trouble {
                    path: (*name).to_owned(),
                    line: Some(line),
                    column: Some(column),
                    ..trouble(
                        &format!("this is nested more than {DEEPEST} levels deep"),
                        "a policy needs no more than six",
                    )
                }));
            }
        }
        Ok(self)
    }
}

struct Members {
    known: &'static [&'static str],
}

#[derive(Default)]
struct Raw<'b> {
    members: Vec<(&'static str, &'b RawValue)>,
    problems: Vec<(Option<&'b RawValue>, Trouble)>,
}

impl<'b> Visitor<'b> for Members {
    type Value = Raw<'b>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'b>>(self, mut map: A) -> Result<Raw<'b>, A::Error> {
        let mut raw = Raw::default();
        while let Some((name, value)) = map.next_entry::<String, &'b RawValue>()? {
            let problem = match self.known.iter().find(|known| **known == name) {
                Some(known) if raw.members.iter().all(|(member, _)| member != known) => {
                    raw.members.push((known, value));
                    continue;
                }
                Some(_) => trouble("this is given twice", "give it once"),
                None => trouble("there is no such field here", &self.fix(&name)),
            };
            if raw.problems.len() < MOST_PROBLEMS {
                let path = shortened(&name);
                raw.problems
                    .push((Some(value), Trouble { path, ..problem }));
            }
        }
        Ok(raw)
    }
}

impl Members {
    fn fix(&self, name: &str) -> String {
        let lower = name.to_lowercase();
        // Three letters tell each of the few fields apart.
        let begins = |known: &&&str| known.get(..3) == lower.get(..3) && lower.len() >= 3;
        match self.known.iter().find(begins) {
            Some(known) => format!("did you mean {known}?"),
            None => format!("the fields here are {}", self.known.join(", ")),
        }
    }
}

fn trouble(what: &str, fix: &str) -> Trouble {
    Trouble {
        path: String::new(),
        line: None,
        column: None,
        what: what.to_owned(),
        fix: fix.to_owned(),
    }
}

fn malformed(problem: Trouble) -> Refusal {
    Refusal::troubles(StatusCode::BAD_REQUEST, "malformed JSON", vec![problem])
}

fn syntax(error: &serde_json::Error) -> Trouble {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    Trouble {
        line: u32::try_from(error.line()).ok(),
        column: u32::try_from(error.column()).ok(),
        ..trouble(
            text.strip_suffix(&place).unwrap_or(&text),
            "send one JSON object",
        )
    }
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain("…".chars()).collect()
}

/// Line and column of an offset; both count from 1, columns in characters.
fn place(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count()
        + 1;
    let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (bounded(line), bounded(column))
}

/// Where valid JSON first goes deeper than it may.
fn too_deep(json: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (offset, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > DEEPEST {
                    return Some(offset);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["key", "policy", "apply"];

    fn reason(body: &[u8]) -> String {
        Envelope::open(body, KNOWN).unwrap_err().reason().to_owned()
    }

    #[test]
    fn an_object_is_taken_with_members_without_and_with_null() {
        for body in [
            r#"{"key":"k"}"#,
            "{}",
            "",
            r#" {"key":null,"policy":{"a":1}} "#,
        ] {
            assert!(Envelope::open(body.as_bytes(), KNOWN).is_ok(), "{body}");
        }
        let envelope = Envelope::open(br#"{"key":null,"apply":true}"#, KNOWN).unwrap();
        assert!(envelope.member("key").is_none());
        assert_eq!(envelope.read::<bool>("apply", "").unwrap(), Some(true));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (body, expected) in [
            ("{\n  \"key\": }", "line 2 column 10: expected value"),
            ("[]", "line 1"),
            ("{} {}", "line 1 column 4: trailing characters"),
            ("{\"policy\":NaN}", "line 1 column 11: expected value"),
            (
                "{\"kee\":1}",
                "line 1 column 8: kee: there is no such field here; the fields",
            ),
            ("{\"policies\":{}}", "did you mean policy?"),
            (
                "{\"key\":\"a\",\n\"key\":\"b\"}",
                "line 2 column 7: key: this is given twice",
            ),
            ("{\"key\"", "EOF while parsing"),
        ] {
            let reason = reason(body.as_bytes());
            assert!(reason.contains(expected), "{body}: {reason}");
        }
        assert!(reason(b"{\n\"key\":\"\xff\"}").contains("line 2 column 8: this is not UTF-8"));
        let envelope = Envelope::open(b"{\"apply\":\n \"yes\"}", KNOWN).unwrap();
        let refusal = envelope.read::<bool>("apply", "true or false").unwrap_err();
        assert_eq!(
            refusal.reason(),
            "line 2 column 2: apply: \"yes\" is of no use here; true or false"
        );
    }

    #[test]
    fn any_depth_is_refused_and_none_overflows() {
        for open in ["[", "{\"a\":"] {
            let body = format!("{{\"policy\":{}", open.repeat(1_000_000));
            assert!(reason(body.as_bytes()).contains("EOF"));
        }
        let body = format!("{{\"policy\":{}1{}}}", "[".repeat(33), "]".repeat(33));
        let text = reason(body.as_bytes());
        assert!(
            text.contains("line 1 column 43: policy: this is nested"),
            "{text}"
        );
        let body = format!("{{\"policy\":[\"{}\"]}}", "[\\\"{".repeat(1000));
        assert!(Envelope::open(body.as_bytes(), KNOWN).is_ok());
    }

    #[test]
    fn members_know_their_place() {
        let body = "{\"key\":\"ä\", \"policy\": {\n \"x\": 1}}".as_bytes();
        let envelope = Envelope::open(body, KNOWN).unwrap();
        let policy = envelope.member("policy").unwrap();
        assert_eq!(envelope.place_of(policy), (1, 23));
        assert_eq!(&body[envelope.range_of(policy)], b"{\n \"x\": 1}");
    }
}
