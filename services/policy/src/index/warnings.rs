//! What is unusual about whose address is whose, and yet taken: for people.

use clawgress_config::{Cidr, policy::Allow};

use super::{Principal, PrincipalKind, build::Build, sources::plain};
use crate::{LanCard, Revision};

impl Build<'_> {
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

    pub(super) fn warnings(&self, principals: &[Principal]) -> Vec<String> {
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
            let limited = host.scope.limits.egress_kbps.is_some() || !host.exfil.is_empty();
            if limited && self.revision.access.gateway.enabled {
                warnings.push(format!(
                    "host {name}: what its rate or its caps hold for is denied at the gateway, which can't count for a \
                     host; its agents reach that directly"
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
                    "host {}: others with more specific sources have all of its addresses",
                    principal.name
                )),
                PrincipalKind::Agent { .. } if none_left => warnings.push(format!(
                    "agent {}: others with more specific sources have all of its addresses",
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
pub(super) fn networks(card: &LanCard) -> impl Iterator<Item = Cidr> {
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
