//! A revision out of a configuration and a policy. Pure: the same document and policy make the same revision.

use clawgress_config::{Document, Ethernet, Role, policy::Policy};
use clawgress_policy::{Card, Logging, Network, Revision};

/// As the schema's defaults; for a configuration that says nothing about agents.
const FACILITY: &str = "local0";

pub(crate) fn enabled(document: &Document) -> bool {
    document
        .clawgress
        .as_ref()
        .is_some_and(|clawgress| clawgress.enabled)
}

/// The policy that the configuration itself holds.
pub(crate) fn policy(document: &Document) -> Policy {
    document
        .clawgress
        .as_ref()
        .map(|clawgress| clawgress.policy.clone())
        .unwrap_or_default()
}

pub(crate) fn revision(number: u64, created: i64, document: &Document, policy: Policy) -> Revision {
    let cards = |role: Role| -> Vec<Card> {
        document
            .interfaces
            .iter()
            .filter(|card| card.has(role))
            .map(card)
            .collect()
    };
    let management = cards(Role::Management);
    let clawgress = document.clawgress.as_ref();
    Revision {
        number,
        created,
        enabled: enabled(document),
        policy,
        network: Network {
            wan: cards(Role::Wan),
            lan: cards(Role::Lan),
            ssh: document.ssh.as_ref().map(|ssh| {
                let networks = if ssh.allow.is_empty() {
                    management
                        .iter()
                        .flat_map(|card| &card.addresses)
                        .map(clawgress_config::Cidr::network)
                        .collect()
                } else {
                    ssh.allow.clone()
                };
                (ssh.port, networks)
            }),
            management,
            listen_addresses: clawgress
                .map(|clawgress| clawgress.listen_addresses.clone())
                .unwrap_or_default(),
        },
        time_zone: document.system.time_zone.clone(),
        trust_hardware_clock: document.trust_hardware_clock,
        logging: clawgress.map_or_else(
            || Logging {
                facility: FACILITY.to_owned(),
                deny_log: true,
            },
            |clawgress| Logging {
                facility: clawgress.facility.clone(),
                deny_log: clawgress.deny_log,
            },
        ),
        name_servers: document.system.name_servers.clone(),
        access: clawgress
            .map(|clawgress| clawgress.access.clone())
            .unwrap_or_default(),
    }
}

fn card(ethernet: &Ethernet) -> Card {
    Card {
        name: ethernet.name.clone(),
        addresses: ethernet.cidrs().collect(),
    }
}

/// What a policy and the box's cards together leave without effect.
pub(crate) fn warnings(revision: &Revision) -> Vec<String> {
    let mut warnings = Vec::new();
    for (cards, role, what) in [
        (&revision.network.lan, "lan", "no agent reaches this box"),
        (&revision.network.wan, "wan", "nothing leaves this box"),
    ] {
        if cards.is_empty() {
            warnings.push(format!(
                "no card has the role {role}, so {what}; set interfaces ethernet ethN role {role}"
            ));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
system { time-zone Europe/Berlin name-server 192.0.2.53 }
interfaces {
  ethernet eth0 { address dhcp role wan }
  ethernet eth1 { address 192.168.10.1/24 role lan }
  ethernet eth2 { address 10.9.0.1/24 role management }
}
service {
  ssh { port 2222 }
  clawgress { enable policy { domain api.openai.com { label llm-provider } } }
}";

    fn document(text: &str) -> Document {
        clawgress_config::load(text.as_bytes())
            .map_err(|invalid| invalid.to_string())
            .unwrap()
            .document
    }

    #[test]
    fn every_part_of_a_revision_comes_from_its_place() {
        let document = document(TEXT);
        let revision = revision(7, 100, &document, policy(&document));
        assert_eq!(
            (revision.number, revision.created, revision.enabled),
            (7, 100, true)
        );
        let names = |cards: &[Card]| {
            cards
                .iter()
                .map(|card| card.name.clone())
                .collect::<Vec<_>>()
        };
        let network = &revision.network;
        assert_eq!(names(&network.wan), ["eth0"]);
        assert!(network.wan[0].addresses.is_empty());
        assert_eq!(names(&network.lan), ["eth1"]);
        assert_eq!(network.lan[0].addresses[0].to_string(), "192.168.10.1/24");
        assert_eq!(names(&network.management), ["eth2"]);
        let (port, networks) = network.ssh.clone().unwrap();
        assert_eq!(
            (port, networks[0].to_string().as_str()),
            (2222, "10.9.0.0/24")
        );
        assert_eq!(revision.time_zone, "Europe/Berlin");
        assert_eq!(revision.name_servers[0].to_string(), "192.0.2.53");
        assert_eq!(revision.policy.global.allow.domains.len(), 1);
        assert!(warnings(&revision).is_empty());
    }

    #[test]
    fn a_configuration_without_the_service_makes_a_sealed_revision() {
        let document = Document::default();
        let revision = revision(1, 1, &document, Policy::default());
        assert!(!revision.enabled);
        assert_eq!(warnings(&revision).len(), 2);
    }
}
