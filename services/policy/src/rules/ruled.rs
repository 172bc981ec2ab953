//! What the rules for one principal have in common, whatever it asks for: found once for each revision.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clawgress_config::{Cidr, access::Action, policy::DomainPattern};

use super::{
    Host, Ports, Request, Rules, build::Rule, condition::CONNECT, identity::Class, reach::asked,
    search::Search,
};
use crate::{Decision, Index, Moment, Principal, Reason};

/// Nobody's source.
const NOWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// So many ports of one principal's rules are told apart on the path of packets, where each costs an element for every
/// address.
const MOST_PORTS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruled {
    /// TCP ports that lists or rules name: each is judged by itself. All others are alike.
    pub ports: BTreeSet<u16>,
    /// Ports that rules name and that are too many to be told apart: they are shut.
    pub beyond: BTreeSet<u16>,
    /// What rules may open of some name.
    pub opens: Ports,
    /// Networks of rules.
    pub networks: BTreeSet<Cidr>,
    /// A rule is for every destination.
    pub everywhere: bool,
}

/// A rule, as far as it is known before anybody asks.
#[derive(Debug, Clone, Copy)]
pub struct Meant<'r> {
    pub id: &'r str,
    pub domains: &'r [DomainPattern],
    pub action: Action,
    /// It is about method or path, which only a proxy sees: where neither is seen, it denies or does not allow.
    pub by_request: bool,
}

/// What the rules alone say of a name at a port, whose flows nobody reads any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnWire {
    Allowed,
    Denied(Reason),
    /// A rule in report mode would deny: what no list holds passes, too.
    Tried,
    /// Nothing: the lists decide.
    Listed,
}

impl Rules {
    /// What is not of the lists in the decision on a name. Its own text stands for all names of a wildcard of which no
    /// longer pattern is known.
    pub fn on_wire(&self, who: &Principal, name: &str, port: u16, moment: Moment) -> OnWire {
        let request = Request {
            port,
            ..asked(who, Host::Name(name), &[])
        };
        let class = self.identities.class(&request);
        if class.is_disabled() {
            return OnWire::Denied(Reason::AgentDisabled);
        }
        let mut search = Search::of(self, &request, moment);
        self.destinations
            .visit(&request, |list, _, via| search.visit(list, class, via));
        match (search.first(), search.reported()) {
            (Some(rule), _) if rule.action == Action::Allow => OnWire::Allowed,
            (Some(_), _) => OnWire::Denied(Reason::Rule),
            (None, Some(_)) => OnWire::Tried,
            (None, None) => OnWire::Listed,
        }
    }

    pub(crate) fn decide_unseen<'r>(
        &'r self,
        index: &'r Index,
        who: &Principal,
        host: Host<'_>,
        port: u16,
        resolved: &[IpAddr],
        moment: Moment,
    ) -> Decision<'r> {
        let request = Request {
            port,
            source: who.sources.first().map_or(NOWHERE, |source| source.address),
            ..asked(who, host, resolved)
        };
        self.decide(index, &request, moment)
    }

    /// The rules that are for this principal, in their order.
    pub fn meant_for<'r>(&'r self, who: &'r Principal) -> impl Iterator<Item = Meant<'r>> {
        let request = asked(who, Host::Name(""), &[]);
        let class = self.identities.class(&request);
        let rules = self.in_order.iter().zip(0..);
        let meant = rules.filter(move |(rule, rank)| Self::is_for(rule, *rank, class, &request));
        meant.map(|(rule, _)| Meant {
            id: &rule.id,
            domains: &rule.domains,
            action: rule.action,
            by_request: !rule.prefixes.is_empty()
                || rule.methods.iter().any(|method| &**method != CONNECT),
        })
    }

    /// None: no rule is for this principal.
    pub(crate) fn ruled(&self, who: &Principal) -> Option<Ruled> {
        let request = asked(who, Host::Name(""), &[]);
        let class = self.identities.class(&request);
        let mut meant = (self.in_order.iter().zip(0..))
            .filter(|(rule, rank)| Self::is_for(rule, *rank, class, &request))
            .map(|(rule, _)| rule)
            .peekable();
        meant.peek()?;
        let tcp = |port: &u16| who.scope.has_tcp(*port);
        let mut ruled = Ruled {
            ports: who
                .scope
                .ports
                .iter()
                .map(|rule| rule.port)
                .filter(tcp)
                .collect(),
            ..Ruled::default()
        };
        let mut opened = BTreeSet::new();
        let mut opens_all = false;
        for rule in meant {
            ruled.add(rule);
            let for_names = !rule.domains.is_empty() || rule.networks.is_empty();
            if for_names && (rule.action == Action::Allow || rule.is_report()) {
                opens_all |= rule.ports.is_empty();
                opened.extend(rule.ports.iter().copied());
            }
        }
        ruled.opens = if opens_all {
            Ports::all()
        } else {
            Ports::of(opened)
        };
        Some(ruled)
    }

    fn is_for(rule: &Rule, rank: u32, class: Class<'_>, request: &Request<'_>) -> bool {
        match (rule.group, class) {
            (None, _) => true,
            (Some(_), Class::Known(set)) => set.contains(rank),
            (Some(group), Class::Other(identities)) => identities.matches(group, request),
            (Some(_), Class::Disabled) => false,
        }
    }
}

impl Ruled {
    fn add(&mut self, rule: &Rule) {
        for port in &rule.ports {
            if self.ports.len() < MOST_PORTS || self.ports.contains(port) {
                self.ports.insert(*port);
            } else {
                self.beyond.insert(*port);
            }
        }
        self.networks.extend(rule.networks.iter().copied());
        self.everywhere |= rule.domains.is_empty() && rule.networks.is_empty();
    }
}
