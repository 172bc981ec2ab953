//! Pins from the resolver's word to the kernel's sets and out again, with real sets and real flows.

mod support;

use std::collections::HashSet;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use clawgress_config::Cidr;
use clawgress_config::policy::Policy;
use clawgress_enforcer::kernel::{Socket, sets};
use clawgress_enforcer::pins::pinner::in_use;
use clawgress_enforcer::pins::{Judge, Limits, PinError, Pinner};
use clawgress_enforcer::plan::{self, Carry, name};
use clawgress_link::pins::Pin;
use clawgress_policy::{Card, Index, Logging, Moment, Network, Revision};
use support::{inside, nft, run};

const POLICY: &str = r#"{
    "version": 2,
    "allow": {"domains": ["example.com", "*.example.org"]},
    "hosts": {
        "agent-1": {
            "sources": ["192.168.10.10/32"],
            "allow": {"domains": ["one.test", "two.test", "*.capped.test"]},
            "exfil": {"domains": {"*.capped.test": {"bytes": 1000, "period": "hour"}}}
        }
    }
}"#;

const LIMITS: Limits = Limits {
    per_principal: 4,
    total: 6,
};

fn revision() -> Revision {
    let lan = Cidr {
        address: "192.168.10.1".parse().unwrap(),
        length: 24,
    };
    Revision {
        number: 5,
        created: 0,
        enabled: true,
        policy: Policy::from_json(POLICY.as_bytes()).unwrap(),
        network: Network {
            lan: vec![Card {
                name: "lan0".to_owned(),
                addresses: vec![lan],
            }],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: true,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: false,
        },
        name_servers: Vec::new(),
        access: clawgress_config::access::Access::default(),
    }
}

/// A plan in the kernel, and a pinner that goes by it.
fn pinner(journal: &Path) -> (Pinner, Arc<Index>) {
    let revision = revision();
    let index = Arc::new(Index::of(&revision).unwrap());
    let moment = Moment::trusted(1_767_700_800);
    let mut pinner = Pinner::open(journal, LIMITS, 1000).unwrap();
    let carry = Carry {
        pins: pinner.carried(),
        ..Carry::default()
    };
    let plan = plan::compile(&revision, &index, moment, 1, &carry);
    let file = journal.with_extension("nft");
    std::fs::write(&file, plan.transaction()).unwrap();
    run("/usr/sbin/nft", &["-j", "-f", file.to_str().unwrap()]);
    pinner.judge_by(Some(Judge {
        index: Arc::clone(&index),
        moment,
    }));
    (pinner, index)
}

fn pin(principal: &str, name: &str, addresses: &[&str], seconds: u32) -> Pin {
    Pin {
        id: 1,
        revision: 5,
        principal: principal.to_owned(),
        name: name.to_owned(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        seconds,
    }
}

fn held(table: &str, set: &str) -> HashSet<IpAddr> {
    let mut socket = Socket::open().unwrap();
    sets::addresses(&mut socket, table, set)
        .unwrap()
        .into_iter()
        .collect()
}

fn addresses(all: &[&str]) -> HashSet<IpAddr> {
    all.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn pins_go_in_by_name_and_out_when_the_last_name_expires() {
    if !inside("pins_go_in_by_name_and_out_when_the_last_name_expires") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let journal = scratch.path().join("pins.journal");
    let (mut pinner, index) = pinner(&journal);
    let id = index.by_name("agent-1").unwrap().id;
    let (own, cap) = (
        name::pins(id, false),
        name::cap_set("agent-1", "*.capped.test", false),
    );
    let all = pinner.pin(
        &[
            pin("agent-1", "one.test", &["192.0.2.1", "2001:db8::1"], 10),
            pin("agent-1", "a.capped.test", &["192.0.2.1"], 100),
            pin("agent-1", "example.com", &["192.0.2.2"], 100),
        ],
        1000,
    );
    assert!(all[0].is_ok() && all[1].is_ok(), "{all:?}");
    assert!(matches!(all[2], Err(PinError::NotAllowed { .. })));
    assert_eq!(held("clawgress", &own), addresses(&["192.0.2.1"]));
    assert_eq!(
        held("clawgress", &name::pins(id, true)),
        addresses(&["2001:db8::1"])
    );
    assert_eq!(held("clawgress_meter", &cap), addresses(&["192.0.2.1"]));

    // The first name expires: the address stays for the second.
    let none = HashSet::new();
    let sweep = |pinner: &mut Pinner, now, used: &HashSet<_>| {
        let looked_at = pinner.expired(now);
        pinner.sweep(now, &looked_at, used).unwrap();
    };
    sweep(&mut pinner, 1020, &none);
    assert_eq!(held("clawgress", &own), addresses(&["192.0.2.1"]));
    assert!(held("clawgress", &name::pins(id, true)).is_empty());
    // What expired after flows were sought is left alone.
    pinner.sweep(1200, &[], &none).unwrap();
    assert_eq!(held("clawgress", &own), addresses(&["192.0.2.1"]));
    // The second opens nothing any more and still counts, until nobody was found to use it.
    sweep(&mut pinner, 1200, &none);
    assert!(held("clawgress", &own).is_empty());
    assert_eq!(held("clawgress_meter", &cap), addresses(&["192.0.2.1"]));
    let flow = (Arc::from("agent-1"), "192.0.2.1".parse().unwrap());
    sweep(&mut pinner, 1215, &HashSet::from([flow]));
    assert_eq!(held("clawgress", &own), addresses(&["192.0.2.1"]));
    sweep(&mut pinner, 1300, &none);
    sweep(&mut pinner, 1315, &none);
    assert!(held("clawgress", &own).is_empty());
    assert!(held("clawgress_meter", &cap).is_empty());
    // A restart brings none of it back.
    let again = Pinner::open(&journal, LIMITS, 1315).unwrap();
    assert!(again.table().is_empty(), "{:?}", again.carried());
}

#[test]
fn a_full_table_refuses_and_one_refusal_costs_no_other() {
    if !inside("a_full_table_refuses_and_one_refusal_costs_no_other") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (mut pinner, index) = pinner(&scratch.path().join("pins.journal"));
    let id = index.by_name("agent-1").unwrap().id;
    let five = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "192.0.2.4",
        "192.0.2.5",
    ];
    let all = pinner.pin(
        &[
            pin("agent-1", "one.test", &five, 10),
            pin("agent-1", "two.test", &five[..2], 10),
            pin("nobody", "one.test", &five[..1], 10),
        ],
        1000,
    );
    assert!(matches!(all[0], Err(PinError::Full(_))));
    assert!(all[1].is_ok());
    assert!(matches!(all[2], Err(PinError::NotAllowed { .. })));
    assert_eq!(held("clawgress", &name::pins(id, false)).len(), 2);

    // The kernel's table goes away: whatever can't be put there is refused, and not remembered.
    nft("delete table inet clawgress");
    let lost = pinner.pin(&[pin("agent-1", "one.test", &["192.0.2.9"], 10)], 1000);
    assert!(matches!(lost[0], Err(PinError::Kernel(_))), "{lost:?}");
    assert!(
        pinner
            .table()
            .names("agent-1", "192.0.2.9".parse().unwrap())
            .is_empty()
    );
}

#[test]
fn a_new_process_finds_its_pins_and_puts_them_into_the_next_plan() {
    if !inside("a_new_process_finds_its_pins_and_puts_them_into_the_next_plan") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let journal = scratch.path().join("pins.journal");
    let (mut first, index) = pinner(&journal);
    let id = index.by_name("agent-1").unwrap().id;
    assert!(first.pin(&[pin("agent-1", "one.test", &["192.0.2.1"], 60)], 1000)[0].is_ok());
    drop(first);
    nft("flush ruleset");
    let (second, _) = pinner(&journal);
    assert_eq!(second.table().len(), 1);
    assert_eq!(
        held("clawgress", &name::pins(id, false)),
        addresses(&["192.0.2.1"])
    );
}

#[test]
fn a_pin_that_a_flow_uses_outlives_its_answer() {
    if !inside("a_pin_that_a_flow_uses_outlives_its_answer") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let (mut pinner, index) = pinner(&scratch.path().join("pins.journal"));
    for address in ["192.0.2.1/32", "192.168.10.10/32"] {
        run("ip", &["address", "add", address, "dev", "lo"]);
    }
    // Tracking is all that is wanted of the kernel here.
    nft("flush ruleset
table inet x { chain i { type filter hook input priority 0; ct state new accept
}
}");
    let listener = TcpListener::bind("192.0.2.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let held_open = on_source(to);
    let accepted = listener.accept().unwrap();

    pinner.judge_by(None);
    let expired = {
        let mut table = clawgress_enforcer::pins::table::Table::new(LIMITS);
        let both = [to.ip(), "192.0.2.2".parse().unwrap()];
        table.pin("agent-1", "one.test", &both, 10).unwrap();
        table.expired(20)
    };
    let mut socket = Socket::open().unwrap();
    let used = in_use(&mut socket, &expired, &index).unwrap();
    assert_eq!(used.len(), 1);
    assert!(used.contains(&(Arc::from("agent-1"), to.ip())));
    // Both have said goodbye: as long as the kernel knows the flow, its packets pass.
    drop((held_open, accepted));
    assert_eq!(in_use(&mut socket, &expired, &index).unwrap(), used);
}

/// Connects from the address of `agent-1`.
fn on_source(to: std::net::SocketAddr) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let std::net::SocketAddr::V4(to) = to else {
        panic!()
    };
    let socket = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    let source: std::net::SocketAddrV4 = "192.168.10.10:0".parse().unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::from(source)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    TcpStream::from(socket)
}
