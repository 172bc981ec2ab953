//! What is right in each of its parts and yet wrong, or hardly meant, as a whole policy.
//!
//! The one place for such rules: every reader of text asks here and says where in its own text the part stands.
//! An error is what would leave somebody less restricted than the policy reads; what is only useless is a warning.

use std::collections::BTreeMap;

use crate::cidr::{Cidr, Wrong};
use crate::parse::MAX_PROBLEMS;
use crate::policy::domain::DomainPattern;
use crate::policy::model::{Host, Policy, PortRule, Protocol, Scope};

/// Identities of the rules count to 65,535, and the cards of agents need some as well.
pub(crate) const MAX_HOSTS: usize = 60_000;

/// A part of a policy, for the reader that knows where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'p> {
    /// None: of the policy that holds for everybody.
    pub(crate) host: Option<&'p str>,
    pub(crate) item: Item<'p>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'p> {
    /// The host or the policy itself.
    Whole,
    Hosts,
    Sources,
    Source(Cidr),
    Allow,
    Domain(&'p DomainPattern),
    Network(Cidr),
    Port(PortRule),
    Label(&'p DomainPattern),
    Proxy,
    WireDomain(&'p DomainPattern),
    Mtls,
    Window(&'p DomainPattern),
    Cap(&'p DomainPattern),
}

#[derive(Debug, Clone)]
pub(crate) struct Finding<'p> {
    pub(crate) part: Part<'p>,
    /// An error, or else a warning.
    pub(crate) grave: bool,
    pub(crate) wrong: Wrong,
}

/// With `doubt` something was written that could not be understood: then nothing is said about what is missing.
pub(crate) fn findings(policy: &Policy, doubt: bool) -> Vec<Finding<'_>> {
    let mut check = Check {
        doubt,
        host: None,
        findings: Vec::new(),
    };
    check.sources(policy);
    check.scope(&policy.global);
    check.labels(policy);
    for (name, host) in &policy.hosts {
        check.host = Some(name);
        check.host(host);
    }
    check.host = None;
    check.shared_addresses(policy);
    check.findings
}

struct Check<'p> {
    doubt: bool,
    host: Option<&'p str>,
    findings: Vec<Finding<'p>>,
}

impl<'p> Check<'p> {
    fn add(
        &mut self,
        grave: bool,
        item: Item<'p>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let known = self.findings.iter().filter(|known| known.grave == grave);
        if known.count() < MAX_PROBLEMS {
            let part = Part {
                host: self.host,
                item,
            };
            let wrong = Wrong::new(what, fix);
            self.findings.push(Finding { part, grave, wrong });
        }
    }

    fn error(&mut self, item: Item<'p>, what: impl Into<String>, fix: impl Into<String>) {
        self.add(true, item, what, fix);
    }

    fn warn(&mut self, item: Item<'p>, what: impl Into<String>, fix: impl Into<String>) {
        self.add(false, item, what, fix);
    }

    /// Of overlapping sources the more specific wins; of equal ones neither could.
    fn sources(&mut self, policy: &'p Policy) {
        if policy.hosts.len() > MAX_HOSTS {
            let what = format!(
                "{} hosts are more than there are identities",
                policy.hosts.len()
            );
            self.error(
                Item::Hosts,
                what,
                format!("write at most {MAX_HOSTS}, hosts of one kind with several sources"),
            );
        }
        let mut owners: BTreeMap<Cidr, &str> = BTreeMap::new();
        for (name, host) in &policy.hosts {
            for &source in &host.sources {
                if let Some(owner) = owners.get(&source) {
                    let what = format!(
                        "{source} is a source of {owner} and of {name}: nothing says which of them a packet is from"
                    );
                    self.host = Some(name);
                    self.error(
                        Item::Source(source),
                        what,
                        format!("keep it in {owner} or in {name}, or write a longer prefix"),
                    );
                    self.host = None;
                } else {
                    owners.insert(source, name);
                }
            }
        }
    }

    fn host(&mut self, host: &'p Host) {
        if host.sources.is_empty() && !self.doubt {
            self.error(
                Item::Sources,
                "the host has no source: no packet could ever be its",
                "add its address, such as 192.168.10.10/32",
            );
        }
        if reaches_nothing(&host.scope) && !self.doubt {
            self.warn(
                Item::Whole,
                "the host reaches nothing: it has no allow of its own, and what everybody may reach is not for hosts named here",
                "give it domains or networks of its own, if it shall reach something",
            );
        }
        self.scope(&host.scope);
        if self.doubt {
            return;
        }
        for name in host
            .exfil
            .keys()
            .filter(|name| !host.scope.lists(name))
            .take(MAX_PROBLEMS)
        {
            if let Some(near) = host.scope.related(name) {
                self.error(
                    Item::Cap(name),
                    format!("the cap would hold for nothing: {name} is not allowed by that name, only {near} is"),
                    format!("add {name} to the host's domains, or write the cap for {near}"),
                );
            } else {
                self.warn(
                    Item::Cap(name),
                    format!("the cap limits nothing: the host may not reach {name}"),
                    format!("add {name} to the host's domains, or remove the cap"),
                );
            }
        }
    }

    fn scope(&mut self, scope: &'p Scope) {
        for name in &scope.allow.domains {
            self.wildcard(Item::Domain(name), name);
        }
        for &network in &scope.allow.ips {
            if network.length == 0 {
                self.warn(
                    Item::Network(network),
                    format!("{network} allows every address there is"),
                    "name the networks that are meant",
                );
            }
        }
        if !self.doubt {
            // Whoever writes a window relies on it: one that restricts nothing must not pass.
            for name in scope
                .domain_time_windows
                .keys()
                .filter(|name| !scope.lists(name))
                .take(MAX_PROBLEMS)
            {
                let what = match scope.related(name) {
                    Some(near) => format!(
                        "the window would hold for nothing: {name} is not allowed by that name, only {near} is"
                    ),
                    None => format!("the window is for {name}, which is not allowed"),
                };
                self.error(
                    Item::Window(name),
                    what,
                    format!("add {name} to the allowed domains, or remove its window"),
                );
            }
        }
        self.proxy(scope);
    }

    fn wildcard(&mut self, item: Item<'p>, name: &'p DomainPattern) {
        if let Some(Wrong { what, right }) = name.doubtful() {
            self.warn(item, what, right);
        }
    }

    fn proxy(&mut self, scope: &'p Scope) {
        let Some(proxy) = &scope.proxy else { return };
        for name in &proxy.domains {
            self.wildcard(Item::WireDomain(name), name);
        }
        if self.doubt {
            return;
        }
        if proxy.mode.is_none() {
            self.warn(
                Item::Proxy,
                "the proxy has no mode and does nothing",
                "add mode sni-allowlist",
            );
        }
        if proxy.mtls.is_some() && proxy.backend.is_none() {
            self.warn(
                Item::Mtls,
                "mtls is for the connection to a backend, and there is none",
                "add backend, or remove mtls",
            );
        }
        let quic = PortRule {
            port: 443,
            protocol: Protocol::Udp,
        };
        if scope.judges_names_on_the_wire() && scope.allow.ports.contains(&quic) {
            self.warn(
                Item::Port(quic),
                "UDP 443 stays closed in mode sni-allowlist, so that clients use TLS, whose names can be judged",
                "remove it",
            );
        }
    }

    /// A label is shown with denials too, so one for a name allowed nowhere is no error; it may be a typo.
    fn labels(&mut self, policy: &'p Policy) {
        if self.doubt {
            return;
        }
        let mut unused: Vec<&DomainPattern> = policy
            .labels
            .keys()
            .filter(|name| !policy.global.lists(name))
            .collect();
        if !unused.is_empty() {
            let scopes = policy.hosts.values().map(|host| &host.scope);
            let mut listed: Vec<&DomainPattern> = scopes.flat_map(Scope::listed).collect();
            listed.sort_unstable();
            unused.retain(|name| listed.binary_search(name).is_err());
        }
        if let Some((&first, more)) = unused.split_first() {
            let what = match more.len() {
                0 => format!("{first} has a label and is allowed to nobody"),
                more => format!("{first} and {more} more have labels and are allowed to nobody"),
            };
            self.warn(
                Item::Label(first),
                what,
                "check the spelling; else the label is shown when the name is denied",
            );
        }
    }

    fn shared_addresses(&mut self, policy: &'p Policy) {
        let by_address =
            |scope: &Scope| !scope.allow.domains.is_empty() && !scope.judges_names_on_the_wire();
        let hosts: Vec<&str> = policy
            .hosts
            .iter()
            .filter(|(_, host)| by_address(&host.scope))
            .map(|(name, _)| name.as_str())
            .collect();
        let global = by_address(&policy.global);
        let Some(&first) = hosts.first().or(global.then_some(&"everybody")) else {
            return;
        };
        let whom = match (global, hosts.len()) {
            (true, 0) => "names".to_owned(),
            (true, 1) => format!("names, for {first} too,"),
            (true, more) => format!("names, for {more} hosts too,"),
            (false, 1) => format!("names of {first}"),
            (false, more) => format!("names of {more} hosts, the first of them {first},"),
        };
        self.host = (!global).then_some(first);
        self.warn(
            Item::Allow,
            format!("{whom} are allowed by the addresses they have: other sites at the same addresses can be reached as well"),
            "set the proxy's mode to sni-allowlist to judge the name in each connection",
        );
        self.host = None;
    }
}

fn reaches_nothing(scope: &Scope) -> bool {
    scope.allow.domains.is_empty() && scope.allow.ips.is_empty() && scope.wire_domains().is_empty()
}

impl Scope {
    fn listed(&self) -> impl Iterator<Item = &DomainPattern> {
        let wire = self.proxy.iter().flat_map(|proxy| &proxy.domains);
        self.allow.domains.iter().chain(wire)
    }

    /// Whether a rule of this scope is for this very pattern.
    pub(crate) fn lists(&self, name: &DomainPattern) -> bool {
        self.allow.domains.contains(name)
            || self
                .proxy
                .as_ref()
                .is_some_and(|proxy| proxy.domains.contains(name))
    }

    /// A listed pattern that shares names with one that is not listed.
    fn related(&self, name: &DomainPattern) -> Option<&DomainPattern> {
        self.listed().find(|other| {
            (other.is_wildcard() && other.matches(name.base()))
                || (name.is_wildcard() && name.matches(other.base()))
        })
    }
}
