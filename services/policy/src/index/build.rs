//! Compiles a revision into an index. The one place where the order of things and what encloses what is decided.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use clawgress_config::{
    Cidr,
    policy::{Allow, DomainPattern, Scope, TimeWindow},
};

use super::{
    CompiledScope, Index, Principal, PrincipalId, PrincipalKind,
    names::{Full, Names},
    rows::{Draft, Rule, ScopeNumber},
    sources::{Claim, Sources, lies_in, plain},
};
use crate::{LanCard, Revision, Window, Zone, window::UnknownZone};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("compiling revision {revision}: {zone}")]
    Zone { revision: u64, zone: UnknownZone },
    #[error(
        "compiling revision {revision}: {first} and {second} both have the source {network}; \
         write a longer prefix for one of them, the more specific source wins"
    )]
    EqualSources {
        revision: u64,
        first: String,
        second: String,
        network: Cidr,
    },
    #[error(
        "compiling revision {revision}: two principals are called {name}; give the host another name"
    )]
    EqualNames { revision: u64, name: String },
    #[error("compiling revision {revision}: it has more than {most} {of}; remove some of them")]
    TooMany {
        revision: u64,
        of: &'static str,
        most: usize,
    },
}

/// Ids are 16 bit wide, and 0 is nobody's.
const MOST_PRINCIPALS: usize = u16::MAX as usize;

impl Index {
    /// Compiles a revision.
    pub fn of(revision: &Revision) -> Result<Self, IndexError> {
        let number = revision.number;
        let zone = Zone::named(&revision.time_zone).map_err(|zone| IndexError::Zone {
            revision: number,
            zone,
        })?;
        let mut build = Build {
            revision,
            names: Names::new(),
            draft: Draft::default(),
            windows: BTreeMap::new(),
        };
        let (mut principals, everybody) = build.principals()?;
        let labels = build.labels()?;
        let claims = build.claims(&principals)?;
        let sources = Sources::of(&claims);
        for (network, owner) in sources.networks() {
            let at = usize::from(owner.0).checked_sub(1);
            if let Some(owner) = at.and_then(|at| principals.get_mut(at)) {
                owner.sources.push(network);
            }
        }
        let warnings = build.warnings(&principals);
        let Build {
            mut names,
            draft,
            windows,
            ..
        } = build;
        let rows = draft.into_rows(|pattern, row| names.set_row(pattern, row));
        names.shrink();
        let mut in_order = vec![Window::NEVER; windows.len()];
        for (window, number) in windows {
            if let Some(place) = in_order.get_mut(number) {
                *place = window;
            }
        }
        Ok(Self {
            revision: number,
            enabled: revision.enabled,
            zone,
            principals,
            everybody,
            sources,
            names,
            rows,
            labels,
            windows: in_order,
            egress_kbps: revision.policy.global.limits.egress_kbps,
            warnings,
        })
    }
}

struct Build<'r> {
    revision: &'r Revision,
    names: Names,
    draft: Draft,
    /// With the number of each.
    windows: BTreeMap<Window, usize>,
}

impl Build<'_> {
    fn too_many(&self, of: &'static str, most: usize) -> IndexError {
        IndexError::TooMany {
            revision: self.revision.number,
            of,
            most,
        }
    }

    fn full(&self, Full: Full) -> IndexError {
        self.too_many("bytes of domain names", u32::MAX as usize)
    }

    /// Without their sources; and the one that stands for everybody else.
    fn principals(&mut self) -> Result<(Vec<Principal>, Principal), IndexError> {
        let revision = self.revision;
        let hosts = &revision.policy.hosts;
        // `identity strict`: who is no host is nobody.
        let lan: &[LanCard] = if revision.access.strict {
            &[]
        } else {
            &revision.network.lan
        };
        if hosts.len() + lan.len() > MOST_PRINCIPALS {
            return Err(self.too_many("hosts and LAN cards", MOST_PRINCIPALS));
        }
        let global = Arc::new(self.scope(&revision.policy.global, 0)?);
        let mut principals = Vec::with_capacity(hosts.len() + lan.len());
        for card in lan {
            principals.push(Principal {
                id: PrincipalId(0),
                name: format!("lan/{}", card.name),
                kind: PrincipalKind::Lan {
                    card: card.name.clone(),
                },
                sources: Vec::new(),
                scope: Arc::clone(&global),
                caps: Vec::new(),
            });
        }
        for ((name, host), number) in hosts.iter().zip(1..) {
            for pattern in host.exfil.keys() {
                self.intern(pattern)?;
            }
            principals.push(Principal {
                id: PrincipalId(0),
                name: name.clone(),
                kind: PrincipalKind::Host,
                sources: Vec::new(),
                scope: Arc::new(self.scope(&host.scope, number)?),
                caps: host.exfil.clone().into_iter().collect(),
            });
        }
        principals.sort_by(|a, b| a.name.cmp(&b.name));
        for (principal, number) in principals.iter_mut().zip(1..) {
            principal.id = PrincipalId(number);
        }
        let twins = principals.chunk_by(|a, b| a.name == b.name);
        if let Some(twin) = twins.filter(|same| same.len() > 1).flatten().next() {
            return Err(IndexError::EqualNames {
                revision: revision.number,
                name: twin.name.clone(),
            });
        }
        let everybody = Principal {
            id: PrincipalId(0),
            name: String::new(),
            kind: PrincipalKind::Lan {
                card: String::new(),
            },
            sources: Vec::new(),
            scope: global,
            caps: Vec::new(),
        };
        Ok((principals, everybody))
    }

    fn scope(&mut self, scope: &Scope, number: ScopeNumber) -> Result<CompiledScope, IndexError> {
        let on_wire = scope.judges_names_on_the_wire();
        let has_own_wire_list = on_wire && scope.wire_domains() != &scope.allow.domains;
        for pattern in &scope.allow.domains {
            self.rule(pattern, number, Rule::ALLOWED)?;
        }
        if has_own_wire_list {
            for pattern in scope.wire_domains() {
                self.rule(pattern, number, Rule::ON_WIRE)?;
            }
        }
        for (pattern, window) in &scope.domain_time_windows {
            let window = self.window(window);
            if window >= Rule::MOST_WINDOWS {
                return Err(self.too_many("different time windows", Rule::MOST_WINDOWS));
            }
            self.rule(pattern, number, Rule::window(window))?;
        }
        let window = scope.time_window.as_ref();
        if let Some(window) = window {
            self.window(window);
        }
        let proxy = scope.proxy.as_ref();
        Ok(CompiledScope {
            global: number == 0,
            ips: scope
                .allow
                .ips
                .iter()
                .map(|network| plain(*network))
                .collect(),
            ports: scope.allow.effective_ports(),
            judges_names_on_the_wire: on_wire,
            backend: proxy.and_then(|proxy| proxy.backend.clone()),
            mtls: proxy.and_then(|proxy| proxy.mtls.clone()),
            window: window.map(Window::from),
            egress_kbps: scope.limits.egress_kbps,
            number,
            has_own_wire_list,
        })
    }

    fn rule(
        &mut self,
        pattern: &DomainPattern,
        scope: ScopeNumber,
        rule: Rule,
    ) -> Result<(), IndexError> {
        let pattern = self.intern(pattern)?;
        self.draft.add(pattern, scope, rule);
        Ok(())
    }

    fn intern(&mut self, pattern: &DomainPattern) -> Result<u32, IndexError> {
        self.names.intern(pattern).map_err(|full| self.full(full))
    }

    fn window(&mut self, window: &TimeWindow) -> usize {
        let next = self.windows.len();
        *self.windows.entry(Window::from(window)).or_insert(next)
    }

    fn labels(&mut self) -> Result<Vec<Box<str>>, IndexError> {
        let mut labels: Vec<Box<str>> = Vec::new();
        let mut known: HashMap<&str, u32> = HashMap::new();
        for (pattern, text) in &self.revision.policy.labels {
            let label = *known.entry(text).or_insert_with(|| {
                labels.push(text.as_str().into());
                labels.len() as u32
            });
            let pattern = self.intern(pattern)?;
            self.names.set_label(pattern, label);
        }
        Ok(labels)
    }

    /// Hosts before LAN cards: what is in any host's source is not the card's, however specific the card's network is.
    fn claims(&self, principals: &[Principal]) -> Result<Vec<Claim>, IndexError> {
        let mut owners: BTreeMap<Cidr, &Principal> = BTreeMap::new();
        let hosts = principals.iter().filter_map(|principal| {
            Some((principal, self.revision.policy.hosts.get(&principal.name)?))
        });
        for (principal, host) in hosts {
            for source in &host.sources {
                self.claim(&mut owners, plain(*source), principal)?;
            }
        }
        let of_hosts: Vec<Cidr> = owners.keys().copied().collect();
        for card in &self.revision.network.lan {
            let name = format!("lan/{}", card.name);
            let Some(principal) = principals.iter().find(|principal| principal.name == name) else {
                continue;
            };
            for network in networks(card) {
                if !of_hosts.iter().any(|source| lies_in(&network, source)) {
                    self.claim(&mut owners, network, principal)?;
                }
            }
        }
        Ok(owners
            .into_iter()
            .map(|(network, principal)| Claim {
                network,
                owner: principal.id,
            })
            .collect())
    }

    fn claim<'p>(
        &self,
        owners: &mut BTreeMap<Cidr, &'p Principal>,
        network: Cidr,
        principal: &'p Principal,
    ) -> Result<(), IndexError> {
        match owners.insert(network, principal) {
            Some(other) if other.id != principal.id => Err(IndexError::EqualSources {
                revision: self.revision.number,
                first: other.name.clone(),
                second: principal.name.clone(),
                network,
            }),
            _ => Ok(()),
        }
    }

    /// The first host that is in a network whose other addresses have the global policy, where that is not the same.
    fn sharing(&self, principal: &Principal) -> Option<&str> {
        let PrincipalKind::Lan { card } = &principal.kind else {
            return None;
        };
        if principal.sources.is_empty() || self.revision.policy.global.allow == Allow::default() {
            return None;
        }
        let cards = self.revision.network.lan.iter();
        let own: Vec<Cidr> = cards
            .filter(|lan| lan.name == *card)
            .flat_map(networks)
            .collect();
        let hosts = &self.revision.policy.hosts;
        let mut near = hosts.iter().filter(|(_, host)| {
            let mut sources = host.sources.iter().map(|source| plain(*source));
            sources.any(|source| own.iter().any(|own| own.overlaps(&source)))
        });
        near.next().map(|(name, _)| name.as_str())
    }

    fn warnings(&self, principals: &[Principal]) -> Vec<String> {
        let lan: Vec<Cidr> = self
            .revision
            .network
            .lan
            .iter()
            .flat_map(networks)
            .collect();
        let mut warnings = Vec::new();
        for (name, host) in &self.revision.policy.hosts {
            if !host.exfil.is_empty() && !host.scope.allow.ips.is_empty() {
                warnings.push(format!(
                    "host {name}: a cap counts what goes to addresses that its name was resolved to; what goes to one of \
                     the allowed networks by its bare address is not counted"
                ));
            }
            for source in &host.sources {
                let network = plain(*source);
                if !lan.iter().any(|lan| lan.overlaps(&network)) {
                    warnings.push(format!(
                        "host {name}: its source {source} is in no network of a LAN card; it is kept, for a router \
                         on the LAN may lead there"
                    ));
                }
            }
        }
        for principal in principals {
            if let Some(host) = self.sharing(principal) {
                warnings.push(format!(
                    "{}: host {host} is among agents of the global policy; a host that takes another address is held to \
                     its own only as long as its hardware address is true: set service clawgress identity strict, or give hosts a \
                     card of their own",
                    principal.name
                ));
            }
            let none_left = principal.sources.is_empty();
            match &principal.kind {
                PrincipalKind::Host if none_left => warnings.push(format!(
                    "host {}: hosts with more specific sources have all of its addresses",
                    principal.name
                )),
                PrincipalKind::Lan { card } if none_left && !has_network(self.revision, card) => {
                    warnings.push(format!(
                        "card {card}: it has no address, so that nobody behind it is known; add one"
                    ));
                }
                _ => {}
            }
        }
        warnings
    }
}

/// The networks of a card. Link-local ones are left out: every card has the same.
fn networks(card: &LanCard) -> impl Iterator<Item = Cidr> {
    card.addresses
        .iter()
        .map(|address| plain(*address))
        .filter(|network| match network.address {
            std::net::IpAddr::V4(v4) => !v4.is_link_local(),
            std::net::IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        })
}

fn has_network(revision: &Revision, card: &str) -> bool {
    revision
        .network
        .lan
        .iter()
        .filter(|lan| lan.name == card)
        .any(|lan| networks(lan).next().is_some())
}
