//! Which rules are for a destination: found by the name or address that is asked for, never by looking at each rule.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use clawgress_config::{Cidr, policy::DomainPattern};

use super::{EVERY_NAME, Host, Request, identity::Group, set::Set};
use crate::index::{
    names::{Entry, Full, Names},
    sources::{plain, plain_address},
};

/// Rules that have one destination in common.
pub(super) struct List {
    /// For everybody; ascending.
    pub(super) open: Box<[u32]>,
    /// For whom they name.
    pub(super) named: Set,
}

/// How a list was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// By what was asked for.
    Asked,
    /// By an address that the name leads to. That is a reason to deny and none to allow: the name is what is allowed.
    Resolved,
}

/// What of a rule means the destination.
#[derive(Clone, Copy)]
pub(super) enum Found<'d> {
    Name(Entry<'d>),
    /// A network, or that the rule is for every destination.
    Other,
}

impl<'d> Found<'d> {
    pub(super) fn pattern(self) -> &'d str {
        match self {
            Self::Name(entry) => entry.pattern(),
            Self::Other => EVERY_NAME,
        }
    }
}

pub(super) struct Destinations {
    names: Names,
    v4: Networks,
    v6: Networks,
    /// Rules for every destination come first.
    lists: Vec<List>,
}

/// By length: lists by the network's bits.
#[derive(Default)]
struct Networks(Vec<(u8, HashMap<u128, u32>)>);

impl Destinations {
    /// Hands out every list of rules that may be for the request's destination.
    pub(super) fn visit<'d>(
        &'d self,
        request: &Request<'_>,
        mut visit: impl FnMut(&'d List, Found<'d>, Via),
    ) {
        let mut each = |number: u32, found, via| {
            if let Some(list) = self.lists.get(number as usize) {
                visit(list, found, via);
            }
        };
        match request.host {
            Host::Name(name) => {
                for entry in self.names.matching(name) {
                    each(entry.row, Found::Name(entry), Via::Asked);
                }
            }
            Host::Address(address) => {
                self.networks(address, |list| each(list, Found::Other, Via::Asked));
            }
        }
        each(0, Found::Other, Via::Asked);
        for address in request.resolved {
            self.networks(*address, |list| each(list, Found::Other, Via::Resolved));
        }
    }

    fn networks(&self, address: IpAddr, mut each: impl FnMut(u32)) {
        let (networks, bits) = match plain_address(address) {
            IpAddr::V4(v4) => (&self.v4, v4_bits(v4)),
            IpAddr::V6(v6) => (&self.v6, u128::from(v6)),
        };
        for (length, lists) in &networks.0 {
            if let Some(list) = lists.get(&(bits & mask(*length))) {
                each(*list);
            }
        }
    }
}

/// As the top bits, so that both families share one arithmetic.
fn v4_bits(v4: Ipv4Addr) -> u128 {
    u128::from(u32::from(v4)) << 96
}

fn mask(length: u8) -> u128 {
    let host = 128_u32.saturating_sub(length.into());
    u128::MAX.checked_shl(host).unwrap_or(0)
}

/// Collects who names what, and then makes the lists.
pub(super) struct Draft {
    names: Names,
    by_name: Vec<(u32, u32)>,
    by_network: Vec<(Cidr, u32)>,
    everywhere: Vec<u32>,
}

impl Draft {
    pub(super) fn new() -> Self {
        Self {
            names: Names::new(),
            by_name: Vec::new(),
            by_network: Vec::new(),
            everywhere: Vec::new(),
        }
    }

    pub(super) fn everywhere(&mut self, rank: u32) {
        self.everywhere.push(rank);
    }

    pub(super) fn name(&mut self, name: &DomainPattern, rank: u32) -> Result<(), Full> {
        let number = self.names.intern(name)?;
        self.by_name.push((number, rank));
        Ok(())
    }

    pub(super) fn network(&mut self, network: Cidr, rank: u32) {
        self.by_network.push((plain(network), rank));
    }

    /// `groups` tells the group of each rank.
    pub(super) fn finish(mut self, groups: &[Option<Group>]) -> Destinations {
        let mut lists = Lists {
            groups,
            made: Vec::new(),
            known: HashMap::new(),
        };
        lists.number(self.everywhere);
        self.by_name.sort_unstable();
        for same in self.by_name.chunk_by(|a, b| a.0 == b.0) {
            let ranks = same.iter().map(|(_, rank)| *rank).collect();
            if let Some((number, _)) = same.first() {
                self.names.set_row(*number, lists.number(ranks));
            }
        }
        self.names.shrink();
        self.by_network.sort_unstable();
        let (mut v4, mut v6) = (HashMap::new(), HashMap::new());
        for same in self.by_network.chunk_by(|a, b| a.0 == b.0) {
            let Some((network, _)) = same.first() else {
                continue;
            };
            let list = lists.number(same.iter().map(|(_, rank)| *rank).collect());
            let (family, bits) = match network.address {
                IpAddr::V4(v4_address) => (&mut v4, v4_bits(v4_address)),
                IpAddr::V6(v6_address) => (&mut v6, bits_of(v6_address)),
            };
            family
                .entry(network.length)
                .or_insert_with(HashMap::new)
                .insert(bits, list);
        }
        Destinations {
            names: self.names,
            v4: Networks(v4.into_iter().collect()),
            v6: Networks(v6.into_iter().collect()),
            lists: lists.made,
        }
    }
}

fn bits_of(v6: Ipv6Addr) -> u128 {
    v6.into()
}

/// Destinations that the same rules name share one list.
struct Lists<'g> {
    groups: &'g [Option<Group>],
    made: Vec<List>,
    known: HashMap<Vec<u32>, u32>,
}

impl Lists<'_> {
    fn number(&mut self, ranks: Vec<u32>) -> u32 {
        if let Some(number) = self.known.get(&ranks) {
            return *number;
        }
        let is_open = |rank: &u32| !matches!(self.groups.get(*rank as usize), Some(Some(_)));
        let (open, named): (Vec<u32>, Vec<u32>) = ranks.iter().partition(|rank| is_open(rank));
        let number = self.made.len() as u32;
        self.made.push(List {
            open: open.into(),
            named: Set::of(&named, self.groups.len()),
        });
        self.known.insert(ranks, number);
        number
    }
}
