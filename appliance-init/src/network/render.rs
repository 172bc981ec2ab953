//! Texts for systemd-networkd, a pure function of the plan: the same plan gives the same bytes.

use std::collections::BTreeMap;

use clawgress_config::{Address, Cidr, Ethernet, Role, Route};

use super::Plan;

/// Begins the name of every file that is ours, so that stale ones can be told from others'.
pub(super) const PREFIX: &str = "10-clawgress-";

/// One line for people: which card gets what.
pub(crate) fn describe(plan: &Plan) -> String {
    if plan.cards.is_empty() {
        return "every card is held down".to_owned();
    }
    let card = |card: &Ethernet| {
        let addresses: Vec<_> = card.addresses.iter().map(address).collect();
        format!("{} {}: {}", card.name, roles(card), addresses.join(", "))
    };
    let cards: Vec<_> = plan.cards.iter().map(card).collect();
    cards.join("; ")
}

fn address(address: &Address) -> String {
    match address {
        Address::Dhcp => "DHCP".to_owned(),
        Address::Static(cidr) => cidr.to_string(),
    }
}

fn roles(card: &Ethernet) -> String {
    let words: Vec<_> = card.roles.iter().map(|role| role.word()).collect();
    words.join("+")
}

/// File names and their texts.
pub(super) fn files(plan: &Plan) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = plan
        .cards
        .iter()
        .map(|card| {
            (
                format!("{PREFIX}{}.network", card.name),
                network(card, plan),
            )
        })
        .collect();
    // Sorts behind every listed card, and matches whatever else turns up: fail closed for cards nobody named.
    let mut ini = Ini(
        "# Cards that the configuration does not name stay down.\n[Match]\nName=!lo\n".to_owned(),
    );
    ini.held_down();
    files.insert(format!("{PREFIX}unlisted.network"), ini.0);
    files
}

/// Sections of an ini file, written in the order in which they are begun.
struct Ini(String);

impl Ini {
    fn section(&mut self, name: &str) {
        self.0.extend(["\n[", name, "]\n"]);
    }

    fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.extend([key, "=", &value.to_string(), "\n"]);
    }
}

impl Ini {
    fn held_down(&mut self) {
        self.section("Link");
        self.set("ActivationPolicy", "always-down");
        self.set("RequiredForOnline", "no");
        self.section("Network");
        for key in ["DHCP", "LinkLocalAddressing", "IPv6AcceptRA", "LLDP"] {
            self.set(key, "no");
        }
    }
}

fn network(card: &Ethernet, plan: &Plan) -> String {
    let mut ini = Ini(format!("# {} {}\n[Match]\n", card.name, roles(card)));
    ini.set("Name", &card.name);
    if card.addresses.is_empty() {
        ini.held_down();
        return ini.0;
    }
    let dhcp = card.uses_dhcp();
    let automatic_v6 = dhcp && card.has(Role::Wan);
    let fixed_v6 = card.cidrs().any(|cidr| cidr.address.is_ipv6());

    ini.section("Link");
    // Nothing of ours waits for a network; a box without a cable must come up all the same.
    ini.set("RequiredForOnline", "no");

    ini.section("Network");
    for cidr in card.cidrs() {
        ini.set("Address", cidr);
    }
    ini.set("DHCP", if dhcp { "ipv4" } else { "no" });
    // A card that speaks no IPv6 has no address that agents could talk to.
    ini.set(
        "LinkLocalAddressing",
        if automatic_v6 || fixed_v6 {
            "ipv6"
        } else {
            "no"
        },
    );
    // Router advertisements set routes: only the outside may offer any.
    ini.set("IPv6AcceptRA", yes(automatic_v6));
    ini.set("LLDP", "no");
    if !dhcp {
        // Daemons bind to this address whether or not the cable is in.
        ini.set("ConfigureWithoutCarrier", "yes");
    }
    if dhcp {
        dhcp_sections(&mut ini, takes_default_route(card, plan));
    }
    if automatic_v6 {
        ini.section("IPv6AcceptRA");
        ini.set("UseDNS", "no");
        ini.set("UseDomains", "no");
        ini.section("DHCPv6");
        for key in ["UseDNS", "UseNTP", "UseHostname"] {
            ini.set(key, "no");
        }
    }
    for route in plan
        .routes
        .iter()
        .filter(|route| carries(card, route, plan))
    {
        ini.section("Route");
        ini.set("Destination", route.network);
        ini.set("Gateway", route.next_hop);
        if !card.cidrs().any(|cidr| cidr.contains(route.next_hop)) {
            // Whether the lease's network holds the next hop is known only later.
            ini.set("GatewayOnLink", "yes");
        }
    }
    ini.0
}

fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

fn dhcp_sections(ini: &mut Ini, default_route: bool) {
    ini.section("DHCPv4");
    // The machine id of a live system is new at every boot; the address of the card is what a reservation names.
    ini.set("ClientIdentifier", "mac");
    // Neither time, names nor the zone come from whoever answers on the wire.
    for key in [
        "UseDNS",
        "UseNTP",
        "UseDomains",
        "UseHostname",
        "UseTimezone",
    ] {
        ini.set(key, "no");
    }
    ini.set("UseGateway", yes(default_route));
    if !default_route {
        ini.set("UseRoutes", "no");
    }
}

/// The default route belongs to the outside; a management card has it only on a box without one.
fn takes_default_route(card: &Ethernet, plan: &Plan) -> bool {
    card.has(Role::Wan) || !plan.cards.iter().any(|card| card.has(Role::Wan))
}

/// True if the route's next hop is behind this card: in its network, or behind DHCP if no card has such a network.
fn carries(card: &Ethernet, route: &Route, plan: &Plan) -> bool {
    let holds = |card: &Ethernet| card.cidrs().any(|cidr: Cidr| cidr.contains(route.next_hop));
    if plan.cards.iter().any(holds) {
        return holds(card);
    }
    let by_dhcp = || plan.cards.iter().filter(|card| card.uses_dhcp());
    let behind = by_dhcp()
        .find(|card| card.has(Role::Wan))
        .or_else(|| by_dhcp().next());
    behind.is_some_and(|behind| behind.name == card.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(text: &str) -> Plan {
        Plan::of(
            &clawgress_config::load(text.as_bytes())
                .expect(text)
                .document,
        )
    }

    /// All files in one text, as the golden files hold them.
    fn joined(plan: &Plan) -> String {
        let parts: Vec<_> = files(plan)
            .into_iter()
            .map(|(name, text)| format!("==> {name}\n{text}"))
            .collect();
        parts.join("\n")
    }

    fn golden(name: &str, plan: &Plan) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata/network")
            .join(name);
        let made = joined(plan);
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            made == kept,
            "{} differs from what is rendered now:\n{made}",
            path.display()
        );
    }

    #[test]
    fn without_a_configuration() {
        golden("default.txt", &Plan::without_config());
    }

    #[test]
    fn three_cards() {
        golden(
            "office.txt",
            &plan(
                "interfaces {\n ethernet eth0 { address dhcp role wan description \"the way out\" }\n\
                 ethernet eth1 { address 192.168.10.1/24 role lan }\n\
                 ethernet eth2 { address dhcp role management }\n ethernet eth3 { role lan }\n}\n\
                 protocols { static { route 10.50.0.0/16 { next-hop 192.168.10.254 } } }\n",
            ),
        );
    }

    #[test]
    fn fixed_addresses_of_both_families() {
        golden(
            "fixed.txt",
            &plan(
                "interfaces {\n ethernet eth0 { address 192.0.2.2/24 address 2001:db8::2/64 role wan }\n\
                 ethernet eth1 { address 192.168.10.1/24 address fd00:10::1/64 role lan }\n}\n\
                 protocols { static {\n route 0.0.0.0/0 { next-hop 192.0.2.1 }\n\
                 route ::/0 { next-hop 2001:db8::1 } } }\n",
            ),
        );
    }

    #[test]
    fn a_next_hop_behind_dhcp() {
        golden(
            "dhcp-route.txt",
            &plan(
                "interfaces { ethernet eth0 { address dhcp role wan } }\n\
                 protocols { static { route 10.0.0.0/8 { next-hop 10.0.2.2 } } }\n",
            ),
        );
    }

    #[test]
    fn nothing_at_all() {
        golden("down.txt", &Plan::default());
        assert_eq!(describe(&Plan::default()), "every card is held down");
    }

    #[test]
    fn descriptions_read_well() {
        assert_eq!(describe(&Plan::without_config()), "eth0 wan: DHCP");
    }

    fn card() -> impl Strategy<Value = (bool, bool, u8)> {
        (any::<bool>(), any::<bool>(), 0..3_u8)
    }

    proptest! {
        #[test]
        fn no_plan_ever_forwards_or_takes_names_or_time_from_the_wire(cards in prop::collection::vec(card(), 0..6)) {
            let cards: Vec<Ethernet> = cards
                .into_iter()
                .enumerate()
                .map(|(number, (dhcp, fixed, role))| Ethernet {
                    name: format!("eth{number}"),
                    addresses: dhcp
                        .then_some(Address::Dhcp)
                        .into_iter()
                        .chain(fixed.then(|| {
                            let address = std::net::Ipv4Addr::new(10, number as u8, 0, 1).into();
                            Address::Static(Cidr { address, length: 24 })
                        }))
                        .collect(),
                    roles: vec![[Role::Wan, Role::Lan, Role::Management][usize::from(role)]],
                    description: Some("IPForward=yes".into()),
                })
                .collect();
            let plan = Plan { cards, routes: Vec::new() };
            for (name, text) in files(&plan) {
                prop_assert!(!text.contains("Forward"), "{}", text);
                prop_assert!(!text.contains("UseDNS=yes") && !text.contains("UseNTP=yes"));
                if text.contains("DHCP=ipv4") {
                    prop_assert!(text.contains("UseDNS=no") && text.contains("UseNTP=no"), "{}: {}", name, text);
                }
                if !text.contains("wan") {
                    prop_assert!(!text.contains("IPv6AcceptRA=yes"), "{}", text);
                }
            }
        }
    }
}
