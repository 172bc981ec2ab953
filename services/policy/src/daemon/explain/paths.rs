//! The verdict on each way that an agent's traffic can take to a destination: the proxy, the name on the wire, the
//! pinned or listed address.

use std::net::IpAddr;

use clawgress_link::agents::OnPath;
use clawgress_policy::{Decision, Host, Index, Moment, NameVerdict, Principal};

use super::leads::Judged;

/// Ports on which names are read on the wire.
const WIRE: [(u16, &str); 2] = [(80, "Host header"), (443, "TLS hello")];

pub(super) struct Way<'q> {
    pub(super) index: &'q Index,
    pub(super) agent: &'q str,
    pub(super) host: Host<'q>,
    pub(super) port: u16,
    pub(super) moment: Moment,
}

pub(super) fn proxy(
    enabled: bool,
    decision: &Decision<'_>,
    leads: &Judged,
    unresolved: Option<&str>,
) -> OnPath {
    let told = |allowed, why: String| OnPath {
        path: "proxy".to_owned(),
        allowed,
        why,
    };
    if !enabled {
        return told(None, "the gateway is not enabled".to_owned());
    }
    if !decision.allowed {
        return told(Some(false), by(decision));
    }
    match (unresolved, &leads.reason) {
        (Some(why), _) => told(Some(false), format!("unresolved: {why}")),
        (None, Some(reason)) if leads.good.is_empty() => {
            told(Some(false), format!("{reason}, for all addresses"))
        }
        _ => told(Some(true), by(decision)),
    }
}

fn addresses(leads: &Judged) -> Vec<IpAddr> {
    let all = leads.addresses.iter();
    all.filter_map(|led| led.address.parse().ok()).collect()
}

fn by(decision: &Decision<'_>) -> String {
    let by = match decision.policy_id {
        "policy.json" => "by policy.json".to_owned(),
        "default-deny" => "by default".to_owned(),
        rule => format!("by rule {rule}"),
    };
    match decision.reason {
        Some(reason) => format!("{by}: {reason}"),
        None => by,
    }
}

impl Way<'_> {
    /// Where the agent's own packets go, past the proxy.
    pub(super) fn packets(&self, leads: &Judged, unresolved: Option<&str>) -> [OnPath; 2] {
        let Some(who) = self
            .index
            .by_name(self.agent)
            .filter(|who| who.agent.is_some())
        else {
            let why = "no address is this agent's own: its packets are judged as those of whoever has the address";
            return ["name", "address"].map(|path| told(path, None, why.to_owned()));
        };
        [self.name(who, leads), self.address(who, leads, unresolved)]
    }

    fn name(&self, who: &Principal, leads: &Judged) -> OnPath {
        let told = |allowed, why| told("name", allowed, why);
        let Host::Name(name) = self.host else {
            return told(None, "an address shows no name".to_owned());
        };
        let wire = WIRE.iter().find(|(port, _)| *port == self.port);
        let Some((_, read)) = wire.filter(|_| who.is_on_wire(self.port)) else {
            return told(
                None,
                format!("no name is read from what goes to port {}", self.port),
            );
        };
        let there = addresses(leads);
        match self
            .index
            .reach_on_wire(who, name, self.port, &there, self.moment)
        {
            Ok(pattern) => told(Some(true), format!("{read}, by {pattern}")),
            Err(reason) => told(Some(false), format!("{read}: {reason}")),
        }
    }

    fn address(&self, who: &Principal, leads: &Judged, unresolved: Option<&str>) -> OnPath {
        let told = |allowed, why| told("address", allowed, why);
        if who.is_on_wire(self.port) {
            return told(
                None,
                format!("port {} is judged by the name on the wire", self.port),
            );
        }
        if let (Host::Name(_), Some(why)) = (self.host, unresolved) {
            return told(Some(false), format!("nothing is pinned: {why}"));
        }
        match self.open(who, leads) {
            Ok(pattern) => told(Some(true), format!("by {pattern}")),
            Err(reason) => told(Some(false), reason),
        }
    }

    fn open(&self, who: &Principal, leads: &Judged) -> Result<String, String> {
        let (index, moment) = (self.index, self.moment);
        let reach = match self.host {
            Host::Name(name) => index.reach_name(who, name, &addresses(leads), moment),
            Host::Address(address) => index.reach_address(who, address, moment),
        };
        if let Some(reach) = reach {
            let open = reach.by_address(who).0.contains(self.port);
            return if open {
                Ok(by(&reach.decision))
            } else {
                let reason = reach.decision.reason;
                Err(reason.map_or_else(|| "port".to_owned(), |reason| reason.to_string()))
            };
        }
        let at_port = |open: bool| if open { Ok(()) } else { Err("port".to_owned()) };
        let listed = index.listed_ports(who).0.contains(self.port);
        match self.host {
            Host::Name(name) => match index.judge_name(who, name, moment) {
                NameVerdict::Allow {
                    pattern, pin: true, ..
                } => at_port(listed).map(|()| pattern.to_owned()),
                NameVerdict::Allow { pin: false, .. } => {
                    Err("its addresses are told and not pinned".to_owned())
                }
                NameVerdict::Deny { reason, .. } => Err(reason.to_string()),
            },
            Host::Address(address) if who.scope.holds(address) => {
                let open = index.judge_scope(who, moment);
                open.map_err(|reason| reason.to_string())?;
                at_port(listed).map(|()| "its network".to_owned())
            }
            Host::Address(_) => Err("not-allowlisted".to_owned()),
        }
    }
}

fn told(path: &str, allowed: Option<bool>, why: String) -> OnPath {
    OnPath {
        path: path.to_owned(),
        allowed,
        why,
    }
}
