//! The audit trail of questions: each is recorded before its answer leaves. What repeats within a second is one event
//! more, with its number, so that a question that is asked a thousand times costs a look into a table.
//!
//! What can't be recorded is not answered, unless the revision says that it is to be counted.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use clawgress_audit::event::{Begun, Decision, Micros, Outcome, Source};
use clawgress_audit::queue::{OpenError, Queue, Reader, Refused, Settings, WhenFull};
use clawgress_policy::rules::{DEFAULT_DENY, POLICY_JSON};
use clawgress_policy::{Principal, Reason};
use hickory_proto::rr::RecordType;

/// Different questions of one second that are folded; those beyond are recorded one by one.
const MOST_FOLDED: usize = 8192;

/// What was decided of a question.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// None: nobody whom the revision knows.
    pub who: Option<&'a Principal>,
    pub source: IpAddr,
    pub name: &'a str,
    pub kind: RecordType,
    pub revision: Option<u64>,
    /// Why it was denied, or had no answer.
    pub reason: Option<Reason>,
    pub by: By<'a>,
}

/// What decided.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    pub policy_id: &'a str,
    pub version: Option<u32>,
    pub label: Option<&'a str>,
    pub would_deny: Option<&'a str>,
    pub alert: bool,
}

impl By<'_> {
    pub const NOTHING: By<'static> = By {
        policy_id: DEFAULT_DENY,
        version: None,
        label: None,
        would_deny: None,
        alert: false,
    };
    pub const LISTS: By<'static> = By {
        policy_id: POLICY_JSON,
        ..By::NOTHING
    };
}

pub struct Trail {
    queue: Queue,
    when_full: WhenFull,
    folded: HashMap<Box<[u8]>, Folded>,
    /// Not recorded since there was last room, by the revision's leave.
    dropped: u64,
}

/// The questions like one that was recorded.
struct Folded {
    begun: Begun<'static>,
    outcome: Outcome<'static>,
    repeats: u64,
    /// The last second's could not be recorded.
    stuck: bool,
}

impl Trail {
    pub fn open(directory: &Path, max_bytes: u64, share: u64) -> Result<Self, OpenError> {
        let settings = Settings {
            // Whether what does not fit is dropped is the revision's to say, and there is none yet.
            when_full: WhenFull::Refuse,
            max_bytes,
            share_per_agent: share,
            ..Settings::default()
        };
        Ok(Self {
            queue: Queue::open(directory, settings)?,
            when_full: WhenFull::Refuse,
            folded: HashMap::new(),
            dropped: 0,
        })
    }

    /// For whoever ships it.
    pub fn reader(&self) -> Reader {
        self.queue.reader()
    }

    pub fn set_when_full(&mut self, when_full: WhenFull) {
        self.when_full = when_full;
    }

    /// True if it may be answered.
    pub fn record(&mut self, asked: &Asked<'_>) -> bool {
        let mut buffer = Key::new();
        let key = buffer.of(asked);
        if let Some(known) = self.folded.get_mut(key) {
            if known.stuck && self.when_full == WhenFull::Refuse {
                return false;
            }
            known.repeats += 1;
            return true;
        }
        let (begun, outcome) = (begun(asked), outcome(asked));
        if let Err(refused) = self.queue.whole(&begun, &outcome) {
            return self.without_record(&refused);
        }
        if self.folded.len() < MOST_FOLDED {
            let folded = Folded {
                begun: owned(begun),
                outcome,
                repeats: 0,
                stuck: false,
            };
            self.folded.insert(key.into(), folded);
        }
        true
    }

    fn without_record(&mut self, refused: &Refused) -> bool {
        // A queue that is out of order is no queue that is full.
        let full = matches!(
            refused,
            Refused::Full(_) | Refused::Space(_) | Refused::Share(_)
        );
        let passes = full && self.when_full == WhenFull::DropCounted;
        self.dropped += u64::from(passes);
        passes
    }

    /// To be called about once a second: records what repeated.
    pub fn end_second(&mut self) {
        let queue = &self.queue;
        self.folded.retain(|_, folded| {
            if folded.repeats == 0 {
                return false;
            }
            folded.outcome.folded = Some(folded.repeats);
            folded.stuck = queue.whole(&folded.begun, &folded.outcome).is_err();
            folded.stuck
        });
        if self.dropped > 0 {
            let begun = Begun {
                timestamp: Micros::now(),
                source: Source::Dns,
                ..Begun::default()
            };
            let outcome = Outcome {
                decision: Decision::Notice,
                reason: Some(Cow::Borrowed("dropped")),
                folded: Some(self.dropped),
                ..Outcome::default()
            };
            if self.queue.whole(&begun, &outcome).is_ok() {
                self.dropped = 0;
            }
        }
    }
}

fn begun<'a>(asked: &Asked<'a>) -> Begun<'a> {
    let Asked { who, by, .. } = *asked;
    let agent = who.and_then(|who| who.agent.as_deref());
    Begun {
        timestamp: Micros::now(),
        source: Source::Dns,
        agent_id: who.map(|who| Cow::Borrowed(who.name.as_str())),
        team_id: agent.map(|agent| Cow::Borrowed(agent.team_id.as_str())),
        project_id: agent.map(|agent| Cow::Borrowed(agent.project_id.as_str())),
        environment: agent.map(|agent| Cow::Borrowed(agent.environment.as_str())),
        client_address: Some(Cow::Owned(asked.source.to_string())),
        destination_host: Some(Cow::Borrowed(asked.name)),
        policy_id: Some(Cow::Borrowed(by.policy_id)),
        policy_version: by.version,
        revision: asked.revision,
        enforcement_mode: Some(Cow::Borrowed(if by.would_deny.is_some() {
            "report"
        } else {
            "enforce"
        })),
        enforce_would_deny: by.would_deny.map(Cow::Borrowed),
        label: by.label.map(Cow::Borrowed),
        alert: by.alert,
        ..Begun::default()
    }
}

fn outcome(asked: &Asked<'_>) -> Outcome<'static> {
    Outcome {
        decision: match asked.reason {
            None => Decision::Allow,
            Some(_) => Decision::Deny,
        },
        reason: asked.reason.map(|reason| Cow::Borrowed(reason.word())),
        ..Outcome::default()
    }
}

fn owned(begun: Begun<'_>) -> Begun<'static> {
    let own = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
    Begun {
        timestamp: begun.timestamp,
        source: begun.source,
        agent_id: own(begun.agent_id),
        team_id: own(begun.team_id),
        project_id: own(begun.project_id),
        environment: own(begun.environment),
        client_address: own(begun.client_address),
        destination_host: own(begun.destination_host),
        policy_id: own(begun.policy_id),
        policy_version: begun.policy_version,
        revision: begun.revision,
        enforcement_mode: own(begun.enforcement_mode),
        enforce_would_deny: own(begun.enforce_would_deny),
        label: own(begun.label),
        alert: begun.alert,
        ..Begun::default()
    }
}

/// What makes questions alike, on the stack: the source, the type, the revision, the reason and the name.
struct Key([u8; Key::HEAD + Key::NAME], usize);

impl Key {
    const HEAD: usize = 16 + 2 + 8 + 1;
    /// Longer names differ in what is cut off from no other that can be asked for.
    const NAME: usize = 255;

    fn new() -> Self {
        Self([0; Self::HEAD + Self::NAME], 0)
    }

    fn of(&mut self, asked: &Asked<'_>) -> &[u8] {
        let source = match asked.source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let reason = asked
            .reason
            .and_then(|reason| Reason::ALL.iter().position(|known| *known == reason))
            .map_or(u8::MAX, |at| at as u8);
        self.put(&source);
        self.put(&u16::from(asked.kind).to_be_bytes());
        self.put(&asked.revision.unwrap_or_default().to_be_bytes());
        self.put(&[reason]);
        let name = asked.name.as_bytes();
        self.put(name.get(..Self::NAME).unwrap_or(name));
        self.0.get(..self.1).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(self.1..self.1 + bytes.len()) {
            place.copy_from_slice(bytes);
            self.1 += bytes.len();
        }
    }
}
