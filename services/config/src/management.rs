//! What an invalid configuration still allows: its management cards that are right on their own.
//!
//! Nothing else of an invalid text is ever used, and a card with any doubt about it is left out.

use crate::document::{Ethernet, Role};
use crate::parse::Parsed;
use crate::validate::validate;

pub(crate) fn management(parsed: &Parsed) -> Vec<Ethernet> {
    // The rest might have given a card another role.
    if parsed.cut_short {
        return Vec::new();
    }
    let Parsed { tree, problems, .. } = parsed;
    let names: Vec<&str> = tree
        .get(&["interfaces", "ethernet"])
        .map(|node| node.sorted().into_iter().map(|(name, _)| name).collect())
        .unwrap_or_default();
    let mut cards: Vec<Ethernet> = Vec::new();
    for name in names {
        let path = ["interfaces", "ethernet", name];
        if problems
            .iter()
            .any(|problem| problem.concerns(&path.join(" ")))
        {
            continue;
        }
        let verdict = validate(&tree.only(&path));
        let Some(card) = verdict
            .document
            .interfaces
            .into_iter()
            .find(|card| card.name == name)
        else {
            continue;
        };
        let clash = cards.iter().any(|earlier| {
            earlier
                .cidrs()
                .any(|cidr| card.cidrs().any(|other| other.overlaps(&cidr)))
        });
        // A card shared with the agents or the outside is not a management card to a sealed box.
        if verdict.problems.is_empty() && card.roles == [Role::Management] && !clash {
            cards.push(card);
        }
    }
    cards
}
