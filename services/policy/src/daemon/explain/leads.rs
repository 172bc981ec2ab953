//! Where a name leads, and which of its addresses the gateway would dial: judged in the same order as there.

use std::net::IpAddr;

use clawgress_config::Cidr;
use clawgress_link::agents::Led;
use clawgress_policy::{
    Host, Index, Moment, Reason, Request, Revision, address::is_inside, class::Class,
    inside::named_inside,
};

use super::near::{Cards, Near};

pub(super) struct Judged {
    pub(super) addresses: Vec<Led>,
    pub(super) good: Vec<IpAddr>,
    /// Of the last one that was refused.
    pub(super) reason: Option<String>,
}

pub(super) fn judge(
    revision: &Revision,
    index: &Index,
    cards: &Cards,
    request: &Request<'_>,
    resolved: &[IpAddr],
    moment: Moment,
) -> Judged {
    let named = named_inside(index, &revision.access);
    let mut judged = Judged {
        addresses: Vec::new(),
        good: Vec::new(),
        reason: None,
    };
    for address in resolved {
        let near = cards.near(revision, *address);
        let refused = refused(index, &named, near, request, *address, moment);
        let class = match near {
            Some(Near::Own) => "own",
            Some(Near::OfAgents) => "agents-network",
            None => Class::of(*address).word(),
        };
        match &refused {
            None => judged.good.push(*address),
            Some(why) => judged.reason = Some(why.clone()),
        }
        judged.addresses.push(Led {
            address: address.to_string(),
            class: class.to_owned(),
            refused,
        });
    }
    judged
}

fn refused(
    index: &Index,
    named: &[Cidr],
    near: Option<Near>,
    request: &Request<'_>,
    address: IpAddr,
    moment: Moment,
) -> Option<String> {
    let private = || Some(Reason::PrivateAddress.to_string());
    let inside = is_inside(address);
    if near.is_some() || inside && !named.iter().any(|network| network.contains(address)) {
        return private();
    }
    let there = [address];
    let decide = |request: &Request<'_>| index.rules().decide(index, request, moment);
    let led = Request {
        resolved: &there,
        ..*request
    };
    let decision = decide(&led);
    if !decision.allowed {
        let reason = decision
            .reason
            .map_or_else(String::new, |reason| reason.to_string());
        return Some(match decision.policy_id {
            "default-deny" => reason,
            rule => format!("{reason}: {rule}"),
        });
    }
    // What is named inside may be reached by whom that name is for, and not by a name that merely leads there.
    let literal = Request {
        host: Host::Address(address),
        resolved: &[],
        ..*request
    };
    if inside && matches!(request.host, Host::Name(_)) && !decide(&literal).allowed {
        return private();
    }
    None
}
