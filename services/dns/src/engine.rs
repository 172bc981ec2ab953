//! The way of a question: who asks, what the policy says, what named says, what of that may be told, and is it pinned.
//!
//! `step` judges with what is known at this moment and never waits. What it lacks (facts from named, a pin) is fetched,
//! and it judges anew: so an answer always follows the revision of the moment at which it leaves.

mod account;
mod relay;
mod wait;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use clawgress_policy::{Moment, NameVerdict, Reason};
use hickory_proto::rr::RecordType;
use tokio::sync::oneshot;

use crate::answer::Answer;
use crate::budget::{self, Budgets};
use crate::cache::Table;
use crate::complaints::Complaints;
use crate::counts::Counts;
use crate::enforcer::Link;
use crate::events::Events;
use crate::facts::{self, Facts};
use crate::flights::{self, Flight, Flights};
use crate::pins::Pinned;
use crate::question::{Fault, Question};
use crate::rules::{Rules, Who};
use crate::trail::{By, Trail};
use crate::upstream::Upstream;

/// What this process may hold at a time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub flights: flights::Limits,
    pub budget: budget::Limits,
    pub cached_answers: usize,
    pub remembered_pins: usize,
}

pub struct Engine {
    rules: ArcSwapOption<Rules>,
    standing: ArcSwap<Standing>,
    blocked: ArcSwap<Blocked>,
    /// The enforcer is there and has had its revision loaded. Without it nothing is answered with an address.
    ready: AtomicBool,
    /// Rises whenever what was pinned before counts no more.
    epoch: AtomicU64,
    own: ArcSwap<Vec<IpAddr>>,
    cache: Mutex<Table<Key, Arc<Facts>>>,
    pinned: Mutex<Pinned>,
    budgets: Mutex<Budgets>,
    counts: Mutex<Counts>,
    complaints: Mutex<Complaints>,
    events: Mutex<Events>,
    trail: Mutex<Trail>,
    /// Who waits for an answer of named that has been asked for already.
    asking: Mutex<HashMap<Key, Vec<oneshot::Sender<Arc<Facts>>>>>,
    most_asking: usize,
    flights: Arc<Flights>,
    upstream: Upstream,
    link: Link,
}

/// What the enforcer says that changes from moment to moment.
#[derive(Debug, Default)]
struct Standing {
    over_cap: HashMap<String, HashSet<String>>,
    clock_trusted: bool,
}

/// Whom the kill switch holds.
#[derive(Debug, Default, Clone)]
struct Blocked {
    all: bool,
    principals: HashSet<String>,
}

/// Type, then name.
type Key = Box<[u8]>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    Agent(IpAddr),
    /// The TLS front, on loopback.
    Front,
}

/// What became of a packet at once.
pub enum Begun {
    Silence,
    Answer(Vec<u8>),
    /// Something has to be fetched first.
    Waits(Box<Waiting>),
}

pub struct Waiting {
    question: Question,
    asker: Asker,
    room: usize,
    step: Step,
    /// Counted as in flight until dropped.
    _flight: Flight,
}

/// Where a question stands.
enum Step {
    Say(Answer),
    /// named has to be asked. Under a wildcard it is asked less often.
    Ask {
        name: String,
        kind: RecordType,
        wild: bool,
    },
    /// The enforcer has to pin.
    Pin(Wanted),
}

struct Wanted {
    principal: String,
    id: u16,
    revision: u64,
    epoch: u64,
    name: String,
    addresses: Vec<IpAddr>,
    until: Instant,
}

/// A question that the policy allows.
struct Allowed<'r> {
    question: &'r Question,
    asker: Asker,
    rules: &'r Rules,
    who: Who<'r>,
    name: &'r str,
    pattern: &'r str,
    label: Option<&'r str>,
    pin: bool,
    by_rules: bool,
    by: By<'r>,
    moment: Moment,
    now: Instant,
}

/// Why a question is denied.
struct Denial<'r> {
    reason: Reason,
    label: Option<&'r str>,
    /// The rule that would have allowed the name.
    pattern: Option<&'r str>,
    by: By<'r>,
}

impl Denial<'_> {
    fn of(reason: Reason) -> Self {
        Self {
            reason,
            label: None,
            pattern: None,
            by: By::NOTHING,
        }
    }
}

impl Allowed<'_> {
    fn wild(&self) -> bool {
        self.pattern.starts_with('*')
    }
}

impl Asker {
    fn source(self) -> IpAddr {
        match self {
            Self::Agent(source) => source,
            Self::Front => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

impl Engine {
    pub fn new(
        limits: &Limits,
        upstream: Upstream,
        link: Link,
        events: Events,
        trail: Trail,
    ) -> Arc<Self> {
        Arc::new(Self {
            rules: ArcSwapOption::empty(),
            standing: ArcSwap::default(),
            blocked: ArcSwap::default(),
            ready: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            own: ArcSwap::default(),
            cache: Mutex::new(Table::new(limits.cached_answers)),
            pinned: Mutex::new(Pinned::new(limits.remembered_pins)),
            budgets: Mutex::new(Budgets::new(limits.budget)),
            counts: Mutex::default(),
            complaints: Mutex::default(),
            events: Mutex::new(events),
            trail: Mutex::new(trail),
            asking: Mutex::default(),
            most_asking: limits.flights.total,
            flights: Flights::new(limits.flights),
            upstream,
            link,
        })
    }

    /// Reads a packet and answers it, unless something has to be fetched first. `over_stream`: it came over TCP.
    pub fn begin(&self, packet: &[u8], asker: Asker, over_stream: bool) -> Begun {
        let question = match Question::read(packet) {
            Ok(question) => question,
            Err(Fault::Silence) => return Begun::Silence,
            Err(Fault::Say(header)) => return Begun::Answer(header.to_vec()),
        };
        let room = if over_stream {
            usize::from(u16::MAX)
        } else {
            question.room()
        };
        let (principal, step) = self.step(&question, asker, None);
        let step = match step {
            Step::Say(answer) => return Begun::Answer(answer.to_bytes(&question, room)),
            step => step,
        };
        let source = match asker {
            Asker::Agent(source) => Some(source),
            Asker::Front => None,
        };
        let Some(flight) = self.flights.begin(principal, source) else {
            let answer = self.failed_for(&question, asker, "too many questions at a time");
            return Begun::Answer(answer.to_bytes(&question, room));
        };
        Begun::Waits(Box::new(Waiting {
            question,
            asker,
            room,
            step,
            _flight: flight,
        }))
    }

    /// One judgement, with the number of whoever asked. `fetched`: what named said a moment ago.
    fn step(&self, question: &Question, asker: Asker, fetched: Option<&Arc<Facts>>) -> (u16, Step) {
        if question.is_of_the_future() {
            return (0, Step::Say(Answer::bad_version()));
        }
        if !question.is_internet() {
            return (0, Step::Say(Answer::not_internet()));
        }
        let rules = self.rules.load();
        let Some(rules) = rules.as_deref() else {
            let recorded = self.denied(question, asker, None, &Denial::of(Reason::Unavailable));
            return (0, say(recorded, Answer::unready()));
        };
        let who = match asker {
            Asker::Agent(source) => rules.agent(source),
            Asker::Front => Some(Who::Front),
        };
        let Some(who) = who else {
            let recorded = self.denied(
                question,
                asker,
                Some((rules, None)),
                &Denial::of(Reason::UnknownSource),
            );
            return (0, say(recorded, Answer::stranger()));
        };
        (who.id(), self.judge(question, asker, rules, who, fetched))
    }

    fn judge(
        &self,
        question: &Question,
        asker: Asker,
        rules: &Rules,
        who: Who<'_>,
        fetched: Option<&Arc<Facts>>,
    ) -> Step {
        let deny = |denial: Denial<'_>| {
            let recorded = self.denied(question, asker, Some((rules, Some(who))), &denial);
            say(recorded, Answer::denied(denial.reason, denial.label))
        };
        // The front's flows are held where they leave.
        if let Who::Agent(principal) = who
            && self.is_blocked(&principal.name)
        {
            return deny(Denial::of(Reason::Blocked));
        }
        let standing = self.standing.load();
        let moment = rules.moment(unix_now(), standing.clock_trusted);
        let Some(name) = question.name.as_deref() else {
            return deny(Denial::of(Reason::NotAllowlisted));
        };
        let judged = rules.judge(who, name, moment);
        let (pattern, label, pin) = match judged.verdict {
            NameVerdict::Allow {
                pattern,
                label,
                pin,
            } => (pattern, label, pin),
            NameVerdict::Deny { reason, label } => {
                return deny(Denial {
                    reason,
                    label,
                    pattern: None,
                    by: judged.by,
                });
            }
        };
        let is_over = |principal: &str, pattern: &str| {
            let names = standing.over_cap.get(principal);
            names.is_some_and(|names| names.contains(pattern))
        };
        if !standing.over_cap.is_empty() && rules.over_cap(who, name, is_over) {
            return deny(Denial {
                reason: Reason::OverCap,
                label,
                pattern: Some(pattern),
                by: By {
                    label,
                    ..By::NOTHING
                },
            });
        }
        let allowed = Allowed {
            question,
            asker,
            rules,
            who,
            name,
            pattern,
            label,
            pin,
            by_rules: judged.by_rules,
            by: judged.by,
            moment,
            now: Instant::now(),
        };
        if !self.ready.load(Ordering::Acquire) {
            let recorded = self.failed(&allowed);
            return say(recorded, Answer::failed("the enforcer is away"));
        }
        match question.kind() {
            kind if facts::is_address(kind) => self.relay(&allowed, fetched),
            kind if facts::is_plain_data(kind) && !allowed.wild() => self.relay(&allowed, fetched),
            kind => {
                let recorded = self.answered(&allowed, false);
                let answer = match kind {
                    // Whatever they would tell (keys that hide a name, other transports, other addresses, another
                    // port) leads past what is enforced; without them clients ask for addresses.
                    RecordType::HTTPS | RecordType::SVCB => Answer::nothing(),
                    RecordType::ANY => Answer::minimal_any(),
                    _ => Answer::unsupported(),
                };
                say(recorded, answer)
            }
        }
    }
}

/// What can't be recorded is not said.
fn say(recorded: bool, answer: Answer) -> Step {
    Step::Say(if recorded {
        answer
    } else {
        Answer::failed("it can't be recorded")
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; if something did, the table is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_secs().cast_signed())
}

/// Builds the key of an answer on the stack.
fn with_key<T>(name: &str, kind: RecordType, body: impl FnOnce(&[u8]) -> T) -> T {
    let mut buffer = [0; 2 + 255];
    buffer[..2].copy_from_slice(&u16::from(kind).to_be_bytes());
    // A canonical name has at most 253 bytes; were one longer, its key would match nothing but itself cut short.
    let length = name.len().min(255);
    buffer[2..2 + length].copy_from_slice(&name.as_bytes()[..length]);
    body(&buffer[..2 + length])
}
