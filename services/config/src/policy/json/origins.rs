//! Where in the text each part of a policy was written, kept small: a million domains cost eight bytes each.

use std::collections::BTreeMap;

use crate::cidr::Cidr;
use crate::policy::check::{Item, Part};
use crate::policy::domain::DomainPattern;
use crate::policy::json::fields::Step;
use crate::policy::model::{Policy, PortRule, Scope};

/// Place and index of a value in its array.
pub(super) type Spot = (u32, u32);

#[derive(Default)]
pub(super) struct Origins {
    pub(super) global: ScopeOrigins,
    /// In the order of the labels.
    pub(super) labels: Vec<u32>,
    pub(super) hosts: BTreeMap<String, HostOrigins>,
}

#[derive(Default)]
pub(super) struct HostOrigins {
    pub(super) at: u32,
    pub(super) scope: ScopeOrigins,
    pub(super) sources: BTreeMap<Cidr, Spot>,
    /// In the order of the caps.
    pub(super) caps: Vec<u32>,
}

#[derive(Default)]
pub(super) struct ScopeOrigins {
    pub(super) allow: u32,
    /// In the order of the domains.
    pub(super) domains: Vec<Spot>,
    pub(super) networks: BTreeMap<Cidr, Spot>,
    pub(super) ports: BTreeMap<PortRule, Spot>,
    pub(super) proxy: u32,
    pub(super) wire_domains: Vec<Spot>,
    pub(super) mtls: u32,
    /// In the order of the windows.
    pub(super) windows: Vec<u32>,
}

fn rank<'p>(
    mut names: impl Iterator<Item = &'p DomainPattern>,
    name: &DomainPattern,
) -> Option<usize> {
    names.position(|known| known == name)
}

impl Origins {
    /// The path of a part and its place.
    pub(super) fn of(&self, policy: &Policy, part: Part<'_>) -> (Vec<Step>, u32) {
        let mut path = Vec::new();
        if let Item::Label(name) = part.item {
            let at = rank(policy.labels.keys(), name).and_then(|rank| self.labels.get(rank));
            return (
                vec![Step::Field("labels"), Step::Key(name.to_string())],
                at.copied().unwrap_or_default(),
            );
        }
        let Some(name) = part.host else {
            let at = self.global.of(&policy.global, part.item, &mut path);
            return (path, at);
        };
        path.extend([Step::Field("hosts"), Step::Key(name.to_owned())]);
        let (Some(host), Some(origin)) = (policy.hosts.get(name), self.hosts.get(name)) else {
            return (path, 0);
        };
        let at = match part.item {
            Item::Source(source) => {
                let (at, index) = origin.sources.get(&source).copied().unwrap_or_default();
                path.extend([Step::Field("sources"), Step::Index(index)]);
                at
            }
            Item::Sources => {
                path.push(Step::Field("sources"));
                origin.at
            }
            Item::Cap(name) => {
                path.extend([
                    Step::Field("exfil"),
                    Step::Field("domains"),
                    Step::Key(name.to_string()),
                ]);
                rank(host.exfil.keys(), name)
                    .and_then(|rank| origin.caps.get(rank))
                    .copied()
                    .unwrap_or(origin.at)
            }
            item => match origin.scope.of(&host.scope, item, &mut path) {
                0 => origin.at,
                at => at,
            },
        };
        (path, at)
    }
}

impl ScopeOrigins {
    fn of(&self, scope: &Scope, item: Item<'_>, path: &mut Vec<Step>) -> u32 {
        let mut listed = |fields: [&'static str; 2], spot: Option<Spot>| {
            let (at, index) = spot.unwrap_or_default();
            path.extend(fields.map(Step::Field));
            path.push(Step::Index(index));
            at
        };
        match item {
            Item::Domain(name) => {
                let rank = rank(scope.allow.domains.iter(), name);
                let spot = rank.and_then(|rank| self.domains.get(rank)).copied();
                listed(["allow", "domains"], spot)
            }
            Item::Network(network) => {
                listed(["allow", "ips"], self.networks.get(&network).copied())
            }
            Item::Port(port) => listed(["allow", "ports"], self.ports.get(&port).copied()),
            Item::WireDomain(name) => {
                let domains = scope.proxy.iter().flat_map(|proxy| &proxy.domains);
                let spot = rank(domains, name).and_then(|rank| self.wire_domains.get(rank));
                listed(["proxy", "domains"], spot.copied())
            }
            Item::Window(name) => {
                path.extend([
                    Step::Field("domain_time_windows"),
                    Step::Key(name.to_string()),
                ]);
                rank(scope.domain_time_windows.keys(), name)
                    .and_then(|rank| self.windows.get(rank))
                    .copied()
                    .unwrap_or_default()
            }
            Item::Allow => {
                path.push(Step::Field("allow"));
                self.allow
            }
            Item::Proxy => {
                path.push(Step::Field("proxy"));
                self.proxy
            }
            Item::Mtls => {
                path.extend([Step::Field("proxy"), Step::Field("mtls")]);
                self.mtls
            }
            Item::Hosts => {
                path.push(Step::Field("hosts"));
                0
            }
            Item::Whole | Item::Sources | Item::Source(_) | Item::Label(_) | Item::Cap(_) => 0,
        }
    }
}
