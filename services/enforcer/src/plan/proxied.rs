//! What the gateway carries for a host counts against that host's limits, by the very quotas and classes that count its
//! own flows: so it is one sum, whichever way a byte goes, and no daemon keeps it.
//!
//! The gateway's flows have the gateway's addresses. So it tells the enforcer of each flow, before a byte of an agent goes
//! out, whose it is and for which name; the enforcer writes the number of that into the flow's mark, and here are the
//! rules that read it. The mark lives as long as the flow does, whoever of the two dies.
//!
//! Bytes are counted as on the forwarded path: IP packets on their way out. Those of the handshake are not: there is
//! nothing of an agent's in them.

use clawgress_policy::{Index, Principal};

use super::{
    carry::Proxied,
    frame::Frame,
    layout::mark,
    name,
    ruleset::Ruleset,
    services,
    shaping::{class_of, own_limit},
    statement::{
        Word, accept, count, ct, direction, goto, jump, jump_by, leaves_by, mark_has, masked,
        number, quota, set_class_by,
    },
};

/// All that flows of the gateway can be counted as, in a revision.
pub fn proxied(index: &Index) -> impl Iterator<Item = Proxied> {
    index
        .principals()
        .iter()
        .filter(|who| counts(index, who))
        .flat_map(|who| {
            let of = |pattern: Option<&str>| Proxied {
                holder: who.name.clone(),
                pattern: pattern.map(str::to_owned),
            };
            let caps = index.caps(who).iter();
            let capped = caps.map(move |(pattern, _)| of(Some(pattern.as_str())));
            capped.chain([of(None)]).collect::<Vec<_>>()
        })
}

/// Whether it has limits, and they are its own.
fn counts(index: &Index, who: &Principal) -> bool {
    index.holder(who).id == who.id && (own_limit(who).is_some() || !index.caps(who).is_empty())
}

/// What there are numbers for, of those for whom `wanted` holds; nothing where no gateway serves.
fn numbered<'f>(
    frame: &'f Frame<'_>,
    wanted: impl Fn(&Principal) -> bool + 'f,
) -> impl Iterator<Item = (u32, Proxied, &'f Principal)> + 'f {
    let serves = !services::proxy_ports(frame).is_empty();
    let all = serves.then(|| proxied(frame.index));
    all.into_iter().flatten().filter_map(move |proxied| {
        let number = *frame.carry.proxied.get(&proxied)?;
        let who = frame.index.by_name(&proxied.holder)?;
        wanted(who).then_some((number, proxied, who))
    })
}

fn mark_of_flow() -> Word {
    masked(ct("mark"), mark::PROXIED)
}

/// Meter table: a chain for each number that counts against a cap. Declared before the chains that lead there.
pub(super) fn caps(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let capped = |who: &Principal| !frame.index.caps(who).is_empty();
    let mut last = None;
    // All of one holder come one after the other.
    for (number, proxied, who) in numbered(frame, capped) {
        let spent = name::meter("spent", &who.name);
        if last.replace(who.id) != Some(who.id) {
            // The gateway notes the denial under the agent that asked.
            ruleset.chain(&spent);
            ruleset.rule([count(name::meter("over", &who.name)), goto("over")]);
        }
        let caps = frame.index.caps(who);
        let pattern = proxied.pattern.as_deref();
        let pattern = caps.iter().find(|(cap, _)| Some(cap.as_str()) == pattern);
        ruleset.chain(&name::proxied(number));
        match pattern {
            Some((pattern, _)) => {
                for (cap, _) in who.caps_around(pattern) {
                    let object = name::cap(&who.name, cap.as_str());
                    ruleset.rule([quota(object), goto(&spent)]);
                }
            }
            // Nobody knows the name: by the address, as beside the gateway.
            None => ruleset.rule([jump(name::meter("caps", &who.name))]),
        }
    }
}

/// Meter table, output: before what the front's legs are counted by.
pub(super) fn count_output(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let capped = |who: &Principal| !frame.index.caps(who).is_empty();
    let chains: Vec<(Word, String)> = numbered(frame, capped)
        .map(|(of, _, _)| (number(of), name::proxied(of)))
        .collect();
    if chains.is_empty() {
        return;
    }
    ruleset.rule([
        mark_has(mark::GATEWAY),
        direction("original"),
        jump_by(&mark_of_flow(), chains),
    ]);
    ruleset.rule([mark_has(mark::GATEWAY), accept()]);
}

/// Main table, postrouting: after the class of all that the gateway sends.
pub(super) fn classify(ruleset: &mut Ruleset, frame: &Frame<'_>) {
    let classes: Vec<(Word, u16)> = numbered(frame, |who| own_limit(who).is_some())
        .map(|(of, _, who)| (number(of), class_of(who.id)))
        .collect();
    if !classes.is_empty() {
        ruleset.rule([
            leaves_by(&frame.wan),
            mark_has(mark::GATEWAY),
            set_class_by(&mark_of_flow(), classes),
        ]);
    }
}
