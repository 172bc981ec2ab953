//! The typed document: what a valid tree means, with defaults filled in.
//!
//! Built from any tree by leaving out what is wrong, so that rules between paths can be checked beside other
//! errors. Only the document of a tree without problems is ever acted on.

use std::net::IpAddr;

use serde::Serialize;

use crate::access::{self, Access};
use crate::cidr::Cidr;
use crate::policy::{self, Policy};
use crate::problem::Problem;
use crate::schema::{Kind, TABLE};
use crate::table::{FACILITIES, SWITCH};
use crate::tree::{Node, Tree};
use crate::value;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    pub system: System,
    /// By number of the card.
    pub interfaces: Vec<Ethernet>,
    /// By network.
    pub routes: Vec<Route>,
    /// Absent when SSH is not configured, and then not offered.
    pub ssh: Option<Ssh>,
    /// Absent when nothing was ever said about agents.
    pub clawgress: Option<Clawgress>,
    /// Windows are judged though no time server has answered.
    pub trust_hardware_clock: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct System {
    pub host_name: String,
    pub time_zone: String,
    /// In the order in which they are asked.
    pub name_servers: Vec<IpAddr>,
    pub ntp_servers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ethernet {
    pub name: String,
    pub addresses: Vec<Address>,
    pub roles: Vec<Role>,
    pub description: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Address {
    Dhcp,
    Static(Cidr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Wan,
    Lan,
    Management,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Route {
    pub network: Cidr,
    pub next_hop: IpAddr,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ssh {
    pub port: u16,
    /// Empty means every management address.
    pub listen_addresses: Vec<IpAddr>,
    /// Empty means every network that a management card reaches.
    pub allow: Vec<Cidr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Clawgress {
    /// False: the box stays sealed.
    pub enabled: bool,
    /// Empty means every LAN address.
    pub listen_addresses: Vec<IpAddr>,
    pub policy: Policy,
    /// Agents, their rules and quotas, and what serves them.
    pub access: Access,
    /// Of syslog.
    pub facility: String,
    pub deny_log: bool,
}

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Self::Wan => "wan",
            Self::Lan => "lan",
            Self::Management => "management",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Wan, Self::Lan, Self::Management]
            .into_iter()
            .find(|role| role.word() == word)
    }
}

impl Address {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        if word == "dhcp" {
            return Some(Self::Dhcp);
        }
        Cidr::parse_interface(word).ok().map(Self::Static)
    }
}

impl Ethernet {
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    pub fn uses_dhcp(&self) -> bool {
        self.addresses.contains(&Address::Dhcp)
    }

    pub fn cidrs(&self) -> impl Iterator<Item = Cidr> {
        self.addresses.iter().filter_map(|address| match address {
            Address::Dhcp => None,
            Address::Static(cidr) => Some(*cidr),
        })
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::of(&Tree::default())
    }
}

/// The default that the table gives a leaf.
fn default_of(path: &str) -> &'static str {
    TABLE
        .iter()
        .find(|entry| entry.path == path && matches!(entry.kind, Kind::One(_)))
        .and_then(|entry| entry.default)
        .unwrap_or_default()
}

fn values<'t>(tree: &'t Tree, path: &[&str]) -> Vec<&'t str> {
    below(tree.get(path))
}

fn below(node: Option<&Node>) -> Vec<&str> {
    node.map(|node| node.in_order().into_iter().map(|(word, _)| word).collect())
        .unwrap_or_default()
}

impl Document {
    pub(crate) fn of(tree: &Tree) -> Self {
        Self::read(tree).0
    }

    /// With what contradicts itself in the policy, which no look at single values finds.
    pub(crate) fn read(tree: &Tree) -> (Self, Vec<Problem>) {
        let (policy, mut problems) = policy::tree::read(tree);
        let (access, of_access) = access::tree::read(tree);
        problems.extend(of_access);
        let document = Self {
            system: System {
                host_name: single(tree, &["system", "host-name"], value::Value::HostName),
                time_zone: single(tree, &["system", "time-zone"], value::Value::TimeZone),
                name_servers: values(tree, &["system", "name-server"])
                    .into_iter()
                    .filter_map(|word| word.parse().ok())
                    .collect(),
                ntp_servers: values(tree, &["system", "ntp", "server"])
                    .into_iter()
                    .filter(|word| value::Value::Host.check(word).is_ok())
                    .map(str::to_owned)
                    .collect(),
            },
            interfaces: tree
                .get(&["interfaces", "ethernet"])
                .map(|node| {
                    node.sorted()
                        .into_iter()
                        .filter_map(|(name, card)| ethernet(name, card))
                        .collect()
                })
                .unwrap_or_default(),
            routes: tree
                .get(&["protocols", "static", "route"])
                .map(|node| {
                    node.sorted()
                        .into_iter()
                        .filter_map(|(network, route)| route_of(network, route))
                        .collect()
                })
                .unwrap_or_default(),
            ssh: tree.get(&["service", "ssh"]).map(|_| ssh(tree)),
            clawgress: tree
                .get(&["service", "clawgress"])
                .map(|_| clawgress(tree, policy, access)),
            trust_hardware_clock: tree
                .get(&["system", "ntp", "trust-hardware-clock"])
                .is_some(),
        };
        (document, problems)
    }
}

/// The leaf's valid value, or its default.
fn single(tree: &Tree, path: &[&str], value: value::Value) -> String {
    values(tree, path)
        .into_iter()
        .find(|word| value.check(word).is_ok())
        .unwrap_or_else(|| default_of(&path.join(" ")))
        .to_owned()
}

fn ethernet(name: &str, card: &Node) -> Option<Ethernet> {
    value::card(name).ok()?;
    Some(Ethernet {
        name: name.to_owned(),
        addresses: below(card.get("address"))
            .into_iter()
            .filter_map(Address::parse)
            .collect(),
        roles: below(card.get("role"))
            .into_iter()
            .filter_map(Role::parse)
            .collect(),
        description: below(card.get("description"))
            .first()
            .map(|&text| text.to_owned()),
    })
}

fn route_of(network: &str, route: &Node) -> Option<Route> {
    Some(Route {
        network: Cidr::parse_network(network).ok()?,
        next_hop: below(route.get("next-hop")).first()?.parse().ok()?,
    })
}

fn ssh(tree: &Tree) -> Ssh {
    let port = single(tree, &["service", "ssh", "port"], value::Value::Port);
    Ssh {
        port: value::port(&port).unwrap_or(22),
        listen_addresses: values(tree, &["service", "ssh", "listen-address"])
            .into_iter()
            .filter_map(|word| word.parse().ok())
            .collect(),
        allow: values(tree, &["service", "ssh", "allow"])
            .into_iter()
            .filter_map(|word| Cidr::parse_network(word).ok())
            .collect(),
    }
}

fn clawgress(tree: &Tree, policy: Policy, access: Access) -> Clawgress {
    let logging = |word, words| {
        let path = ["service", "clawgress", "logging", word];
        single(tree, &path, value::Value::Word(words))
    };
    Clawgress {
        enabled: tree.get(&["service", "clawgress", "enable"]).is_some(),
        listen_addresses: values(tree, &["service", "clawgress", "listen-address"])
            .into_iter()
            .filter_map(|word| word.parse().ok())
            .collect(),
        policy,
        access,
        facility: logging("facility", FACILITIES),
        deny_log: logging("deny-log", SWITCH) == "enable",
    }
}
