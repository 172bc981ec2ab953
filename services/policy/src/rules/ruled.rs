//! What the rules for one principal have in common, whatever it asks for: found once for each revision.

use std::collections::BTreeSet;

use clawgress_config::{Cidr, access::Action};

use super::{Host, Ports, Request, Rules, build::Rule, identity::Class, reach::asked};
use crate::Principal;

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

impl Rules {
    /// None: no rule is for this principal.
    pub(crate) fn ruled(&self, who: &Principal) -> Option<Ruled> {
        let request = asked(who, Host::Name(""), &[]);
        let class = self.identities.class(&request);
        let rules = self.in_order.iter().zip(0..);
        let mut meant = rules
            .filter(|(rule, rank)| self.is_for(rule, *rank, class, &request))
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

    fn is_for(&self, rule: &Rule, rank: u32, class: Class<'_>, request: &Request<'_>) -> bool {
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
