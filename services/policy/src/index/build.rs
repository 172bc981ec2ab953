//! Compiles a revision into an index. The one place where the order of things and what encloses what is decided.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use clawgress_config::{
    Cidr,
    policy::{DomainPattern, Scope, TimeWindow},
};

use super::{
    CompiledScope, Index, Principal, PrincipalId, PrincipalKind, agents,
    names::{Full, Names},
    rows::{Draft, Rule, ScopeNumber},
    sources::{Claim, Sources, lies_in, plain},
    warnings::networks,
};
use crate::{LanCard, Revision, Rules, RulesError, Window, Zone, window::UnknownZone};

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
    #[error("compiling revision {revision}: {rules}")]
    Rules { revision: u64, rules: RulesError },
    #[error(
        "compiling revision {revision}: agent {agent} has a source {first}, and another one {second}: nothing says whose \
         lists bind it; keep its sources in one place"
    )]
    Scattered {
        revision: u64,
        agent: String,
        first: String,
        second: String,
    },
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
        let rules = Rules::compile(&revision.access, &zone).map_err(|rules| IndexError::Rules {
            revision: number,
            rules,
        })?;
        let mut build = Build {
            revision,
            names: Names::new(),
            draft: Draft::default(),
            windows: BTreeMap::new(),
        };
        let (mut principals, everybody) = build.principals()?;
        for who in &mut principals {
            who.ruled = rules.ruled(who).map(Arc::new);
        }
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
            rules: Arc::new(rules),
            names,
            rows,
            labels,
            windows: in_order,
            egress_kbps: revision.policy.global.limits.egress_kbps,
            warnings,
        })
    }
}

pub(super) struct Build<'r> {
    pub(super) revision: &'r Revision,
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
        let bound = agents::bound(revision)?;
        if hosts.len() + lan.len() + bound.len() > MOST_PRINCIPALS {
            return Err(self.too_many("hosts, agents with sources and LAN cards", MOST_PRINCIPALS));
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
                agent: None,
                ruled: None,
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
                agent: agents::identity(revision, name),
                ruled: None,
                sources: Vec::new(),
                scope: Arc::new(self.scope(&host.scope, number)?),
                caps: host.exfil.clone().into_iter().collect(),
            });
        }
        for (id, host) in bound {
            let of_host = host.and_then(|host| principals.iter().find(|who| who.name == host));
            let scope = of_host.map_or(&global, |host| &host.scope);
            principals.push(Principal {
                id: PrincipalId(0),
                name: id.to_owned(),
                agent: agents::identity(revision, id),
                ruled: None,
                sources: Vec::new(),
                scope: Arc::clone(scope),
                caps: Vec::new(),
                kind: PrincipalKind::Agent {
                    host: host.map(str::to_owned),
                },
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
            agent: None,
            ruled: None,
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

    /// Hosts and agents before LAN cards: what is in a source of one is not the card's, however specific the card's
    /// network is.
    fn claims(&self, principals: &[Principal]) -> Result<Vec<Claim>, IndexError> {
        let mut owners: BTreeMap<Cidr, &Principal> = BTreeMap::new();
        for principal in principals.iter().filter(|principal| !principal.is_lan()) {
            let host = self.revision.policy.hosts.get(&principal.name);
            let agent = self.revision.access.agents.get(&principal.name);
            let of_host = host.into_iter().flat_map(|host| &host.sources);
            let of_agent = agent.into_iter().flat_map(|agent| &agent.sources);
            for source in of_host.chain(of_agent) {
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
}
