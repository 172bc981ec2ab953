//! Compiles the rules of a revision. The one place where their order is decided.

use std::{cmp::Reverse, collections::BTreeSet};

use clawgress_config::access::{self, Access, Action, IdentityMatch, RuleMode};
use clawgress_config::{Cidr, policy::DomainPattern};

use super::{Rules, destination, identity, identity::Group};
use crate::{Window, Zone};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    #[error("compiling the rules: they have more than {most} {of}; remove some of them")]
    TooMany { of: &'static str, most: usize },
}

/// Ranks are 32 bit wide, and the last one is nobody's.
const MOST_RULES: usize = u32::MAX as usize - 1;

/// A rule as it is asked.
pub(super) struct Rule {
    pub(super) id: Box<str>,
    pub(super) version: u32,
    pub(super) priority: u32,
    pub(super) mode: RuleMode,
    pub(super) action: Action,
    pub(super) alert: bool,
    pub(super) plain_tunnel: bool,
    pub(super) upgrade: bool,
    pub(super) label: Option<Box<str>>,
    /// None: everybody's.
    pub(super) group: Option<Group>,
    /// Ascending; empty: every port.
    pub(super) ports: Box<[u16]>,
    pub(super) methods: Box<[Box<str>]>,
    pub(super) prefixes: Box<[Box<str>]>,
    pub(super) window: Option<Window>,
    /// For those who ask why.
    pub(super) identity: IdentityMatch,
    pub(super) domains: Box<[DomainPattern]>,
    pub(super) networks: Box<[Cidr]>,
}

impl Rule {
    fn of(id: &str, rule: &access::Rule) -> Self {
        let texts = |set: &BTreeSet<String>| set.iter().map(|text| text.as_str().into()).collect();
        Self {
            id: id.into(),
            version: rule.version,
            priority: rule.priority,
            mode: rule.mode,
            action: rule.action,
            alert: rule.alert,
            plain_tunnel: rule.plain_tunnel,
            upgrade: rule.upgrade,
            label: rule.label.as_deref().map(Into::into),
            group: None,
            ports: rule.ports.iter().copied().collect(),
            methods: texts(&rule.methods),
            prefixes: texts(&rule.path_prefixes),
            window: rule.time_window.as_ref().map(Window::from),
            identity: rule.identity.clone(),
            domains: rule.domains.iter().cloned().collect(),
            networks: rule.networks.iter().copied().collect(),
        }
    }

    /// A denial that is only told.
    pub(super) fn is_report(&self) -> bool {
        self.mode == RuleMode::Report && self.action == Action::Deny
    }
}

/// What the order is by: priority, then deny before allow, then id.
fn order<'a>(id: &'a str, rule: &access::Rule) -> (u32, Reverse<bool>, &'a str) {
    (rule.priority, Reverse(rule.action == Action::Deny), id)
}

impl Rules {
    /// Compiles the rules and agents of a revision.
    pub fn compile(access: &Access, zone: &Zone) -> Result<Self, RulesError> {
        if access.rules.len() > MOST_RULES {
            return Err(RulesError::TooMany {
                of: "rules",
                most: MOST_RULES,
            });
        }
        let mut written: Vec<(&String, &access::Rule)> = access.rules.iter().collect();
        written.sort_unstable_by_key(|(id, rule)| order(id, rule));
        let mut rules: Vec<Rule> = Vec::with_capacity(written.len());
        let mut disabled = Vec::new();
        let mut identities = identity::Draft::default();
        let mut destinations = destination::Draft::new();
        let mut groups = Vec::with_capacity(written.len());
        let mut windows = BTreeSet::new();
        for (id, source) in written {
            let rank = rules.len() as u32;
            let mut rule = Rule::of(id, source);
            if !source.enabled {
                disabled.push((rank, rule));
                continue;
            }
            rule.group = identities.add(&source.identity, rank);
            groups.push(rule.group);
            windows.extend(rule.window);
            if rule.domains.is_empty() && rule.networks.is_empty() {
                destinations.everywhere(rank);
            }
            for name in &rule.domains {
                destinations
                    .name(name, rank)
                    .map_err(|_| RulesError::TooMany {
                        of: "bytes of domain names",
                        most: u32::MAX as usize,
                    })?;
            }
            for network in &rule.networks {
                destinations.network(*network, rank);
            }
            rules.push(rule);
        }
        Ok(Self {
            identities: identities.finish(access, rules.len()),
            destinations: destinations.finish(&groups),
            in_order: rules,
            disabled,
            zone: zone.clone(),
            windows: windows.into_iter().collect(),
        })
    }
}
