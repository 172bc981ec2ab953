//! What requests are judged on: one committed revision and one state of the credentials, compiled together. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use clawgress_config::Cidr;
use clawgress_config::access::{Access, GatewaySettings, Quotas};
use clawgress_identity::{CredentialKey, Directory, Snapshot as Credentials};
use clawgress_policy::address::is_inside;
use clawgress_policy::inside::named_inside;
use clawgress_policy::{Card, Index, IndexError, Moment, Network, Revision, Rules};

use super::Own;

pub struct Snapshot {
    /// Of the credentials that it was made of.
    pub credentials: u64,
    pub policy: Arc<Compiled>,
    pub(super) directory: Directory,
}

/// The revision's half. It takes seconds where a revision is large, so a change of credentials leaves it as it is.
pub struct Compiled {
    pub revision: u64,
    pub settings: GatewaySettings,
    /// Whom listeners are for, as the revision says.
    pub network: Network,
    pub enabled: bool,
    pub(super) index: Index,
    pub(super) rules: Arc<Rules>,
    access: Access,
    trust_hardware_clock: bool,
    /// On this side of the box, and its own addresses as configured.
    near: Vec<Cidr>,
    near_cards: Vec<String>,
    /// Networks inside that the policy names itself: what is in them may be dialled by whom the policy lets.
    named_inside: Vec<Cidr>,
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl Snapshot {
    /// `number`: of the bundle that the credentials came in.
    pub fn of(
        policy: &Arc<Compiled>,
        number: u64,
        credentials: &Credentials,
        key: CredentialKey,
    ) -> Self {
        Self {
            credentials: number,
            directory: Directory::build(credentials, &policy.access, key),
            policy: Arc::clone(policy),
        }
    }
}

impl Compiled {
    /// Never to be called where requests wait.
    pub fn of(revision: &Revision) -> Result<Self, SnapshotError> {
        let network = &revision.network;
        let cards = |cards: &[Card]| -> Vec<Cidr> {
            cards
                .iter()
                .flat_map(|card| card.addresses.iter().copied())
                .collect()
        };
        let mut near = cards(&network.lan);
        near.extend(cards(&network.management));
        let wan = cards(&network.wan).into_iter().map(|cidr| cidr.address);
        near.extend(
            wan.chain(network.listen_addresses.iter().copied())
                .map(single),
        );
        let index = Index::of(revision)?;
        let named_inside = named_inside(&index, &revision.access);
        Ok(Self {
            revision: revision.number,
            settings: revision.access.gateway.clone(),
            network: revision.network.clone(),
            enabled: revision.enabled && revision.access.gateway.enabled,
            access: revision.access.clone(),
            rules: Arc::clone(index.rules()),
            index,
            trust_hardware_clock: revision.trust_hardware_clock,
            near,
            near_cards: network
                .lan
                .iter()
                .chain(&network.management)
                .map(|card| card.name.clone())
                .collect(),
            named_inside,
        })
    }

    pub fn quotas(&self) -> &Quotas {
        &self.access.quotas
    }

    pub(super) fn trusts_hardware_clock(&self) -> bool {
        self.trust_hardware_clock
    }

    pub(super) fn next_change(&self, moment: Moment) -> Option<i64> {
        self.index.next_change(moment)
    }

    /// Whether an address is one that the gateway must never dial: its own, or one on its near side.
    pub(super) fn is_near(&self, address: IpAddr, own: &Own) -> bool {
        address.is_loopback()
            || address.is_unspecified()
            || self.near.iter().any(|network| network.contains(address))
            || own.holds(address, |card| {
                self.near_cards.iter().any(|near| near == card)
            })
    }

    /// Inside, and not named by the policy itself.
    pub(super) fn is_unnamed_inside(&self, address: IpAddr) -> bool {
        is_inside(address)
            && !self
                .named_inside
                .iter()
                .any(|network| network.contains(address))
    }
}

fn single(address: IpAddr) -> Cidr {
    Cidr {
        address,
        length: if address.is_ipv4() { 32 } else { 128 },
    }
}
