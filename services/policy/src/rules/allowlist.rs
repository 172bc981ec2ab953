//! The revision's policy.json as the last rule: what it allows by name, address, port and window.

use clawgress_config::policy::{PortRule, Protocol};

use super::{Host, Request, condition::DNS};
use crate::{Index, Moment, NameVerdict, Principal, Reason};

pub(super) struct Verdict<'i> {
    pub(super) allowed: Result<(), Reason>,
    pub(super) label: Option<&'i str>,
}

/// The ports on which names are judged in the connections themselves where a scope says so.
pub(super) const ON_WIRE: [u16; 2] = [80, 443];

pub(super) fn judge<'i>(
    index: &'i Index,
    who: &Principal,
    request: &Request<'_>,
    moment: Moment,
) -> Verdict<'i> {
    let scope = &who.scope;
    let port = PortRule {
        port: request.port,
        protocol: Protocol::Tcp,
    };
    let (mut allowed, label) = match request.host {
        Host::Name(name) => {
            // The proxy knows the name of each connection, as whoever reads it on the wire does.
            let on_wire = scope.judges_names_on_the_wire && ON_WIRE.contains(&request.port);
            let verdict = if on_wire {
                index.judge_wire_name(who, name, moment)
            } else {
                index.judge_name(who, name, moment)
            };
            match verdict {
                // Names for the wire alone are for its ports alone.
                NameVerdict::Allow {
                    pin: false, label, ..
                } if !on_wire => (Err(Reason::Port), label),
                NameVerdict::Allow { label, .. } => (Ok(()), label),
                NameVerdict::Deny { reason, label } => (Err(reason), label),
            }
        }
        Host::Address(address) if scope.holds(address) => (index.judge_scope(who, moment), None),
        Host::Address(_) => (Err(Reason::NotAllowlisted), None),
    };
    if allowed.is_ok() && DNS.contains(&request.port) {
        allowed = Err(Reason::DnsBypass);
    }
    if allowed.is_ok() && !scope.ports.contains(&port) {
        allowed = Err(Reason::Port);
    }
    Verdict { allowed, label }
}
