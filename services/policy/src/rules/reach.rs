//! All ports of one destination at once: what rules and lists let an agent reach that is known by its address and whose
//! flows nobody reads. The same order, rule for rule, as that of a single request to a port that asks for a tunnel.
//!
//! Rules say `ports` of TCP. UDP goes by the lists; a rule that denies takes it, too.

use std::net::IpAddr;

use clawgress_config::{access::Action, policy::Protocol};

use super::{
    Decision, EVERY_NAME, Host, POLICY_JSON, Ports, Request, Rules,
    allowlist::ON_WIRE,
    build::Rule,
    condition::{Clock, DNS, Fit},
    destination::{Found, Via},
    identity::Class,
    revision,
};
use crate::{Index, Moment, NameVerdict, Principal, Reason};

/// What may be reached of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach<'r> {
    pub tcp: Ports,
    pub udp: Ports,
    /// What allows it, as it is written; `*` where that is for every destination, or for this very address.
    pub pattern: &'r str,
    /// What decides first: of what allows, or, if nothing can be reached, of what denies.
    pub decision: Decision<'r>,
}

/// TCP ports on which flows are judged by the names in them, where a scope says so.
pub fn wire_ports(who: &Principal) -> Ports {
    if who.scope.judges_names_on_the_wire {
        Ports::of(ON_WIRE)
    } else {
        Ports::none()
    }
}

fn of_scope(who: &Principal, protocol: Protocol) -> Ports {
    let rules = who.scope.ports.iter();
    let meant = rules.filter(|rule| rule.protocol == protocol);
    Ports::of(meant.map(|rule| rule.port))
}

/// Not what is judged by name, and never DNS past the resolver.
fn by_address(who: &Principal, tcp: &Ports, udp: &Ports) -> (Ports, Ports) {
    let dns = Ports::of(DNS);
    (
        tcp.without(&wire_ports(who)).without(&dns),
        udp.without(&dns),
    )
}

/// What the lists alone open by address of networks, of TCP and of UDP.
pub(crate) fn listed_ports(who: &Principal) -> (Ports, Ports) {
    by_address(
        who,
        &of_scope(who, Protocol::Tcp),
        &of_scope(who, Protocol::Udp),
    )
}

impl Reach<'_> {
    /// What of it is let through by address alone, of TCP and of UDP.
    pub fn by_address(&self, who: &Principal) -> (Ports, Ports) {
        by_address(who, &self.tcp, &self.udp)
    }
}

/// A rule that is for the destination and for whoever asks.
#[derive(Clone, Copy)]
struct Candidate<'r> {
    rank: u32,
    rule: &'r Rule,
    found: Found<'r>,
}

impl Candidate<'_> {
    fn ports(&self) -> Ports {
        if self.rule.ports.is_empty() {
            Ports::all()
        } else {
            Ports::of(self.rule.ports.iter().copied())
        }
    }
}

/// Where the search stands: ports leave `tcp_left` and `udp_left` as they are decided.
struct Course<'r> {
    tcp_left: Ports,
    udp_left: Ports,
    tcp: Ports,
    udp: Ports,
    /// Denials that are only told, with the ports that they would have decided.
    reported: Vec<(Candidate<'r>, Ports)>,
    allowed_by: Option<(&'r str, Decision<'r>)>,
    denied_by: Option<&'r Rule>,
    shut: Option<Reason>,
    /// Why the lists deny what is left.
    listed_reason: Option<(Reason, Option<&'r str>)>,
}

impl Rules {
    /// What this principal may reach of a destination; `resolved` is where a name leads. None: no rule is for it, and
    /// the lists alone decide.
    pub(crate) fn reach<'r>(
        &'r self,
        index: &'r Index,
        who: &Principal,
        host: Host<'_>,
        resolved: &[IpAddr],
        moment: Moment,
    ) -> Option<Reach<'r>> {
        let request = asked(who, host, resolved);
        let refused = |reason| {
            Some(Reach {
                tcp: Ports::none(),
                udp: Ports::none(),
                pattern: EVERY_NAME,
                decision: super::denied_by_default(index, reason, None),
            })
        };
        if !index.is_enabled() {
            return refused(Reason::Unavailable);
        }
        let class = self.identities.class(&request);
        if class.is_disabled() {
            return refused(Reason::AgentDisabled);
        }
        let candidates = self.candidates(&request, class);
        if candidates.is_empty() {
            return None;
        }
        let mut course = Course::over(&candidates, &request, &Clock::at(&self.zone, moment));
        course.lists(index, who, host, moment);
        Some(course.end(index))
    }

    /// In the order in which they are asked.
    fn candidates<'r>(&'r self, request: &Request<'_>, class: Class<'r>) -> Vec<Candidate<'r>> {
        let mut all: Vec<Candidate<'r>> = Vec::new();
        self.destinations.visit(request, |list, found, via| {
            let mut take = |rank: u32| {
                if let Some(rule) = self.in_order.get(rank as usize)
                    && !(via == Via::Resolved && rule.action == Action::Allow)
                {
                    all.push(Candidate { rank, rule, found });
                }
                true
            };
            list.open.iter().for_each(|rank| {
                take(*rank);
            });
            match class {
                Class::Known(rules) => list.named.each_common(rules, take),
                Class::Other(identities) => list.named.each(|rank| {
                    let group = self.in_order.get(rank as usize).and_then(|rule| rule.group);
                    let meant = group.is_some_and(|group| identities.matches(group, request));
                    !meant || take(rank)
                }),
                Class::Disabled => {}
            }
        });
        // Stable: of several ways to one rule the first counts, which is by what was asked for and the most specific.
        all.sort_by_key(|candidate| candidate.rank);
        all.dedup_by_key(|candidate| candidate.rank);
        all
    }
}

/// As the principal would ask the proxy for a tunnel: nothing of what it carries can be seen.
pub(super) fn asked<'a>(who: &'a Principal, host: Host<'a>, resolved: &'a [IpAddr]) -> Request<'a> {
    let agent = who.agent.as_deref();
    Request {
        // Who is no agent has no name that a rule could mean.
        agent_id: agent.map_or("", |_| &who.name),
        team_id: agent.map_or("", |agent| &agent.team_id),
        project_id: agent.map_or("", |agent| &agent.project_id),
        environment: agent.map_or("", |agent| &agent.environment),
        source: IpAddr::from([0; 4]),
        host,
        port: 0,
        method: Some(super::condition::CONNECT),
        path: None,
        tunnel: true,
        resolved,
    }
}

impl<'r> Course<'r> {
    fn over(candidates: &[Candidate<'r>], request: &Request<'_>, clock: &Clock<'_>) -> Self {
        let mut course = Self {
            tcp_left: Ports::all(),
            udp_left: Ports::all(),
            tcp: Ports::none(),
            udp: Ports::none(),
            reported: Vec::new(),
            allowed_by: None,
            denied_by: None,
            shut: None,
            listed_reason: None,
        };
        for candidate in candidates {
            if course.tcp_left.is_empty() && course.udp_left.is_empty() {
                break;
            }
            course.take(*candidate, request, clock);
        }
        course
    }

    fn take(&mut self, candidate: Candidate<'r>, request: &Request<'_>, clock: &Clock<'_>) {
        let rule = candidate.rule;
        let ports = candidate.ports();
        match rule.fit_at_its_ports(request, clock) {
            Fit::Yes if rule.is_report() => {
                self.reported.push((candidate, self.tcp_left.and(&ports)));
            }
            Fit::Yes => {
                let taken = self.tcp_left.and(&ports);
                self.tcp_left = self.tcp_left.without(&ports);
                match rule.action {
                    Action::Allow if !taken.is_empty() => {
                        self.tcp = self.tcp.or(&taken);
                        let pattern = candidate.found.pattern();
                        self.allowed_by
                            .get_or_insert_with(|| (pattern, by_rule(rule)));
                    }
                    Action::Allow => {}
                    Action::Deny => {
                        self.udp_left = self.udp_left.without(&ports);
                        self.denied_by.get_or_insert(rule);
                    }
                }
            }
            Fit::Shut(reason) if rule.action == Action::Allow => {
                self.shut.get_or_insert(reason);
            }
            _ => {}
        }
    }
}

fn by_rule(rule: &Rule) -> Decision<'_> {
    let allowed = rule.action == Action::Allow;
    Decision {
        allowed,
        policy_id: &rule.id,
        version: rule.version,
        reason: (!allowed).then_some(Reason::Rule),
        label: rule.label.as_deref(),
        would_deny: None,
        alert: rule.alert,
        plain_tunnel: allowed && rule.plain_tunnel,
        upgrade: allowed && rule.upgrade,
    }
}

/// What the lists say of a destination at one kind of port.
struct Listed<'r> {
    allowed: Result<&'r str, Reason>,
    label: Option<&'r str>,
}

impl<'r> Listed<'r> {
    fn of(verdict: NameVerdict<'r>, on_wire: bool) -> Self {
        match verdict {
            NameVerdict::Allow {
                pin: false, label, ..
            } if !on_wire => Self {
                allowed: Err(Reason::Port),
                label,
            },
            NameVerdict::Allow { pattern, label, .. } => Self {
                allowed: Ok(pattern),
                label,
            },
            NameVerdict::Deny { reason, label } => Self {
                allowed: Err(reason),
                label,
            },
        }
    }

    fn of_address(index: &Index, who: &Principal, address: IpAddr, moment: Moment) -> Self {
        let allowed = if who.scope.holds(address) {
            index.judge_scope(who, moment).map(|()| EVERY_NAME)
        } else {
            Err(Reason::NotAllowlisted)
        };
        Self {
            allowed,
            label: None,
        }
    }
}

impl<'r> Course<'r> {
    /// What no rule has decided, the lists do.
    fn lists(&mut self, index: &'r Index, who: &Principal, host: Host<'_>, moment: Moment) {
        let wire = match host {
            Host::Name(_) => wire_ports(who),
            Host::Address(_) => Ports::none(),
        };
        let listed = |on_wire: bool| match host {
            Host::Name(name) if on_wire => {
                Listed::of(index.judge_wire_name(who, name, moment), true)
            }
            Host::Name(name) => Listed::of(index.judge_name(who, name, moment), false),
            Host::Address(address) => Listed::of_address(index, who, address, moment),
        };
        let mut reason = None;
        for (on_wire, ports) in [(false, Ports::all().without(&wire)), (true, wire)] {
            if ports.is_empty() {
                continue;
            }
            let listed = listed(on_wire);
            let left = self.tcp_left.and(&ports);
            match listed.allowed {
                Ok(pattern) => {
                    let tcp = left.and(&of_scope(who, Protocol::Tcp));
                    let udp = if on_wire {
                        Ports::none()
                    } else {
                        self.udp_left.and(&of_scope(who, Protocol::Udp))
                    };
                    if !(tcp.is_empty() && udp.is_empty()) {
                        self.allowed_by.get_or_insert((
                            pattern,
                            Decision {
                                allowed: true,
                                policy_id: POLICY_JSON,
                                version: revision(index),
                                reason: None,
                                label: listed.label,
                                would_deny: None,
                                alert: false,
                                plain_tunnel: false,
                                upgrade: false,
                            },
                        ));
                    }
                    self.tcp = self.tcp.or(&tcp);
                    self.udp = self.udp.or(&udp);
                    reason.get_or_insert((Reason::Port, listed.label));
                }
                Err(Reason::NotAllowlisted) => {
                    self.let_pass(&left, listed.label);
                    let reason_here = self.shut.unwrap_or(Reason::NotAllowlisted);
                    reason.get_or_insert((reason_here, listed.label));
                }
                Err(why) => {
                    reason.get_or_insert((why, listed.label));
                }
            }
        }
        self.listed_reason = reason;
    }

    /// Denials in report mode let pass what nothing else allows.
    fn let_pass(&mut self, left: &Ports, label: Option<&'r str>) {
        for (candidate, ports) in &self.reported {
            let passes = left.and(ports);
            if passes.is_empty() {
                continue;
            }
            self.tcp = self.tcp.or(&passes);
            let rule = candidate.rule;
            self.allowed_by.get_or_insert((
                candidate.found.pattern(),
                Decision {
                    allowed: true,
                    reason: None,
                    label: rule.label.as_deref().or(label),
                    plain_tunnel: rule.plain_tunnel,
                    upgrade: rule.upgrade,
                    ..by_rule(rule)
                },
            ));
        }
    }

    fn end(self, index: &'r Index) -> Reach<'r> {
        let would_deny = self
            .reported
            .iter()
            .find(|(_, ports)| !ports.and(&self.tcp).is_empty())
            .map(|(candidate, _)| candidate.rule);
        let (pattern, mut decision) = match (self.allowed_by, self.denied_by) {
            (Some(allowed), _) => allowed,
            // One that denies some ports says nothing of the others.
            (None, Some(rule))
                if rule.ports.is_empty()
                    || matches!(self.listed_reason, Some((Reason::Port, _))) =>
            {
                (EVERY_NAME, by_rule(rule))
            }
            (None, _) => {
                let (reason, label) = self.listed_reason.unwrap_or((Reason::NotAllowlisted, None));
                let decision = super::denied_by_default(index, reason, label);
                (EVERY_NAME, decision)
            }
        };
        decision.would_deny = would_deny.map(|rule| &*rule.id);
        decision.alert |= would_deny.is_some_and(|rule| rule.alert);
        Reach {
            tcp: self.tcp,
            udp: self.udp,
            pattern,
            decision,
        }
    }
}
