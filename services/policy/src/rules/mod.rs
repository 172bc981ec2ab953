//! Who may reach what, by rules: the one decision that every path of an agent's traffic asks for.
//!
//! The first rule that matches decides: by ascending priority, denials before permissions, then by id. Where none does,
//! the revision's policy.json decides; what that does not allow is denied. Pure, total, and bounded whatever is asked:
//! agents choose host, method and path, and no answer allocates.
//!
//! A denial in report mode lets pass what only the absence of another rule would deny. It never undoes a rule that is
//! enforced, nor does it stop the search for one.
//!
//! What can't be seen (method and path of what runs in a tunnel) is no reason to allow, and one to deny: a rule that
//! allows by it does not match there, and a rule that denies by it does.

mod allowlist;
mod build;
mod condition;
mod destination;
mod explain;
mod identity;
mod ports;
mod reach;
mod ruled;
mod search;
mod set;

use std::net::IpAddr;

use clawgress_config::{access::Action, policy::DomainPattern};

pub use build::RulesError;
pub use clawgress_config::access::canonical_path;
pub use explain::{Considered, Why};
pub use ports::Ports;
pub(crate) use reach::listed_ports;
pub use reach::{Reach, wire_ports};
pub use ruled::{Meant, OnWire, Ruled};

use crate::{Index, Moment, Reason, Window, Zone};
use build::Rule;
use destination::Destinations;
use identity::Identities;
use search::Search;

/// The id of decisions that the revision's policy.json made.
pub const POLICY_JSON: &str = "policy.json";
/// The id of denials that no rule and no list made.
pub const DEFAULT_DENY: &str = "default-deny";

/// Stands for all names where a pattern is told.
pub const EVERY_NAME: &str = "*";

/// What an agent asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub agent_id: &'a str,
    pub team_id: &'a str,
    pub project_id: &'a str,
    pub environment: &'a str,
    pub source: IpAddr,
    pub host: Host<'a>,
    pub port: u16,
    /// None: it can't be seen.
    pub method: Option<&'a str>,
    /// Canonical. None: it can't be seen.
    pub path: Option<&'a str>,
    /// The request is for a tunnel; what will run in it can't be seen.
    pub tunnel: bool,
    /// Where the name leads; empty before that is known.
    pub resolved: &'a [IpAddr],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    /// Canonical.
    Name(&'a str),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is an answer of its own
pub struct Decision<'r> {
    pub allowed: bool,
    /// Of the rule; `policy.json` or `default-deny` where none decided.
    pub policy_id: &'r str,
    /// Of the rule; where none decided, the number of the revision.
    pub version: u32,
    /// Of a denial, always.
    pub reason: Option<Reason>,
    pub label: Option<&'r str>,
    /// The rule in report mode that would have denied what is allowed.
    pub would_deny: Option<&'r str>,
    /// A rule that matched wants somebody to be told.
    pub alert: bool,
    /// The tunnel may carry something else than TLS.
    pub plain_tunnel: bool,
    /// The request may change its protocol.
    pub upgrade: bool,
}

/// The rules of a revision, compiled.
pub struct Rules {
    /// Those that are enabled, in the order in which they are asked. A rule's place is its rank.
    in_order: Vec<Rule>,
    /// With the rank of the rule that each would stand before.
    disabled: Vec<(u32, Rule)>,
    identities: Identities,
    destinations: Destinations,
    zone: Zone,
    /// Each different one once.
    windows: Vec<Window>,
}

impl Rules {
    /// Judges a request by the rules and, where none of them decides, by the index of the same revision.
    pub fn decide<'r>(
        &'r self,
        index: &'r Index,
        request: &Request<'_>,
        moment: Moment,
    ) -> Decision<'r> {
        if !index.is_enabled() {
            return denied_by_default(index, Reason::Unavailable, None);
        }
        let class = self.identities.class(request);
        if class.is_disabled() {
            return denied_by_default(index, Reason::AgentDisabled, None);
        }
        let mut search = Search::of(self, request, moment);
        self.destinations
            .visit(request, |list, _, via| search.visit(list, class, via));
        let first = search.first();
        let reported = search.reported();
        let alert = search.alerts();
        if let Some(rule) = first {
            let allowed = rule.action == Action::Allow;
            return Decision {
                allowed,
                policy_id: &rule.id,
                version: rule.version,
                reason: (!allowed).then_some(Reason::Rule),
                label: rule.label.as_deref(),
                would_deny: reported.filter(|_| allowed).map(|rule| &*rule.id),
                alert,
                plain_tunnel: allowed && rule.plain_tunnel,
                upgrade: allowed && rule.upgrade,
            };
        }
        let who = index.scope_on_proxy(request.source);
        let verdict = allowlist::judge(index, who, request, moment);
        match (verdict.allowed, reported) {
            (Ok(()), reported) => Decision {
                allowed: true,
                policy_id: POLICY_JSON,
                version: revision(index),
                reason: None,
                label: verdict.label,
                would_deny: reported.map(|rule| &*rule.id),
                alert,
                plain_tunnel: false,
                upgrade: false,
            },
            // A window, a port or a clock in the way is no matter of a rule that is only tried.
            (Err(Reason::NotAllowlisted), Some(rule)) => Decision {
                allowed: true,
                policy_id: &rule.id,
                version: rule.version,
                reason: None,
                label: rule.label.as_deref().or(verdict.label),
                would_deny: Some(&rule.id),
                alert,
                plain_tunnel: rule.plain_tunnel,
                upgrade: rule.upgrade,
            },
            (Err(reason), _) => {
                // A rule that is shut says more than that there is none.
                let reason = match search.shut() {
                    Some(shut) if reason == Reason::NotAllowlisted => shut,
                    _ => reason,
                };
                denied_by_default(index, reason, verdict.label)
            }
        }
    }

    /// The first instant after the moment at which a window of any rule opens or closes. None while the clock can't be
    /// trusted: whatever has a window is shut until that changes.
    pub fn next_change(&self, moment: Moment) -> Option<i64> {
        if !moment.trusted {
            return None;
        }
        self.windows
            .iter()
            .filter_map(|window| window.next_change(&self.zone, moment.now))
            .min()
    }

    /// Every domain of a rule that may let a name pass: it allows, or would only be told to deny. `*`: one that is for
    /// every destination.
    pub fn patterns_let_through(&self) -> impl Iterator<Item = &str> {
        self.in_order
            .iter()
            .filter(|rule| rule.action == Action::Allow || rule.is_report())
            .flat_map(|rule| {
                let every = rule.domains.is_empty() && rule.networks.is_empty();
                let domains = rule.domains.iter().map(DomainPattern::as_str);
                domains.chain(every.then_some(EVERY_NAME))
            })
    }

    /// How many rules are enabled.
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }
}

fn denied_by_default<'r>(index: &Index, reason: Reason, label: Option<&'r str>) -> Decision<'r> {
    Decision {
        allowed: false,
        policy_id: DEFAULT_DENY,
        version: revision(index),
        reason: Some(reason),
        label,
        would_deny: None,
        alert: false,
        plain_tunnel: false,
        upgrade: false,
    }
}

fn revision(index: &Index) -> u32 {
    u32::try_from(index.revision()).unwrap_or(u32::MAX)
}
