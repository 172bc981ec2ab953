//! What nft lists of the box's table, judged as the box judges it.

use clawgress_link::ruleset::{Ruleset, judge};
use serde_json::Value;

/// `run` runs a command where the table is.
pub fn judged(run: impl Fn(&str) -> String) -> Ruleset {
    let generation = run("/usr/sbin/nft -j list set inet clawgress generation");
    let table = run("/usr/sbin/nft -t -j list table inet clawgress");
    judge(&table, only_number(&generation))
}

fn only_number(listing: &str) -> Option<u32> {
    let listing: Value = serde_json::from_str(listing).ok()?;
    let objects = listing["nftables"].as_array()?;
    let set = objects.iter().find_map(|object| object.get("set"))?;
    match set["elem"].as_array()?.as_slice() {
        [only] => only.as_u64()?.try_into().ok(),
        _ => None,
    }
}
