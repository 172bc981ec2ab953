//! The event: its fields, their names in JSON, and the one text form in which it is queued, stored and exported.
//!
//! A field that is not known is absent. Nothing here reads a clock or judges what a field says.

use std::borrow::Cow;
use std::io::Write;

use serde::{Deserialize, Serialize};

mod time;

pub use time::{BadTime, Micros};

/// An event as text is never longer than this.
pub const LONGEST: usize = 32 * 1024;
/// Of a text that an agent chose (host, path), this much is kept.
pub const LONGEST_FOREIGN: usize = 4096;

pub type Text<'a> = Cow<'a, str>;

/// Which of the paths saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    #[default]
    Proxy,
    Dns,
    Nft,
    Sni,
    /// Changes, sign-ins, exports.
    Admin,
    /// What the audit trail says of itself.
    Audit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    Allow,
    #[default]
    Deny,
    /// Nothing was decided: the trail tells something of itself.
    Notice,
}

impl Decision {
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Notice => "notice",
        }
    }
}

/// What is known before the connection is made.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Begun<'a> {
    pub timestamp: Micros,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub request_id: Text<'a>,
    pub source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_type: Option<Text<'a>>,
    /// By what it is recognised (prefix, token id, serial number), never the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_fingerprint: Option<Text<'a>>,
    /// The address that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_address: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_host: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Cut to [`LONGEST_FOREIGN`], as the host is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_method: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement_mode: Option<Text<'a>>,
    /// The rule in `report` mode that would have denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforce_would_deny: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub alert: bool,
}

/// What is known when it is over.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Outcome<'a> {
    pub decision: Decision,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The address that was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_address: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_asn: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_geo: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_applied: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_in: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_estimate: Option<u64>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub dlp_matches: Cow<'a, [String]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anomaly_score: Option<f64>,
    /// How many alike this one stands for; absent: itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folded: Option<u64>,
    /// Begun, and its end was never seen: the gateway stopped in between.
    #[serde(default, skip_serializing_if = "is_false")]
    pub interrupted: bool,
}

// The form is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

/// A whole event, as it is read back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Event {
    pub origin: Origin,
    pub begun: Begun<'static>,
    pub outcome: Outcome<'static>,
}

/// Where it was queued. The three together are an event's name, and no two events have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Origin {
    pub gateway: String,
    /// Of the queue's directory; a gateway that lost its disk begins another one.
    pub queue: String,
    pub sequence: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("the event is {0} bytes long; {LONGEST} are kept")]
    TooLong(usize),
    #[error("the text is no event: {0}")]
    Json(#[from] serde_json::Error),
}

impl Event {
    /// Of a line as it lies in the store, without its chain.
    pub fn parse(text: &[u8]) -> Result<Self, EventError> {
        if text.len() > LONGEST {
            return Err(EventError::TooLong(text.len()));
        }
        Ok(Self {
            origin: serde_json::from_slice(text)?,
            begun: serde_json::from_slice(text)?,
            outcome: serde_json::from_slice(text)?,
        })
    }
}

/// The event without its outcome: an object whose brace is still open.
pub(crate) fn open_text(begun: &Begun<'_>, text: &mut Vec<u8>) -> Result<(), EventError> {
    let foreign =
        |text: &Option<Text<'_>>| text.as_ref().is_some_and(|t| t.len() > LONGEST_FOREIGN);
    if foreign(&begun.path) || foreign(&begun.destination_host) {
        let mut cut = begun.clone();
        cut.path = cut.path.map(shortened);
        cut.destination_host = cut.destination_host.map(shortened);
        serde_json::to_writer(&mut *text, &cut)?;
    } else {
        serde_json::to_writer(&mut *text, begun)?;
    }
    text.pop();
    Ok(())
}

fn shortened(text: Text<'_>) -> Text<'_> {
    let mut end = LONGEST_FOREIGN.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    if end == text.len() {
        return text;
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// What closes the brace again.
pub(crate) fn closing_text(outcome: &Outcome<'_>, text: &mut Vec<u8>) -> Result<(), EventError> {
    let at = text.len();
    serde_json::to_writer(&mut *text, outcome)?;
    if let Some(brace) = text.get_mut(at) {
        *brace = b',';
    }
    Ok(())
}

/// A queued text with its origin in front, as it is stored. None: it is not of the form that a queue writes.
pub fn with_origin(origin: &Origin, queued: &[u8], line: &mut Vec<u8>) -> Option<()> {
    let fields = queued.strip_prefix(b"{")?;
    // A line break would end the record in the store; JSON text of ours has none.
    if fields.len() < 2 || fields.iter().any(|byte| *byte < b' ') {
        return None;
    }
    // Names are made of harmless letters only (see `is_name`), so there is nothing to escape.
    write!(
        line,
        "{{\"gateway\":\"{}\",\"queue\":\"{}\",\"sequence\":{},",
        origin.gateway, origin.queue, origin.sequence
    )
    .ok()?;
    line.extend_from_slice(fields);
    Some(())
}

/// A line as it was queued, without its origin. None: it is not of the form that a store writes.
pub(crate) fn without_origin(line: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, behind) = text.split_once("\"sequence\":")?;
    let (_, fields) = behind.split_once(',')?;
    Some(format!("{{{fields}").into_bytes())
}

/// What may be the name of a gateway or of a queue.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests;
