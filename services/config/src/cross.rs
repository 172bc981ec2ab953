//! Rules between paths: what is right in itself but cannot work, or would not be safe, together.
//!
//! Errors here are what would leave the box unreachable or agents a way around it; everything that is only
//! unusual is a warning.

use std::net::IpAddr;

use crate::access;
use crate::document::{Document, Ethernet, Role};
use crate::policy::{self, check};
use crate::problem::Problem;
use crate::tree::Tree;

struct Checks<'t> {
    tree: &'t Tree,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// With `doubt` something below `service clawgress` could not be understood.
pub(crate) fn check(document: &Document, tree: &Tree, doubt: bool) -> (Vec<Problem>, Vec<Problem>) {
    let mut checks = Checks {
        tree,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    for card in &document.interfaces {
        checks.card(card);
    }
    checks.overlaps(document);
    checks.routes(document);
    checks.ssh(document);
    checks.clawgress(document, doubt);
    checks.whole(document);
    (checks.problems, checks.warnings)
}

impl Checks<'_> {
    fn at(&self, path: &[&str], what: impl Into<String>, fix: impl Into<String>) -> Problem {
        let position = self.tree.get(path).and_then(crate::tree::Node::position);
        Problem::new(path, position, what, fix)
    }

    fn error(&mut self, path: &[&str], what: impl Into<String>, fix: impl Into<String>) {
        let problem = self.at(path, what, fix);
        self.problems.push(problem);
    }

    fn warn(&mut self, path: &[&str], what: impl Into<String>, fix: impl Into<String>) {
        let problem = self.at(path, what, fix);
        self.warnings.push(problem);
    }

    fn card(&mut self, card: &Ethernet) {
        let path = ["interfaces", "ethernet", card.name.as_str()];
        let with = |word: &'static str| [path[0], path[1], path[2], word];
        // A role that is there but misspelt has been reported already.
        let role_written = self.tree.get(&with("role")).is_some();
        if !card.addresses.is_empty() && !role_written {
            self.error(
                &path,
                "the card has an address and no role",
                "add role wan, lan or management",
            );
        }
        if card.addresses.is_empty() && role_written && self.tree.get(&with("address")).is_none() {
            self.warn(
                &path,
                "the card has a role and no address",
                "add an address, or dhcp",
            );
        }
        if card.has(Role::Wan) && card.has(Role::Lan) {
            self.error(
                &with("role"),
                "one card cannot be wan and lan: agents could go around the box",
                "give the agents a card of their own",
            );
        }
        if card.uses_dhcp() && card.has(Role::Lan) {
            self.error(
                &with("address"),
                "a lan card takes no address from DHCP: it is the gateway of its agents, and a server there \
                 could set the box's default route",
                "write its fixed address, such as 192.168.10.1/24",
            );
        }
        if card.uses_dhcp() && card.cidrs().any(|cidr| cidr.address.is_ipv4()) {
            self.error(
                &with("address"),
                "dhcp and a fixed IPv4 address exclude each other on one card",
                "keep one of them",
            );
        }
    }

    fn overlaps(&mut self, document: &Document) {
        for (at, later) in document.interfaces.iter().enumerate() {
            for earlier in &document.interfaces[..at] {
                for cidr in later.cidrs() {
                    let Some(other) = earlier
                        .cidrs()
                        .find(|other| other.overlaps(&cidr) && !link_local(other.address))
                    else {
                        continue;
                    };
                    let text = cidr.to_string();
                    let path = [
                        "interfaces",
                        "ethernet",
                        later.name.as_str(),
                        "address",
                        text.as_str(),
                    ];
                    let what = if other.address == cidr.address {
                        format!("{} has the same address", earlier.name)
                    } else {
                        format!("overlaps {other} of {}", earlier.name)
                    };
                    self.error(&path, what, "give each card a network of its own");
                }
            }
        }
    }

    fn routes(&mut self, document: &Document) {
        for route in &document.routes {
            let network = route.network.to_string();
            let path = ["protocols", "static", "route", network.as_str(), "next-hop"];
            let hop = route.next_hop;
            if route.network.address.is_ipv4() != hop.is_ipv4() {
                self.error(
                    &path,
                    format!("{hop} is of the other address family than {network}"),
                    "give a next hop of the route's own family",
                );
                continue;
            }
            let own = document
                .interfaces
                .iter()
                .find(|card| card.cidrs().any(|cidr| cidr.address == hop));
            if let Some(card) = own {
                let what = format!("{hop} is this machine's own address on {}", card.name);
                self.error(&path, what, "write the address of the other router");
                continue;
            }
            let reachable = document
                .interfaces
                .iter()
                .any(|card| card.cidrs().any(|cidr| cidr.contains(hop)));
            // Behind DHCP the network is not known before there is a lease.
            let unknown = document.interfaces.iter().any(Ethernet::uses_dhcp);
            if !reachable && !unknown {
                self.error(
                    &path,
                    format!("{hop} is in no network of any card"),
                    "write a router that a card reaches directly, or give a card an address in its network",
                );
            }
        }
        for (network, node) in self
            .tree
            .get(&["protocols", "static", "route"])
            .map(crate::tree::Node::sorted)
            .unwrap_or_default()
        {
            if node.get("next-hop").is_none() {
                let path = ["protocols", "static", "route", network];
                self.error(&path, "the route has no next hop", "add next-hop <address>");
            }
        }
    }

    fn ssh(&mut self, document: &Document) {
        let Some(ssh) = &document.ssh else { return };
        let path = ["service", "ssh"];
        let management: Vec<_> = document
            .interfaces
            .iter()
            .filter(|card| card.has(Role::Management))
            .collect();
        if management.is_empty() {
            self.error(
                &path,
                "SSH listens on management addresses only, and no card has that role",
                "give a card role management",
            );
            return;
        }
        if management.iter().any(|card| card.uses_dhcp()) {
            return;
        }
        for address in &ssh.listen_addresses {
            if !management
                .iter()
                .any(|card| card.cidrs().any(|cidr| cidr.address == *address))
            {
                let text = address.to_string();
                let own: Vec<_> = management
                    .iter()
                    .flat_map(|card| card.cidrs())
                    .map(|cidr| cidr.address.to_string())
                    .collect();
                self.error(
                    &["service", "ssh", "listen-address", text.as_str()],
                    format!("{address} is not an address of a management card"),
                    if own.is_empty() {
                        "give a management card this address".to_owned()
                    } else {
                        format!("write one of: {}", own.join(", "))
                    },
                );
            }
        }
    }

    fn clawgress(&mut self, document: &Document, doubt: bool) {
        let Some(clawgress) = &document.clawgress else {
            return;
        };
        let own: Vec<_> = document
            .interfaces
            .iter()
            .filter(|card| card.has(Role::Lan))
            .flat_map(Ethernet::cidrs)
            .map(|cidr| cidr.address)
            .collect();
        for address in &clawgress.listen_addresses {
            if own.contains(address) {
                continue;
            }
            let text = address.to_string();
            let known: Vec<_> = own.iter().map(ToString::to_string).collect();
            self.error(
                &["service", "clawgress", "listen-address", text.as_str()],
                format!("{address} is not an address of a lan card"),
                if known.is_empty() {
                    "give a lan card this address".to_owned()
                } else {
                    format!("write one of: {}", known.join(", "))
                },
            );
        }
        for finding in check::findings(&clawgress.policy, doubt) {
            let problem = policy::tree::problem(self.tree, &finding);
            if finding.grave {
                self.problems.push(problem);
            } else {
                self.warnings.push(problem);
            }
        }
        for finding in access::check::findings(&clawgress.access, &clawgress.policy, doubt) {
            let problem = access::tree::problem(self.tree, &finding);
            if finding.grave {
                self.problems.push(problem);
            } else {
                self.warnings.push(problem);
            }
        }
        if !clawgress.enabled {
            self.warn(
                &["service", "clawgress"],
                "the policy is not enforced: nothing leaves at all",
                "add service clawgress enable",
            );
        }
    }

    fn whole(&mut self, document: &Document) {
        let any = |role| document.interfaces.iter().any(|card| card.has(role));
        if document.interfaces.is_empty() {
            self.warn(
                &["interfaces"],
                "no card is configured",
                "add interfaces ethernet eth0 with address and role",
            );
        } else if !any(Role::Wan) {
            self.warn(
                &["interfaces"],
                "no card has role wan",
                "without one nothing can ever leave",
            );
        }
        for server in &document.system.ntp_servers {
            if server.parse::<IpAddr>().is_err() {
                self.warn(
                    &["system", "ntp", "server", server],
                    "this name cannot be resolved while no policy is committed",
                    "add a server by address",
                );
            }
        }
    }
}

/// Every card may have addresses of the link-local network.
fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
