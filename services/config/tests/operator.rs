//! What operators write, and what they are told: whole configurations, right and wrong.

use clawgress_config::{Address, Role, curly, load, set_lines};

const GOOD: &str = r#"// clawgress-config 1
/* the office gateway */
interfaces {
    ethernet eth0 { address dhcp  role wan  description "the way out" }
    ethernet eth1 {
        address 192.168.10.1/24     # agents
        role lan
    }
    ethernet eth2
    {
        address 10.9.0.1/24; role management
    }
}
system { host-name gw1  name-server 192.0.2.53  ntp { server 192.0.2.1 } }
protocols { static { route 10.50.0.0/16 { next-hop 192.168.10.254 } } }
set system time-zone Europe/Berlin
set service ssh listen-address '10.9.0.1'
set service ssh allow 10.9.0.0/24
"#;

/// Everything that loading says, one line per problem.
fn complaints(text: &str) -> Vec<String> {
    load(text.as_bytes())
        .expect_err(text)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn complains(text: &str, expected: &str) {
    let said = complaints(text);
    assert!(
        said.iter().any(|line| line.contains(expected)),
        "{expected:?} not in {said:#?}"
    );
}

#[test]
fn a_whole_configuration() {
    let loaded = load(GOOD.as_bytes()).unwrap();
    let document = loaded.document;
    assert_eq!(document.system.host_name, "gw1");
    assert_eq!(document.system.time_zone, "Europe/Berlin");
    assert_eq!(document.system.ntp_servers, ["192.0.2.1"]);
    assert_eq!(document.interfaces.len(), 3);
    assert_eq!(document.interfaces[0].addresses, [Address::Dhcp]);
    assert_eq!(
        document.interfaces[0].description.as_deref(),
        Some("the way out")
    );
    assert_eq!(document.interfaces[2].roles, [Role::Management]);
    assert_eq!(document.routes[0].network.to_string(), "10.50.0.0/16");
    assert_eq!(document.ssh.unwrap().port, 22);
    assert_eq!(loaded.warnings, []);
}

#[test]
fn both_printed_forms_mean_the_same() {
    let loaded = load(GOOD.as_bytes()).unwrap();
    assert_eq!(curly(&loaded.tree), include_str!("data/office.curly"));
    assert_eq!(set_lines(&loaded.tree), include_str!("data/office.set"));
    for text in [curly(&loaded.tree), set_lines(&loaded.tree)] {
        assert_eq!(load(text.as_bytes()).unwrap().document, loaded.document);
    }
}

#[test]
fn an_empty_configuration_has_the_defaults() {
    let loaded = load(b"").unwrap();
    assert_eq!(loaded.document.system.host_name, "clawgress");
    assert_eq!(loaded.document.system.time_zone, "UTC");
    assert_eq!(loaded.document.ssh, None);
    assert_eq!(loaded.warnings.len(), 1);
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_text() {
    let said = complaints(
        "system {\n  hostname gw1\n  time-zone Europe/Brelin\n}\ninterfaces {\n  ethernet eth0 {\n    address 192.0.2.0/24\n    role wna\n  }\n}\n",
    );
    assert_eq!(
        said,
        [
            "line 2, column 3: system: `hostname` is not known here; did you mean host-name?",
            "line 3, column 13: system time-zone: `Europe/Brelin` is not a time zone; did you mean Europe/Berlin?",
            "line 7, column 13: interfaces ethernet eth0 address: `192.0.2.0/24` is a network, not an address in it; \
             write an address of that network, such as 192.0.2.1/24",
            "line 8, column 10: interfaces ethernet eth0 role: `wna` is not a word known here; did you mean wan?",
        ]
    );
}

#[test]
fn syntax_errors_name_their_place() {
    complains(
        "system {\n  host-name gw1\n",
        "line 1, column 8: system: this { is never closed",
    );
    complains(
        "system { host-name gw1 }\n}",
        "line 2, column 1: this } closes nothing",
    );
    complains(
        "set system host-name \"gw1\n",
        "line 1, column 22: system host-name: this quote is not closed",
    );
    complains(
        "set system { host-name gw1 }",
        "a brace stands in a set line",
    );
    complains("set\n", "`set` has no path");
    complains("{ system }", "without a name before it");
    complains("/* never ends", "comment is not closed");
    complains("system {\n host-name \u{0}gw1 }", "control character");
    let said = load(b"system {\n  host-name \xff\n}")
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("line 2, column 13: this byte is not UTF-8"),
        "{said}"
    );
    let said = load(b"\xff\xfes\0e\0t\0").unwrap_err().to_string();
    assert!(said.contains("UTF-16"), "{said}");
}

#[test]
fn files_of_other_editors_are_read() {
    let text = GOOD.replace('\n', "\r\n");
    let mut bytes = vec![0xef, 0xbb, 0xbf];
    bytes.extend(text.as_bytes());
    assert!(load(&bytes).is_ok());
}

#[test]
fn versions_are_respected() {
    assert!(load(b"\n// clawgress-config 1\n").is_ok());
    complains(
        "// clawgress-config 2\nfuture { }",
        "is of version 2, this image knows up to version 1",
    );
    complains("system { }\n// clawgress-config 1\n", "not the first line");
    complains("// clawgress-config one\n", "not a configuration version");
}

#[test]
fn wrong_shapes_are_explained() {
    complains(
        "set system host-name",
        "system host-name: the value is missing; write <name>",
    );
    complains(
        "set system host-name a\nset system host-name b",
        "takes one value, given are `a`, `b`",
    );
    complains(
        "set system name-server 192.0.2.1 192.0.2.2",
        "nothing can follow the value, found `192.0.2.2`",
    );
    complains(
        "set interfaces ethernet",
        "a name is missing; write ethernet eth<number>",
    );
    complains(
        "set interfaces ethernet eth0 description the way out",
        "put a text with spaces in double quotes",
    );
    complains(
        "interfaces { ethernet eth0 { description the way out\n } }",
        "put a text with spaces in double quotes",
    );
    complains(
        "set interfaces ethernet wlan0 role wan",
        "cards are named eth0",
    );
    complains(
        "set firewall x",
        "known here: system, interfaces, protocols, service",
    );
    complains(
        "configure\nset system host-name a\ncommit\n",
        "leave console commands out",
    );
    complains(
        "set protocols static route 10.0.0.0/8",
        "the route has no next hop",
    );
}

#[test]
fn rules_between_paths() {
    complains(
        "set interfaces ethernet eth0 address dhcp",
        "an address and no role",
    );
    complains(
        "set interfaces ethernet eth0 address dhcp\nset interfaces ethernet eth0 role lan",
        "a lan card takes no address from DHCP",
    );
    complains(
        "set interfaces ethernet eth0 address dhcp\nset interfaces ethernet eth0 address 192.0.2.1/24\n\
         set interfaces ethernet eth0 role wan",
        "exclude each other",
    );
    complains(
        "set interfaces ethernet eth0 role wan\nset interfaces ethernet eth0 role lan",
        "could go around the box",
    );
    let two = |a: &str, b: &str| {
        format!(
            "set interfaces ethernet eth0 address {a}\nset interfaces ethernet eth0 role wan\n\
             set interfaces ethernet eth1 address {b}\nset interfaces ethernet eth1 role lan\n"
        )
    };
    complains(
        &two("10.0.0.1/8", "10.1.0.1/16"),
        "line 3, column 38: interfaces ethernet eth1 address 10.1.0.1/16: overlaps 10.0.0.1/8 of eth0",
    );
    complains(
        &two("10.0.0.1/24", "10.0.0.1/24"),
        "eth0 has the same address",
    );
    assert!(load(two("fe80::1/64", "fe80::1/64").as_bytes()).is_ok());
    let routed = |hop: &str| {
        format!(
            "{}set protocols static route 10.9.0.0/16 next-hop {hop}",
            two("192.0.2.1/24", "10.0.0.1/24")
        )
    };
    assert!(load(routed("10.0.0.9").as_bytes()).is_ok());
    complains(&routed("10.0.0.1"), "this machine's own address on eth1");
    complains(&routed("10.7.0.1"), "in no network of any card");
    complains(&routed("2001:db8::1"), "other address family");
    complains("set service ssh port 22", "no card has that role");
    complains(
        "set interfaces ethernet eth2 address 10.9.0.1/24\nset interfaces ethernet eth2 role management\n\
         set service ssh listen-address 10.9.0.2",
        "not an address of a management card; write one of: 10.9.0.1",
    );
}

#[test]
fn unusual_is_only_warned_of() {
    let warnings = |text: &str| -> String {
        let loaded = load(text.as_bytes()).unwrap();
        let lines: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    assert!(warnings("set system ntp server time.example.com").contains("cannot be resolved"));
    assert!(warnings("set interfaces ethernet eth0 role wan").contains("no address"));
    assert!(
        warnings("set interfaces ethernet eth0 role management\nset interfaces ethernet eth0 address 192.0.2.1/24")
            .contains("no card has role wan")
    );
}

#[test]
fn an_invalid_configuration_keeps_its_sound_management_cards() {
    let text = "interfaces {\n\
        ethernet eth0 { address dhcp role wna }\n\
        ethernet eth1 { address 10.0.0.0/24 role management }\n\
        ethernet eth2 { address 10.9.0.1/24 role management }\n\
        ethernet eth3 { address 10.9.0.2/24 role management }\n\
        ethernet eth4 { address 10.8.0.2/24 role management role lan }\n\
        ethernet eth5 { address dhcp role management colour red }\n}\n";
    let invalid = load(text.as_bytes()).unwrap_err();
    let names: Vec<_> = invalid
        .management()
        .iter()
        .map(|card| card.name.as_str())
        .collect();
    // eth1 is wrong itself, eth3 clashes with eth2, eth4 is shared with agents, eth5 has an unknown word.
    assert_eq!(names, ["eth2"]);
    assert!(
        load(b"// clawgress-config 9\n")
            .unwrap_err()
            .management()
            .is_empty()
    );
    let broken = "interfaces {\n ethernet eth2 {\n address 10.9.0.1/24\n role management\n description \"x\n }\n}\n";
    assert!(load(broken.as_bytes()).unwrap_err().management().is_empty());
}
