//! What a revision means, ready to be asked: whose is a source, may it reach a name now, what counts against what.
//!
//! Every path (resolver, kernel plan, wire, proxy) asks the same index, so that all of them say the same. Pure: the
//! moment is an argument. Whatever is asked with, however hostile, costs bounded time and allocates nothing.

mod agents;
mod build;
mod counted;
pub(crate) mod names;
mod principal;
mod rows;
pub(crate) mod sources;
mod warnings;

use std::{net::IpAddr, sync::Arc};

use clawgress_config::{
    Cidr,
    policy::{Cap, DomainPattern},
};

pub use build::IndexError;
pub use counted::Counted;
pub use principal::{CompiledScope, Identity, Principal, PrincipalId, PrincipalKind, Ruled};

use crate::rules::wire_ports;
use crate::{Decision, Host, Moment, Ports, Reach, Reason, Rules, Window, Zone};
use names::{Entry, Names};
use rows::{Rows, Rule};
use sources::Sources;

/// A revision, compiled. Everything that it hands out is valid with this very index only.
pub struct Index {
    revision: u64,
    enabled: bool,
    zone: Zone,
    /// By id, which is by name.
    principals: Vec<Principal>,
    /// Whoever is no host, wherever the request comes from: has the global scope, no source and no caps.
    everybody: Principal,
    sources: Sources,
    /// They go before all lists.
    rules: Arc<Rules>,
    names: Names,
    rows: Rows,
    labels: Vec<Box<str>>,
    /// Each different one once.
    windows: Vec<Window>,
    egress_kbps: Option<u32>,
    warnings: Vec<String>,
}

/// Whether somebody may reach a name now. The label is that of the longest labelled pattern that means the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameVerdict<'i> {
    Allow {
        /// The most specific rule that allows it.
        pattern: &'i str,
        label: Option<&'i str>,
        /// Whether its addresses may be pinned. False for a name that only the list judged on the wire holds: its
        /// addresses are told and not pinned, or they would be reachable on every other port, too.
        pin: bool,
    },
    Deny {
        reason: Reason,
        label: Option<&'i str>,
    },
}

impl NameVerdict<'_> {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

impl Index {
    /// The number of the revision that it was compiled from.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// In the order of their ids.
    pub fn principals(&self) -> &[Principal] {
        &self.principals
    }

    pub fn by_name(&self, name: &str) -> Option<&Principal> {
        let at = self
            .principals
            .binary_search_by(|principal| principal.name.as_str().cmp(name))
            .ok()?;
        self.principals.get(at)
    }

    pub fn by_id(&self, id: PrincipalId) -> Option<&Principal> {
        self.principals.get(usize::from(id.0).checked_sub(1)?)
    }

    /// Whose address this is: that host's or agent's whose most specific source holds it, else that of the LAN card's in
    /// whose network it lies. None: nobody's, reason `unknown-source`. An IPv4 address in IPv6 clothing is that IPv4 address.
    pub fn principal_of(&self, source: IpAddr) -> Option<&Principal> {
        self.by_id(self.sources.owner(source)?)
    }

    /// Whose lists a request to the proxy is judged by: the host's in whose source the address lies, else the global
    /// ones. Who asks has an identity by its credential, so that its address needs not be known.
    pub fn scope_on_proxy(&self, source: IpAddr) -> &Principal {
        self.principal_of(source)
            .filter(|principal| !principal.is_lan())
            .unwrap_or(&self.everybody)
    }

    /// Whose caps and limit this one shares: its host's, or its own.
    pub fn holder<'w>(&'w self, who: &'w Principal) -> &'w Principal {
        match &who.kind {
            PrincipalKind::Agent { host: Some(host) } => self.by_name(host).unwrap_or(who),
            _ => who,
        }
    }

    /// The rules of the revision.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// False: the box is sealed, and nothing is allowed whatever rules say.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// All sources in ascending order, IPv4 first; no two overlap.
    pub fn disjoint_sources(&self) -> Vec<(Cidr, PrincipalId)> {
        self.sources.networks()
    }

    /// What is unusual and yet taken: for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The ceiling over all principals together.
    pub fn egress_kbps(&self) -> Option<u32> {
        self.egress_kbps
    }

    /// What this principal may reach of a canonical name, by rules and lists, where the name leads to `resolved`. None:
    /// no rule has a say, and the lists alone decide.
    pub fn reach_name(
        &self,
        who: &Principal,
        name: &str,
        resolved: &[IpAddr],
        moment: Moment,
    ) -> Option<Reach<'_>> {
        // Most have no rules, and are asked for with every question.
        if who.is_unruled() {
            return None;
        }
        self.rules
            .reach(self, who, Host::Name(name), resolved, moment)
    }

    /// The decision on a flow of this principal that nobody reads.
    pub fn decide_unseen(
        &self,
        who: &Principal,
        host: Host<'_>,
        port: u16,
        resolved: &[IpAddr],
        moment: Moment,
    ) -> Decision<'_> {
        self.rules
            .decide_unseen(self, who, host, port, resolved, moment)
    }

    /// The same of an address that is asked for as such.
    pub fn reach_address(
        &self,
        who: &Principal,
        address: IpAddr,
        moment: Moment,
    ) -> Option<Reach<'_>> {
        if who.is_unruled() {
            return None;
        }
        self.rules
            .reach(self, who, Host::Address(address), &[], moment)
    }

    /// The TCP and UDP ports at which the lists alone open networks.
    pub fn listed_ports(&self, who: &Principal) -> (Ports, Ports) {
        crate::rules::listed_ports(who)
    }

    /// Whether whoever reads a canonical name in a hello or a Host header may let it pass to this port of what the name
    /// leads to, and by which pattern.
    pub fn reach_on_wire(
        &self,
        who: &Principal,
        name: &str,
        port: u16,
        resolved: &[IpAddr],
        moment: Moment,
    ) -> Result<&str, Reason> {
        if !who.scope.judges_names_on_the_wire {
            return Err(Reason::NotAllowlisted);
        }
        match self.reach_name(who, name, resolved, moment) {
            Some(reach) if reach.tcp.contains(port) => Ok(reach.pattern),
            Some(reach) => Err(reach.decision.reason.unwrap_or(Reason::Port)),
            None => match self.judge_wire_name(who, name, moment) {
                NameVerdict::Allow { pattern, .. } => Ok(pattern),
                NameVerdict::Deny { reason, .. } => Err(reason),
            },
        }
    }

    /// By which pattern a canonical name may pass on the wire, at any of its ports.
    pub fn pattern_on_wire(&self, who: &Principal, name: &str, moment: Moment) -> Option<&str> {
        if !who.scope.judges_names_on_the_wire {
            return None;
        }
        match self.reach_name(who, name, &[], moment) {
            Some(reach) => {
                let ports = reach.tcp.and(&wire_ports(who));
                (!ports.is_empty()).then_some(reach.pattern)
            }
            None => match self.judge_wire_name(who, name, moment) {
                NameVerdict::Allow { pattern, .. } => Some(pattern),
                NameVerdict::Deny { .. } => None,
            },
        }
    }

    /// The resolver's question, for a canonical name, of the lists alone: may its addresses be told? Allowed are the
    /// names of `allow.domains`, and in SNI mode those of the list that is judged on the wire.
    pub fn judge_name(&self, who: &Principal, name: &str, moment: Moment) -> NameVerdict<'_> {
        let found = self.find(who, name, Rule::ALLOWED, moment);
        if found.verdict.is_ok() || !who.scope.has_own_wire_list {
            return found.told(true);
        }
        let on_wire = self.find(who, name, Rule::ON_WIRE, moment);
        match (&found.verdict, &on_wire.verdict) {
            // A rule that is shut says more than that there is none.
            (Err(reason), Err(Reason::NotAllowlisted)) if *reason != Reason::NotAllowlisted => {
                found.told(false)
            }
            _ => on_wire.told(false),
        }
    }

    /// The same of whoever read a name in a TLS hello or a Host header. Where names are not judged on the wire,
    /// none is allowed there.
    pub fn judge_wire_name(&self, who: &Principal, name: &str, moment: Moment) -> NameVerdict<'_> {
        let list = if who.scope.has_own_wire_list {
            Rule::ON_WIRE
        } else {
            Rule::ALLOWED
        };
        let mut found = self.find(who, name, list, moment);
        if !who.scope.judges_names_on_the_wire {
            found.verdict = Err(Reason::NotAllowlisted);
        }
        found.told(list == Rule::ALLOWED)
    }

    /// Whether the window that encloses the scope is open, for networks and ports. Names may have their own.
    pub fn is_open(&self, who: &Principal, moment: Moment) -> bool {
        self.judge_scope(who, moment).is_ok()
    }

    /// Whether the scope is open, and else why not.
    pub fn judge_scope(&self, who: &Principal, moment: Moment) -> Result<(), Reason> {
        if !self.enabled {
            return Err(Reason::Unavailable);
        }
        self.judge_window(who.scope.window, moment)
    }

    /// The first instant after the moment at which any window opens or closes, of a list or of a rule. None while the
    /// clock can't be trusted: whatever has a window is shut until that changes.
    pub fn next_change(&self, moment: Moment) -> Option<i64> {
        if !self.enabled || !moment.trusted {
            return None;
        }
        self.windows
            .iter()
            .filter_map(|window| window.next_change(&self.zone, moment.now))
            .chain(self.rules.next_change(moment))
            .min()
    }

    /// The label of the longest labelled pattern that means this name.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.names
            .matching(name)
            .find_map(|entry| self.label_of(&entry))
    }

    /// What this principal may send out to each capped name, by pattern: together with all others of the same holder.
    pub fn caps<'w>(&'w self, who: &'w Principal) -> &'w [(DomainPattern, Cap)] {
        &self.holder(who).caps
    }

    /// The caps that a canonical name counts against: all whose pattern means it, the most specific first.
    pub fn caps_of<'w>(
        &'w self,
        who: &'w Principal,
        name: &'w str,
    ) -> impl Iterator<Item = &'w (DomainPattern, Cap)> {
        let caps = self.caps(who);
        let matching = (!caps.is_empty()).then(|| self.names.matching(name));
        matching.into_iter().flatten().filter_map(|entry| {
            let at = caps.binary_search_by(|cap| cap.0.as_str().cmp(entry.pattern()));
            caps.get(at.ok()?)
        })
    }

    /// Every pattern that somebody's lists or a rule let pass, in no particular order: what the policy zone lets pass.
    /// `*` stands for every name.
    pub fn allowed_patterns(&self) -> impl Iterator<Item = &str> {
        self.names
            .entries()
            .filter(|entry| self.rows.is_allowed_somewhere(entry.row))
            .map(|entry| entry.pattern())
            .chain(self.rules.patterns_let_through())
    }

    fn label_of(&self, entry: &Entry<'_>) -> Option<&str> {
        let number = (entry.label as usize).checked_sub(1)?;
        self.labels.get(number).map(AsRef::as_ref)
    }

    fn judge_window(&self, window: Option<Window>, moment: Moment) -> Result<(), Reason> {
        match window {
            None => Ok(()),
            Some(_) if !moment.trusted => Err(Reason::ClockUntrusted),
            Some(window) if window.is_open(&self.zone, moment.now) => Ok(()),
            Some(_) => Err(Reason::OutsideWindow),
        }
    }

    /// Looks for the most specific pattern of a list. A window given to a pattern holds for all that the pattern
    /// means, so one between the name and its rule replaces the enclosing window as well as the rule's own does.
    fn find(&self, who: &Principal, name: &str, list: Rule, moment: Moment) -> Found<'_> {
        let mut label = None;
        let mut rule: Option<&str> = None;
        let mut window = who.scope.window;
        let mut own_window = false;
        for entry in self.names.matching(name) {
            if label.is_none() {
                label = self.label_of(&entry);
            }
            if rule.is_some() {
                if label.is_some() || self.labels.is_empty() {
                    break;
                }
                continue;
            }
            let Some(said) = self.rows.rule(entry.row, who.scope.number) else {
                continue;
            };
            if let Some(number) = said.own_window()
                && !own_window
            {
                // A number that was never given would be no reason to open anything.
                window = Some(self.windows.get(number).copied().unwrap_or(Window::NEVER));
                own_window = true;
            }
            if said.is(list) {
                rule = Some(entry.pattern());
            }
        }
        let verdict = match rule {
            _ if !self.enabled => Err(Reason::Unavailable),
            None => Err(Reason::NotAllowlisted),
            Some(pattern) => self.judge_window(window, moment).map(|()| pattern),
        };
        Found { verdict, label }
    }
}

struct Found<'i> {
    /// The pattern that allows.
    verdict: Result<&'i str, Reason>,
    label: Option<&'i str>,
}

impl<'i> Found<'i> {
    fn told(self, pin: bool) -> NameVerdict<'i> {
        let label = self.label;
        match self.verdict {
            Ok(pattern) => NameVerdict::Allow {
                pattern,
                label,
                pin,
            },
            Err(reason) => NameVerdict::Deny { reason, label },
        }
    }
}
