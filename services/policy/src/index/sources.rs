//! Whose address is whose: networks that lie in each other become ranges that do not overlap.
//!
//! One arithmetic for both families; an IPv4 address in IPv6 clothing is that IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clawgress_config::Cidr;

use super::PrincipalId;

/// A network and whose it is. The networks handed in have no host bits and no clothing (see `plain`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) network: Cidr,
    pub(super) owner: PrincipalId,
}

/// Both ends included. Of one family; IPv4 addresses count from 0 to 2³² − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u128,
    last: u128,
    owner: PrincipalId,
}

#[derive(Default)]
pub(super) struct Sources {
    v4: Vec<Range>,
    v6: Vec<Range>,
}

/// The address that is meant.
pub(crate) fn plain_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The network that is meant, without host bits.
pub(crate) fn plain(cidr: Cidr) -> Cidr {
    let network = cidr.network();
    match (plain_address(network.address), network.length) {
        (address @ IpAddr::V4(_), length) if network.address.is_ipv6() && length >= 96 => Cidr {
            address,
            length: length - 96,
        },
        _ => network,
    }
}

/// Whether all of `inner` is in `outer`.
pub(super) fn lies_in(inner: &Cidr, outer: &Cidr) -> bool {
    inner.length >= outer.length && outer.overlaps(inner)
}

impl Sources {
    /// Where claims lie in each other, the inner one holds. Equal claims of different owners must not be handed in.
    pub(super) fn of(claims: &[Claim]) -> Self {
        let family = |ipv4: bool| {
            let ranges = claims
                .iter()
                .filter(|claim| claim.network.address.is_ipv4() == ipv4)
                .map(|claim| {
                    let (first, last) = ends(&claim.network);
                    Range {
                        first,
                        last,
                        owner: claim.owner,
                    }
                });
            disjoint(ranges.collect())
        };
        Self {
            v4: family(true),
            v6: family(false),
        }
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<PrincipalId> {
        let (ranges, number) = match plain_address(address) {
            IpAddr::V4(v4) => (&self.v4, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (&self.v6, u128::from(v6)),
        };
        let after = ranges.partition_point(|range| range.first <= number);
        let range = ranges.get(after.checked_sub(1)?)?;
        (number <= range.last).then_some(range.owner)
    }

    /// As networks, in ascending order, IPv4 first; no two overlap.
    pub(super) fn networks(&self) -> Vec<(Cidr, PrincipalId)> {
        let mut networks = Vec::new();
        for (ranges, width) in [(&self.v4, 32), (&self.v6, 128)] {
            for range in ranges {
                split(range, width, &mut networks);
            }
        }
        networks
    }
}

fn ends(network: &Cidr) -> (u128, u128) {
    let (first, width) = match network.address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    let hosts = u32::from(width - network.length.min(width));
    (
        first,
        first | 1u128.checked_shl(hosts).map_or(u128::MAX, |size| size - 1),
    )
}

/// Networks either lie in each other or apart, so a stack of the ones entered and not yet left is all it takes.
fn disjoint(mut nested: Vec<Range>) -> Vec<Range> {
    nested.sort_unstable_by_key(|range| (range.first, std::cmp::Reverse(range.last)));
    let mut flat: Vec<Range> = Vec::with_capacity(nested.len());
    let mut emit = |first: u128, last: u128, owner: PrincipalId| match flat.last_mut() {
        Some(before) if before.owner == owner && before.last.checked_add(1) == Some(first) => {
            before.last = last;
        }
        _ => flat.push(Range { first, last, owner }),
    };
    let mut entered: Vec<Range> = Vec::new();
    // What lies before it is dealt with; None: the family is at its end.
    let mut cursor = Some(0u128);
    for range in nested {
        while let Some(outer) = entered.pop_if(|outer| outer.last < range.first) {
            leave(&outer, &mut cursor, &mut emit);
        }
        if let (Some(outer), Some(at)) = (entered.last(), cursor)
            && at < range.first
        {
            emit(at, range.first - 1, outer.owner);
        }
        // Equal ones come one after the other; the first was empty then.
        cursor = cursor.map(|at| at.max(range.first));
        entered.push(range);
    }
    while let Some(outer) = entered.pop() {
        leave(&outer, &mut cursor, &mut emit);
    }
    flat
}

fn leave(outer: &Range, cursor: &mut Option<u128>, emit: &mut impl FnMut(u128, u128, PrincipalId)) {
    if let Some(at) = *cursor
        && at <= outer.last
    {
        emit(at, outer.last, outer.owner);
        *cursor = outer.last.checked_add(1);
    }
}

/// The fewest networks that make up a range.
fn split(range: &Range, width: u32, networks: &mut Vec<(Cidr, PrincipalId)>) {
    let mut first = range.first;
    loop {
        let aligned = first.trailing_zeros().min(width);
        // One less than the room that is left, which might not fit.
        let room = range.last - first;
        let fits = room.checked_add(1).map_or(128, u128::ilog2);
        let hosts = aligned.min(fits);
        let address = if width == 32 {
            IpAddr::V4(Ipv4Addr::from(first as u32))
        } else {
            IpAddr::V6(Ipv6Addr::from(first))
        };
        let length = (width - hosts) as u8;
        networks.push((Cidr { address, length }, range.owner));
        let size = 1u128.checked_shl(hosts);
        match size.and_then(|size| first.checked_add(size)) {
            Some(next) if next <= range.last => first = next,
            _ => return,
        }
    }
}
