//! Which addresses are pinned for whom, under which names, until when. Pure: the time is an argument, and what a pin
//! means for the kernel is asked of a `Placement`.
//!
//! Bounded: for each principal, in total, and in the names of one address. What does not fit is refused, never half
//! taken.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// Into which sets of the kernel an address goes that a principal resolved under a name. Nowhere: an empty list.
/// `leaving`: it opens nothing any more, and still counts.
pub trait Placement {
    fn sets(&self, principal: &str, name: &str, address: IpAddr, leaving: bool) -> Vec<SetName>;
}

/// A set of addresses of one family, or of such addresses with a port each: then an address is there with this one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetName {
    pub table: &'static str,
    pub set: String,
    pub port: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub per_principal: usize,
    pub total: usize,
}

/// An address may be that of very many names; no more of them are kept than tell the truth to people.
const NAMES_OF_AN_ADDRESS: usize = 256;
/// No answer that fits a UDP datagram holds more.
pub const ADDRESSES_OF_A_PIN: usize = 1024;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("{principal} has {limit} pinned addresses, the most that one may have")]
    Principal { principal: String, limit: usize },
    #[error("{limit} addresses are pinned, the most that fit")]
    Total { limit: usize },
    #[error("{address} is pinned under {NAMES_OF_AN_ADDRESS} names, the most that fit")]
    Names { address: IpAddr },
    #[error("{count} addresses in one answer, the most is {ADDRESSES_OF_A_PIN}")]
    Answer { count: usize },
}

#[derive(Debug)]
pub struct Table {
    limits: Limits,
    principals: HashMap<Arc<str>, HashMap<IpAddr, Vec<Hold>>>,
    total: usize,
}

#[derive(Debug, Clone)]
struct Hold {
    name: Arc<str>,
    until: u64,
    leaving: bool,
}

/// One address under one name of one principal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pinned {
    pub principal: Arc<str>,
    pub address: IpAddr,
    pub name: Arc<str>,
    pub until: u64,
    /// No new flow goes by it. A flow that began before is still counted by it.
    pub leaving: bool,
}

impl Table {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            principals: HashMap::new(),
            total: 0,
        }
    }

    /// Addresses, not names: what counts against the limits.
    pub fn len(&self) -> usize {
        self.total
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Whether all of these fit. Nothing is changed.
    pub fn fits(&self, principal: &str, name: &str, addresses: &[IpAddr]) -> Result<(), Full> {
        if addresses.len() > ADDRESSES_OF_A_PIN {
            return Err(Full::Answer {
                count: addresses.len(),
            });
        }
        let own = self.principals.get(principal);
        let held = |address: &IpAddr| own.and_then(|own| own.get(address));
        let new = addresses
            .iter()
            .filter(|address| held(address).is_none())
            .collect::<BTreeSet<_>>()
            .len();
        if own.map_or(0, HashMap::len) + new > self.limits.per_principal {
            return Err(Full::Principal {
                principal: principal.to_owned(),
                limit: self.limits.per_principal,
            });
        }
        if self.total + new > self.limits.total {
            return Err(Full::Total {
                limit: self.limits.total,
            });
        }
        let crowded = addresses.iter().find(|address| {
            held(address).is_some_and(|holds| {
                holds.len() >= NAMES_OF_AN_ADDRESS && !holds.iter().any(|hold| *hold.name == *name)
            })
        });
        match crowded {
            Some(address) => Err(Full::Names { address: *address }),
            None => Ok(()),
        }
    }

    /// Takes all addresses or none. A pin that is there already lives at least as long as both say.
    pub fn pin(
        &mut self,
        principal: &str,
        name: &str,
        addresses: &[IpAddr],
        until: u64,
    ) -> Result<(), Full> {
        self.fits(principal, name, addresses)?;
        let key = match self.principals.get_key_value(principal) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(principal),
        };
        let own = self.principals.entry(key).or_default();
        let name: Arc<str> = Arc::from(name);
        for address in addresses {
            let holds = own.entry(*address).or_insert_with(|| {
                self.total += 1;
                Vec::new()
            });
            match holds.iter_mut().find(|hold| hold.name == name) {
                Some(hold) => {
                    hold.until = hold.until.max(until);
                    hold.leaving = false;
                }
                None => holds.push(Hold {
                    name: Arc::clone(&name),
                    until,
                    leaving: false,
                }),
            }
        }
        Ok(())
    }

    /// Every pin, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Pinned> + '_ {
        self.principals.iter().flat_map(|(principal, own)| {
            own.iter().flat_map(move |(address, holds)| {
                holds.iter().map(move |hold| Pinned {
                    principal: Arc::clone(principal),
                    address: *address,
                    name: Arc::clone(&hold.name),
                    until: hold.until,
                    leaving: hold.leaving,
                })
            })
        })
    }

    /// What has lived long enough by `now`.
    pub fn expired(&self, now: u64) -> Vec<Pinned> {
        self.iter().filter(|pin| pin.until <= now).collect()
    }

    /// Lets a principal's pins of an address live until then that would have gone before: flows use them. Returns what
    /// was prolonged.
    pub fn prolong(&mut self, principal: &str, address: IpAddr, until: u64) -> Vec<Arc<str>> {
        let holds = self
            .principals
            .get_mut(principal)
            .and_then(|own| own.get_mut(&address));
        let short = holds
            .into_iter()
            .flatten()
            .filter(|hold| hold.until < until);
        short
            .map(|hold| {
                hold.until = until;
                hold.leaving = false;
                Arc::clone(&hold.name)
            })
            .collect()
    }

    /// Nothing new goes by this pin from now on.
    pub fn leave(&mut self, pin: &Pinned) {
        let holds = self
            .principals
            .get_mut(&pin.principal)
            .and_then(|own| own.get_mut(&pin.address));
        for hold in holds.into_iter().flatten() {
            hold.leaving |= hold.name == pin.name;
        }
    }

    pub fn unpin(&mut self, pin: &Pinned) {
        self.forget(&pin.principal, &pin.name, pin.address);
    }

    pub fn forget(&mut self, principal: &str, name: &str, address: IpAddr) {
        let Some(own) = self.principals.get_mut(principal) else {
            return;
        };
        if let Some(holds) = own.get_mut(&address) {
            holds.retain(|hold| *hold.name != *name);
            if holds.is_empty() {
                own.remove(&address);
                self.total -= 1;
            }
        }
        if own.is_empty() {
            self.principals.remove(principal);
        }
    }

    /// The names under which a principal has this address.
    pub fn names(&self, principal: &str, address: IpAddr) -> Vec<Arc<str>> {
        self.principals
            .get(principal)
            .and_then(|own| own.get(&address))
            .map(|holds| holds.iter().map(|hold| Arc::clone(&hold.name)).collect())
            .unwrap_or_default()
    }

    /// A name under which anybody has this address.
    pub fn anybodys_name(&self, address: IpAddr) -> Option<Arc<str>> {
        self.principals
            .values()
            .find_map(|own| own.get(&address)?.first())
            .map(|hold| Arc::clone(&hold.name))
    }

    /// The sets in which a principal's address has to be, for all of its names together.
    pub fn placed(
        &self,
        principal: &str,
        address: IpAddr,
        placement: &impl Placement,
    ) -> BTreeSet<SetName> {
        self.principals
            .get(principal)
            .and_then(|own| own.get(&address))
            .into_iter()
            .flatten()
            .flat_map(|hold| placement.sets(principal, &hold.name, address, hold.leaving))
            .collect()
    }

    /// As `placed`, for everybody who has this address: principals may share a set.
    pub fn placed_by_anybody(
        &self,
        address: IpAddr,
        placement: &impl Placement,
    ) -> BTreeSet<SetName> {
        self.principals
            .iter()
            .filter(|(_, own)| own.contains_key(&address))
            .flat_map(|(principal, _)| self.placed(principal, address, placement))
            .collect()
    }

    /// All that has to be in the kernel. Two principals may want one address in one set: then it is there once.
    pub fn placements(&self, placement: &impl Placement) -> BTreeSet<(SetName, IpAddr)> {
        self.iter()
            .flat_map(|pin| {
                placement
                    .sets(&pin.principal, &pin.name, pin.address, pin.leaving)
                    .into_iter()
                    .map(move |set| (set, pin.address))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        per_principal: 3,
        total: 5,
    };

    /// A set for each principal; `capped.test` also goes into one that all share; `shut.test` goes nowhere.
    struct Plain;

    impl Placement for Plain {
        fn sets(&self, principal: &str, name: &str, _: IpAddr, leaving: bool) -> Vec<SetName> {
            let set = |set: &str| SetName {
                table: "t",
                set: set.to_owned(),
                port: None,
            };
            match name {
                "shut.test" => Vec::new(),
                "capped.test" if leaving => vec![set("cap")],
                _ if leaving => Vec::new(),
                "capped.test" => vec![set(principal), set("cap")],
                _ => vec![set(principal)],
            }
        }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn sets(table: &Table, principal: &str, last: u8) -> Vec<String> {
        let placed = table.placed(principal, address(last), &Plain);
        placed.into_iter().map(|name| name.set).collect()
    }

    #[test]
    fn an_address_of_two_names_stays_until_both_are_gone() {
        let mut table = Table::new(LIMITS);
        table.pin("a", "one.test", &[address(1)], 10).unwrap();
        table.pin("a", "capped.test", &[address(1)], 20).unwrap();
        assert_eq!(table.len(), 1);
        assert_eq!(sets(&table, "a", 1), ["a", "cap"]);
        let expired = table.expired(20);
        assert_eq!(expired.len(), 2);
        let capped = expired
            .iter()
            .find(|pin| &*pin.name == "capped.test")
            .unwrap();
        table.unpin(capped);
        assert_eq!(sets(&table, "a", 1), ["a"]);
        table.unpin(&table.expired(20)[0].clone());
        assert!(table.is_empty() && table.names("a", address(1)).is_empty());
    }

    #[test]
    fn what_leaves_opens_nothing_and_still_counts() {
        let mut table = Table::new(LIMITS);
        table.pin("a", "capped.test", &[address(1)], 10).unwrap();
        let pin = table.expired(10).remove(0);
        table.leave(&pin);
        assert_eq!(sets(&table, "a", 1), ["cap"]);
        // A flow turned out to use it.
        assert_eq!(table.prolong("a", address(1), 40).len(), 1);
        assert_eq!(sets(&table, "a", 1), ["a", "cap"]);
        assert!(table.prolong("a", address(1), 30).is_empty());
        table.leave(&pin);
        table.pin("a", "capped.test", &[address(1)], 20).unwrap();
        assert_eq!(sets(&table, "a", 1), ["a", "cap"]);
    }

    #[test]
    fn a_later_answer_prolongs_and_never_shortens() {
        let mut table = Table::new(LIMITS);
        table.pin("a", "one.test", &[address(1)], 50).unwrap();
        table.pin("a", "one.test", &[address(1)], 20).unwrap();
        assert!(table.expired(49).is_empty());
        assert_eq!(table.expired(50).len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut table = Table::new(LIMITS);
        let four: Vec<IpAddr> = (1..5).map(address).collect();
        assert!(matches!(
            table.pin("a", "one.test", &four, 10),
            Err(Full::Principal { limit: 3, .. })
        ));
        assert!(table.is_empty());
        table.pin("a", "one.test", &four[..3], 10).unwrap();
        // The same again is no more than before.
        table.pin("a", "two.test", &four[..3], 10).unwrap();
        assert!(matches!(
            table.pin("b", "one.test", &four[..3], 10),
            Err(Full::Total { limit: 5 })
        ));
        table.pin("b", "one.test", &four[..2], 10).unwrap();
        assert_eq!(table.len(), 5);
        for number in 1..NAMES_OF_AN_ADDRESS {
            let name = format!("n{number}.test");
            table.pin("b", &name, &four[..1], 10).unwrap();
        }
        assert!(matches!(
            table.pin("b", "more.test", &four[..1], 10),
            Err(Full::Names { .. })
        ));
        let many = vec![address(1); ADDRESSES_OF_A_PIN + 1];
        assert!(matches!(
            table.pin("b", "one.test", &many, 10),
            Err(Full::Answer { .. })
        ));
    }

    #[test]
    fn a_name_that_is_shut_puts_nothing_into_the_kernel() {
        let mut table = Table::new(LIMITS);
        table.pin("a", "shut.test", &[address(1)], 10).unwrap();
        table.pin("b", "capped.test", &[address(1)], 10).unwrap();
        table.pin("a", "capped.test", &[address(2)], 10).unwrap();
        let all: Vec<String> = table
            .placements(&Plain)
            .into_iter()
            .map(|(set, address)| format!("{} {address}", set.set))
            .collect();
        assert_eq!(
            all,
            [
                "a 192.0.2.2",
                "b 192.0.2.1",
                "cap 192.0.2.1",
                "cap 192.0.2.2"
            ]
        );
        assert_eq!(
            table.anybodys_name(address(2)).as_deref(),
            Some("capped.test")
        );
    }
}
