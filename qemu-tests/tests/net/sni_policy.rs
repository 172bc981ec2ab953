//! What the front of these tests is compiled from: a policy on the lab's cards at a moment of the test's choosing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clawgress_config::policy::DomainPattern;
use clawgress_enforcer::front::{self, Input, MapName, Places, Rendered};
use clawgress_enforcer::plan::Blocked;
use clawgress_policy::{Card, Index, Logging, Moment, Network, Revision};
use qemu_tests::{Error, Result, fail};

use crate::access;
use crate::sni::NOON;

pub(crate) fn revision(policy: &str) -> Result<Revision> {
    let card = |name: &str, addresses: &[(&str, u8)]| -> Result<Card> {
        let mut found = Vec::new();
        for (address, length) in addresses {
            let address = address
                .parse()
                .map_err(|error| Error::other(format!("reading {address}: {error}")))?;
            found.push(clawgress_config::Cidr {
                address,
                length: *length,
            });
        }
        Ok(Card {
            name: name.to_owned(),
            addresses: found,
        })
    };
    let (policy, access) = access::read(policy)?;
    Ok(Revision {
        number: 1,
        created: NOON,
        enabled: true,
        policy,
        network: Network {
            wan: vec![card("outside", &[])?],
            lan: vec![card("inside", &[("10.66.0.1", 24), ("fd66::1", 64)])?],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access,
    })
}

pub(crate) fn render(
    places: &Places,
    policy: &str,
    now: i64,
    caps: &[(&str, &str)],
) -> Result<Rendered> {
    let revision = revision(policy)?;
    let index = Index::of(&revision).map_err(|error| Error::other(error.to_string()))?;
    let mut over_cap = BTreeSet::new();
    for (who, pattern) in caps {
        let pattern =
            DomainPattern::parse(pattern).map_err(|error| Error::other(error.to_string()))?;
        over_cap.insert(((*who).to_owned(), pattern));
    }
    let input = Input {
        revision: &revision,
        index: &index,
        moment: Moment::trusted(now),
        over_cap: &over_cap,
        blocked: &Blocked::default(),
        own: &[IpAddr::V4(qemu_tests::lab::Internet::LEASE)],
    };
    let rendered = front::render(&input, places);
    if rendered.maps.len() != MapName::ALL.len() {
        fail!("a map is missing");
    }
    Ok(rendered)
}
