//! The front of the agents: haproxy judging names on the wire, for scopes in SNI mode. Compiles a revision at a moment
//! into haproxy's configuration and its maps, says how to get from one such state to the next, and reads what haproxy
//! logs about each flow.
//!
//! Pure: no I/O, no clock. What changes with names, windows, caps and sources lies in the maps, which a running haproxy
//! takes over its runtime API; the configuration itself differs between two revisions only by their next gateways.
//! The parser of hellos is the static file hello.lua.

mod config;
mod difference;
mod host;
pub mod live;
pub mod log;
mod maps;
mod next;
mod paths;
mod reach;
mod ruled;
mod runtime;
mod sni;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use clawgress_config::policy::DomainPattern;
use clawgress_policy::{Index, Moment, Revision};
use sha2::{Digest, Sha256};

use crate::plan::Blocked;
pub use difference::{Update, difference};
pub use maps::{MapName, list_of};
pub use next::{Joined, NextGateway};
pub use paths::Places;
pub use runtime::{mark_in, mark_question, refusal};

/// Everything that the front is compiled from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub revision: &'a Revision,
    /// Of this very revision.
    pub index: &'a Index,
    pub moment: Moment,
    /// Caps that are used up: the principal's name and the cap's pattern.
    pub over_cap: &'a BTreeSet<(String, DomainPattern)>,
    pub blocked: &'a Blocked,
    /// Addresses that the box has now and the revision does not write down, such as those from DHCP.
    pub own: &'a [IpAddr],
}

/// What lies in files for haproxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Text of haproxy.cfg.
    pub config: String,
    /// Sorted lines of `key value`, a key once.
    pub maps: BTreeMap<MapName, String>,
    /// Files that haproxy wants in one piece and the operator has in two.
    pub joined: Vec<Joined>,
    /// Differs where anything above differs; haproxy tells it when asked (see `mark_question`).
    pub mark: String,
}

/// Compiles. The result's files belong at `places`.
pub fn render(input: &Input<'_>, places: &Places) -> Rendered {
    let gateways = next::gateways(input.revision);
    let config = config::text(places, &gateways);
    let mut maps = maps::all(input, &gateways);
    let mark = mark_of(&config, &maps);
    if let Some(gates) = maps.get_mut(&MapName::Gates) {
        maps::add_mark(gates, &mark);
    }
    Rendered {
        config,
        maps,
        joined: gateways
            .iter()
            .filter_map(|gateway| gateway.joined(places))
            .collect(),
        mark,
    }
}

fn mark_of(config: &str, maps: &BTreeMap<MapName, String>) -> String {
    let mut digest = Sha256::new();
    for part in std::iter::once(config).chain(maps.values().map(String::as_str)) {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    short_hex(&digest.finalize())
}

/// The first 16 hexadecimal digits.
fn short_hex(digest: &[u8]) -> String {
    digest.iter().take(8).fold(String::new(), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}
