//! The policy zones of named: all names that somebody may reach, spread over zones so that a change rewrites one of
//! them, and the last zone that denies the rest.
//!
//! This is the second of two walls: it holds the union of what clawgress-dns decides per principal.

use std::{collections::BTreeMap, fmt::Write};

use clawgress_config::{access::Endpoint, policy::is_for_policy_zones};
use clawgress_policy::{Index, Revision};

use super::{layout, name::digest, principal::next_gateway};

/// named takes 64 policy zones; the last one is ours for the denial.
const MOST: usize = 60;
const NAMES_A_ZONE: usize = 2_000;
/// A name in a zone is followed by the zone's own, and all of it is at most 253 letters.
const LONGEST: usize = 253 - ".rpz60.clawgress".len();

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones {
    /// In the order in which named has to ask them; the last one denies.
    pub zones: Vec<Zone>,
    pub names: usize,
    /// Names that no policy zone can hold: they are denied.
    pub too_long: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// `rpz1.clawgress`
    pub name: String,
    /// Below `layout::ZONES`.
    pub file: String,
    pub text: String,
    pub marker: Marker,
}

/// The zone is served when a TXT query for `name` is answered with `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub name: String,
    pub text: String,
}

impl Zones {
    pub fn of(revision: &Revision, index: &Index) -> Self {
        let next: Vec<String> = index
            .principals()
            .iter()
            .filter_map(next_gateway)
            .filter(|next| next.address().is_none())
            .map(|next| next.host.to_ascii_lowercase())
            .chain(collectors_by_name(revision))
            .chain(key_servers_by_name(revision))
            .collect();
        let mut names: Vec<&str> = index
            .allowed_patterns()
            .chain(next.iter().map(String::as_str))
            .collect();
        // An index that is not enabled still names what it would allow.
        if !revision.enabled {
            names.clear();
        }
        // Validation refuses them; one that got past it would be a rule about addresses, for everybody's names.
        names.retain(|name| !is_for_policy_zones(name));
        let too_long = |name: &&str| name.len() > LONGEST;
        let left_out = names
            .iter()
            .filter(|name| too_long(name))
            .map(|name| (*name).to_owned())
            .collect();
        names.retain(|name| !too_long(name));
        let mut shards: Vec<Vec<&str>> = vec![Vec::new(); shard_count(names.len())];
        let shard_total = shards.len();
        for name in names {
            if let Some(shard) = shards.get_mut(shard_of(name, shard_total)) {
                shard.push(name);
            }
        }
        let mut total = 0;
        let mut zones: Vec<Zone> = shards
            .into_iter()
            .enumerate()
            .map(|(at, mut names)| {
                names.sort_unstable();
                names.dedup();
                total += names.len();
                allowing(at + 1, &names)
            })
            .collect();
        zones.push(denying());
        Self {
            zones,
            names: total,
            too_long: left_out,
        }
    }

    /// Zones whose file is another than in `before`.
    pub fn changed<'z>(&'z self, before: &Self) -> Vec<&'z Zone> {
        let had: BTreeMap<&str, &str> = before
            .zones
            .iter()
            .map(|zone| (zone.file.as_str(), zone.marker.text.as_str()))
            .collect();
        self.zones
            .iter()
            .filter(|zone| had.get(zone.file.as_str()) != Some(&zone.marker.text.as_str()))
            .collect()
    }
}

/// The audit trail asks named for them.
pub(super) fn collectors_by_name(revision: &Revision) -> impl Iterator<Item = String> {
    by_name(revision.access.audit.collectors())
}

/// The identity service asks named for them. They may not be inside: see `named_by_the_operator`.
fn key_servers_by_name(revision: &Revision) -> impl Iterator<Item = String> {
    by_name(revision.access.key_servers())
}

fn by_name(servers: impl Iterator<Item = Endpoint>) -> impl Iterator<Item = String> {
    servers
        .filter(|server| server.address().is_none())
        .map(|server| server.host)
}

/// Powers of two, so that a growing policy is spread anew only when it has doubled.
fn shard_count(names: usize) -> usize {
    let wanted = names.div_ceil(NAMES_A_ZONE).max(1);
    wanted.next_power_of_two().min(MOST)
}

/// FNV-1a: the same on every machine and in every run, as the hashes of the standard library are not.
fn shard_of(name: &str, shards: usize) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash % shards.max(1) as u64) as usize
}

fn allowing(number: usize, names: &[&str]) -> Zone {
    let mut records = String::with_capacity(names.iter().map(|name| name.len() + 22).sum());
    for name in names {
        records.push_str(name);
        records.push_str(" CNAME rpz-passthru.\n");
    }
    zone(
        &format!("rpz{number}"),
        &format!("rpz{number}.clawgress"),
        &records,
    )
}

fn denying() -> Zone {
    zone("rpz", layout::DENY_ZONE, "* CNAME .\n")
}

fn zone(label: &str, name: &str, records: &str) -> Zone {
    let text = digest(&[name, "\0", records]);
    let marker = Marker {
        name: format!("{label}.{}", layout::MARKER),
        text,
    };
    // Any change of content is another serial. Nobody transfers these zones, so it need not rise.
    let serial = u32::from_str_radix(marker.text.get(..7).unwrap_or("1"), 16).unwrap_or(1);
    let mut zone = String::with_capacity(records.len() + 200);
    // Writing into a String does not fail.
    let _ = write!(
        zone,
        "$TTL 5\n@ SOA localhost. root.localhost. ( {serial} 3600 600 86400 5 )\n@ NS localhost.\n{} TXT \"{}\"\n",
        marker.name, marker.text
    );
    zone.push_str(records);
    Zone {
        name: name.to_owned(),
        file: format!("{label}.zone"),
        text: zone,
        marker,
    }
}
