//! The same decision, told step by step: each rule in its order, and why it did or did not match.
//!
//! Looks at every rule, and shares with the search only what a single rule means.

use std::fmt;

use clawgress_config::access::{Action, RuleMode};

use super::{
    DEFAULT_DENY, Host, POLICY_JSON, Request, Rules, allowlist,
    build::Rule,
    condition::{Clock, Fit},
    identity::means,
};
use crate::{Index, Moment, Reason, index::sources::plain};

/// A rule that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    pub policy_id: String,
    pub version: u32,
    /// None: of policy.json, which comes last.
    pub priority: Option<u32>,
    pub action: Action,
    pub mode: RuleMode,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Disabled,
    /// It is for somebody else.
    Identity,
    Destination,
    Port,
    Method,
    Path,
    /// It means the world, and the address is inside.
    Inside,
    /// Method or path would have to be seen, and a tunnel hides them.
    Hidden,
    Shut(Reason),
    /// It matches, is only told, and the search goes on.
    Reported,
    /// It matches: this is the decision.
    Decides,
    /// Nothing decided, and a rule in report mode lets pass.
    LetsPass,
    /// What denies where nothing allows.
    Denies(Reason),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("disabled"),
            Self::Identity => f.write_str("no match: it is for somebody else"),
            Self::Destination => f.write_str("no match: it is for other destinations"),
            Self::Port => f.write_str("no match: it is for other ports"),
            Self::Method => f.write_str("no match: it is for other methods"),
            Self::Path => f.write_str("no match: it is for other paths"),
            Self::Inside => f.write_str(
                "no match: the address is inside, and none of its networks is about such addresses alone",
            ),
            Self::Hidden => f.write_str("no match: method and path inside a tunnel cannot be seen"),
            Self::Shut(reason) => write!(f, "no match: {reason}"),
            Self::Reported => f.write_str("match, reported: it would deny; the search goes on"),
            Self::Decides => f.write_str("match: it decides"),
            Self::LetsPass => {
                f.write_str("nothing else decides: a denial in report mode lets pass")
            }
            Self::Denies(reason) => write!(f, "denies: {reason}"),
        }
    }
}

impl Rules {
    /// Every rule up to the one that decides, in order; the last one is the decision.
    pub fn explain(&self, index: &Index, request: &Request<'_>, moment: Moment) -> Vec<Considered> {
        let mut told = Vec::new();
        let last = |policy_id: &str, action, why| Considered {
            policy_id: policy_id.to_owned(),
            version: super::revision(index),
            priority: None,
            action,
            mode: RuleMode::Enforce,
            why,
        };
        let before_all = if index.is_enabled() {
            let disabled = self.identities.class(request).is_disabled();
            disabled.then_some(Reason::AgentDisabled)
        } else {
            Some(Reason::Unavailable)
        };
        if let Some(reason) = before_all {
            told.push(last(DEFAULT_DENY, Action::Deny, Why::Denies(reason)));
            return told;
        }
        let clock = Clock::at(&self.zone, moment);
        let mut disabled = self.disabled.iter().peekable();
        let mut reported: Option<&Rule> = None;
        let mut shut = None;
        for (rule, rank) in self.in_order.iter().zip(0_u32..) {
            while let Some((_, rule)) = disabled.next_if(|(before, _)| *before <= rank) {
                told.push(considered(rule, Why::Disabled));
            }
            let why = rule.why(request, &clock);
            told.push(considered(rule, why));
            match why {
                Why::Decides => return told,
                Why::Reported => reported = reported.or(Some(rule)),
                Why::Shut(reason) if rule.action == Action::Allow => shut = shut.or(Some(reason)),
                _ => {}
            }
        }
        told.extend(disabled.map(|(_, rule)| considered(rule, Why::Disabled)));
        let who = index.scope_on_proxy(request.source);
        match (
            allowlist::judge(index, who, request, moment).allowed,
            reported,
        ) {
            (Ok(()), _) => told.push(last(POLICY_JSON, Action::Allow, Why::Decides)),
            (Err(Reason::NotAllowlisted), Some(rule)) => {
                told.push(considered(rule, Why::LetsPass));
            }
            (Err(reason), _) => {
                let reason = match shut {
                    Some(shut) if reason == Reason::NotAllowlisted => shut,
                    _ => reason,
                };
                told.push(last(DEFAULT_DENY, Action::Deny, Why::Denies(reason)));
            }
        }
        told
    }
}

fn considered(rule: &Rule, why: Why) -> Considered {
    Considered {
        policy_id: rule.id.to_string(),
        version: rule.version,
        priority: Some(rule.priority),
        action: rule.action,
        mode: rule.mode,
        why,
    }
}

impl Rule {
    fn why(&self, request: &Request<'_>, clock: &Clock<'_>) -> Why {
        let Request {
            agent_id,
            team_id,
            project_id,
            environment,
            ..
        } = *request;
        if !means(&self.identity, agent_id, team_id, project_id, environment) {
            return Why::Identity;
        }
        if !self.is_for(request) {
            return Why::Destination;
        }
        match self.fit(request, clock) {
            Fit::Yes if self.is_report() => Why::Reported,
            Fit::Yes => Why::Decides,
            Fit::Port => Why::Port,
            Fit::Method | Fit::Path if request.tunnel => Why::Hidden,
            Fit::Method => Why::Method,
            Fit::Path => Why::Path,
            Fit::Inside => Why::Inside,
            Fit::Nobody => Why::Identity,
            Fit::Shut(reason) => Why::Shut(reason),
        }
    }

    fn is_for(&self, request: &Request<'_>) -> bool {
        if self.domains.is_empty() && self.networks.is_empty() {
            return true;
        }
        let held = |address: std::net::IpAddr| {
            let address = crate::index::sources::plain_address(address);
            self.networks
                .iter()
                .any(|network| plain(*network).contains(address))
        };
        let asked = match request.host {
            Host::Name(name) => self.domains.iter().any(|domain| domain.matches(name)),
            Host::Address(address) => held(address),
        };
        asked
            || (self.action == Action::Deny
                && request.resolved.iter().any(|address| held(*address)))
    }
}
