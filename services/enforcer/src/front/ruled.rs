//! What the rules of agents say of names on the wire, laid out as the lists are: the longest key that a name begins with
//! holds, and says what the rules alone decide at that port. Where that is nothing, the lists decide.
//!
//! Principals for whom the same rules are meant share their lines. Who reaches nothing has one line, which is for all
//! names.

use std::collections::{BTreeMap, BTreeSet};

use clawgress_config::policy::DomainPattern;
use clawgress_policy::rules::OnWire;
use clawgress_policy::{Principal, Reason};
use sha2::{Digest, Sha256};

use super::maps::{OPEN, key};
use super::{Input, short_hex};

/// The rules have nothing to say here.
pub(super) const LISTED: &str = "listed";
/// A denial in report mode: what no list holds passes, too.
pub(super) const TRIED: &str = "tried";

/// The ports, each with its letter in the names of lists.
const PORTS: [(u16, char); 2] = [(443, 's'), (80, 'h')];

/// The name of a principal's lists without the port's letter; None: no rule is for it, and nothing else shuts it.
pub(super) fn list(input: &Input<'_>, who: &Principal) -> Option<String> {
    if let Some(reason) = closed(input, who) {
        return Some(format!("={}=", reason.word()));
    }
    who.ruled.as_ref()?;
    let mut digest = Sha256::new();
    for rule in input.index.rules().meant_for(who) {
        digest.update((rule.id.len() as u64).to_be_bytes());
        digest.update(rule.id);
    }
    Some(short_hex(&digest.finalize()))
}

fn closed(input: &Input<'_>, who: &Principal) -> Option<Reason> {
    if input.blocked.holds(&who.name) {
        return Some(Reason::Blocked);
    }
    who.is_disabled().then_some(Reason::AgentDisabled)
}

/// Lines of the map `rules`.
pub(super) fn lines(input: &Input<'_>) -> Vec<String> {
    let mut lists: BTreeMap<String, &Principal> = BTreeMap::new();
    let on_wire = |who: &&Principal| who.scope.judges_names_on_the_wire;
    for who in input.index.principals().iter().filter(on_wire) {
        if let Some(list) = list(input, who).filter(|_| input.revision.enabled) {
            lists.entry(list).or_insert(who);
        }
    }
    let mut lines = Vec::new();
    for (list, who) in lists {
        if let Some(reason) = closed(input, who) {
            let line = |(_, letter)| format!("{list}{letter}/ {}\n", reason.word());
            lines.extend(PORTS.into_iter().map(line));
            continue;
        }
        let patterns: BTreeSet<&DomainPattern> = input
            .index
            .rules()
            .meant_for(who)
            .flat_map(|rule| rule.domains)
            .collect();
        for (port, letter) in PORTS {
            let mut say = |key: &str, name: &str| {
                let said = input.index.rules().on_wire(who, name, port, input.moment);
                lines.push(format!("{list}{letter}/{key} {}\n", word(said)));
            };
            // No pattern means a star but those that mean everything there.
            say("", "*");
            for pattern in &patterns {
                say(&key(pattern), pattern.as_str());
            }
        }
    }
    lines
}

fn word(said: OnWire) -> &'static str {
    match said {
        OnWire::Allowed => OPEN,
        OnWire::Denied(reason) => reason.word(),
        OnWire::Tried => TRIED,
        OnWire::Listed => LISTED,
    }
}
