//! From a plan of cards to what systemd-networkd and chrony read.
//!
//! Listed cards get what the configuration says, all others are held down. Forwarding is never mentioned here.

mod apply;
mod render;

use clawgress_config::{Address, Document, Ethernet, Role, Route};

pub(crate) use apply::{apply, apply_system};

/// The cards to bring up, and the routes beyond them. An empty plan holds every card down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub(crate) cards: Vec<Ethernet>,
    pub(crate) routes: Vec<Route>,
}

impl Plan {
    /// Without any configuration: the first card is the outside and asks for an address.
    pub(crate) fn without_config() -> Self {
        let first = Ethernet {
            name: "eth0".to_owned(),
            addresses: vec![Address::Dhcp],
            roles: vec![Role::Wan],
            description: None,
        };
        Self {
            cards: vec![first],
            routes: Vec::new(),
        }
    }

    pub(crate) fn of(document: &Document) -> Self {
        Self {
            cards: document.interfaces.clone(),
            routes: document.routes.clone(),
        }
    }

    /// What an invalid configuration leaves.
    pub(crate) fn management_only(cards: &[Ethernet]) -> Self {
        Self {
            cards: cards.to_vec(),
            routes: Vec::new(),
        }
    }
}
