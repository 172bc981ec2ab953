//! The netlink encoders against the real kernel and against what nft lists.

mod support;

use std::collections::{BTreeSet, HashSet};
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use clawgress_enforcer::kernel::diag::{self, Ended};
use clawgress_enforcer::kernel::sets::{Change, Exchange, Key, Verb};
use clawgress_enforcer::kernel::{Socket, conntrack, names, nflog, objects, sets};
use clawgress_link::netfilter::sets::changes;
use support::{inside, nft, run};

fn change(verb: Verb, set: &str, address: &str) -> Change {
    Change {
        table: "clawgress",
        set: set.to_owned(),
        verb,
        key: Key::Address(address.parse().unwrap()),
    }
}

#[test]
fn elements_are_added_listed_and_deleted() {
    if !inside("elements_are_added_listed_and_deleted") {
        return;
    }
    nft("table inet clawgress { set a { type ipv4_addr; }
set b { type ipv6_addr; }
}");
    let mut socket = Socket::open().unwrap();
    let adds = [
        change(Verb::Add, "a", "192.0.2.1"),
        change(Verb::Add, "a", "192.0.2.2"),
        change(Verb::Add, "b", "2001:db8::1"),
    ];
    sets::change(&mut socket, &adds).unwrap();
    // What is there already may be added again.
    sets::change(&mut socket, &adds).unwrap();
    let listed = run("/usr/sbin/nft", &["list", "table", "inet", "clawgress"]);
    for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1"] {
        assert!(listed.contains(address), "{listed}");
    }
    sets::change(&mut socket, &[change(Verb::Delete, "a", "192.0.2.1")]).unwrap();
    let left: Vec<IpAddr> = sets::addresses(&mut socket, "clawgress", "a").unwrap();
    assert_eq!(left, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
}

#[test]
fn every_change_to_a_table_is_counted_and_nothing_else() {
    if !inside("every_change_to_a_table_is_counted_and_nothing_else") {
        return;
    }
    nft("table inet clawgress { set a { type ipv4_addr; }
chain c { }
}");
    let mut socket = Socket::open().unwrap();
    let mut last = changes(&mut socket).unwrap();
    let mut expect = |change: bool, what: &str| {
        let now = changes(&mut Socket::open().unwrap()).unwrap();
        assert_eq!(now != last, change, "{what}: {last} and {now}");
        last = now;
    };
    expect(false, "nothing was changed");
    run("/usr/sbin/nft", &["list", "table", "inet", "clawgress"]);
    expect(false, "listing changes nothing");
    sets::change(&mut socket, &[change(Verb::Add, "a", "192.0.2.1")]).unwrap();
    expect(true, "an element more");
    run(
        "/usr/sbin/nft",
        &["add", "rule", "inet", "clawgress", "c", "accept"],
    );
    expect(true, "a rule more");
    run("/usr/sbin/nft", &["flush", "ruleset"]);
    expect(true, "nothing left");
}

#[test]
fn a_change_is_whole_or_not_at_all() {
    if !inside("a_change_is_whole_or_not_at_all") {
        return;
    }
    nft("table inet clawgress { set a { type ipv4_addr; size 2; }
}");
    let mut socket = Socket::open().unwrap();
    let missing = [
        change(Verb::Add, "a", "192.0.2.1"),
        change(Verb::Add, "none", "192.0.2.1"),
    ];
    assert!(
        sets::change(&mut socket, &missing)
            .unwrap_err()
            .is_missing()
    );
    let too_many: Vec<Change> = (1..5)
        .map(|last| change(Verb::Add, "a", &format!("192.0.2.{last}")))
        .collect();
    assert!(sets::change(&mut socket, &too_many).is_err());
    assert!(sets::change(&mut socket, &[change(Verb::Delete, "a", "192.0.2.9")]).is_err());
    assert_eq!(
        sets::addresses(&mut socket, "clawgress", "a")
            .unwrap()
            .len(),
        0
    );
    // The socket is not out of step after all these errors.
    sets::change(&mut socket, &[change(Verb::Add, "a", "192.0.2.1")]).unwrap();
    assert_eq!(
        sets::addresses(&mut socket, "clawgress", "a")
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn thousands_of_elements_go_in_and_a_single_one_is_quick() {
    if !inside("thousands_of_elements_go_in_and_a_single_one_is_quick") {
        return;
    }
    nft("table inet clawgress { set a { type ipv4_addr; }
set b { type ipv6_addr; }
}");
    let mut socket = Socket::open().unwrap();
    let many: Vec<Change> = (0..60_000_u32)
        .map(|number| Change {
            table: "clawgress",
            set: if number % 2 == 0 { "a" } else { "b" }.to_owned(),
            verb: Verb::Add,
            key: Key::Address(if number % 2 == 0 {
                IpAddr::from((0x0a00_0000 + number).to_be_bytes())
            } else {
                IpAddr::from((u128::from(number) + (0x2001_0db8 << 96)).to_be_bytes())
            }),
        })
        .collect();
    let mut sorted = many.clone();
    sorted.sort();
    sets::change(&mut socket, &sorted).unwrap();
    assert_eq!(
        sets::addresses(&mut socket, "clawgress", "a")
            .unwrap()
            .len(),
        30_000
    );
    assert_eq!(
        sets::addresses(&mut socket, "clawgress", "b")
            .unwrap()
            .len(),
        30_000
    );
    let mut slowest = Duration::ZERO;
    for last in 1..=100 {
        let begun = Instant::now();
        sets::change(
            &mut socket,
            &[change(Verb::Add, "a", &format!("192.0.2.{last}"))],
        )
        .unwrap();
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

#[test]
fn sets_are_exchanged_all_in_one_step_or_none() {
    if !inside("sets_are_exchanged_all_in_one_step_or_none") {
        return;
    }
    nft("table inet clawgress {
set generation { type mark; elements = { 1 }; }
map stamps { type nf_proto : mark; elements = { ipv4 : 1, ipv6 : 1 }; }
set p1_pins4 { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 }; }
set p1_pins6 { type ipv6_addr; elements = { 2001:db8::1 }; }
chain c { ct mark & 0xffffff == @generation accept; ct mark set meta nfproto map @stamps; ip daddr @p1_pins4 accept; }
}");
    let mut socket = Socket::open().unwrap();
    let exchange = |set: &str, elements: &[(Key, Option<u32>)]| Exchange {
        table: "clawgress",
        set: set.to_owned(),
        elements: elements.to_vec(),
    };
    let address = |text: &str| (Key::Address(text.parse().unwrap()), None);
    let listed = || run("/usr/sbin/nft", &["list", "table", "inet", "clawgress"]);
    sets::exchange(
        &mut socket,
        &[
            exchange("generation", &[(Key::Number(2), None)]),
            exchange(
                "stamps",
                &[(Key::Family(2), Some(2)), (Key::Family(10), Some(2))],
            ),
            // One stays, one goes, one comes.
            exchange("p1_pins4", &[address("192.0.2.2"), address("192.0.2.3")]),
            exchange("p1_pins6", &[]),
        ],
    )
    .unwrap();
    let after = listed();
    assert_eq!(
        sets::only_number(&mut socket, "clawgress", "generation").unwrap(),
        Some(2)
    );
    assert!(
        after.contains("ipv4 : 0x00000002") && after.contains("ipv6 : 0x00000002"),
        "{after}"
    );
    assert!(
        after.contains("{ 192.0.2.2, 192.0.2.3 }") && !after.contains("2001:db8::1"),
        "{after}"
    );
    let refused = sets::exchange(
        &mut socket,
        &[
            exchange("generation", &[(Key::Number(3), None)]),
            exchange("none", &[(Key::Number(3), None)]),
        ],
    );
    assert!(refused.unwrap_err().is_missing());
    assert_eq!(listed(), after);
}

#[test]
fn the_generation_is_read_from_its_set() {
    if !inside("the_generation_is_read_from_its_set") {
        return;
    }
    let mut socket = Socket::open().unwrap();
    let mut read = || sets::only_number(&mut socket, "clawgress", "generation").unwrap();
    assert_eq!(read(), None, "no table");
    nft("table inet clawgress { set generation { type mark; flags constant; elements = { 0x01020304 }
}
}");
    assert_eq!(read(), Some(0x0102_0304));
    nft(
        "delete table inet clawgress; table inet clawgress { set generation { type mark; }
}",
    );
    assert_eq!(read(), None, "no element");
}

#[test]
fn quotas_and_counters_are_read_and_reset() {
    if !inside("quotas_and_counters_are_read_and_reset") {
        return;
    }
    nft("table inet other { quota cap_1 { over 1 bytes }
}
         table inet clawgress_meter {
            quota cap_1 { over 5000000000 bytes used 700 bytes }
            counter out_1 { packets 3 bytes 4000 }
            set s { type ipv4_addr; }
            chain c { ip daddr { 192.0.2.1, 192.0.2.2 } accept; }
         }");
    let mut socket = Socket::open().unwrap();
    let quotas = objects::quotas(&mut socket, "clawgress_meter").unwrap();
    assert_eq!(quotas.len(), 1);
    assert_eq!(
        (quotas["cap_1"].limit, quotas["cap_1"].used),
        (5_000_000_000, 700)
    );
    let counters = objects::counters(&mut socket, "clawgress_meter").unwrap();
    assert_eq!(
        (counters["out_1"].packets, counters["out_1"].bytes),
        (3, 4000)
    );
    let before = objects::reset_quota(&mut socket, "clawgress_meter", "cap_1").unwrap();
    assert_eq!(before.map(|quota| quota.used), Some(700));
    let quotas = objects::quotas(&mut socket, "clawgress_meter").unwrap();
    assert_eq!(quotas["cap_1"].used, 0);
    assert!(
        objects::reset_quota(&mut socket, "clawgress_meter", "none")
            .unwrap_err()
            .is_missing()
    );
    let sets = names::sets(&mut socket, "clawgress_meter").unwrap();
    assert_eq!(
        sets,
        BTreeSet::from(["s".to_owned()]),
        "without those of rules"
    );
    let chains = names::chains(&mut socket, "clawgress_meter").unwrap();
    assert_eq!(chains, BTreeSet::from(["c".to_owned()]));
    assert!(names::sets(&mut socket, "none").unwrap().is_empty());
}

#[test]
fn logged_packets_arrive_with_their_prefix() {
    if !inside("logged_packets_arrive_with_their_prefix") {
        return;
    }
    let mut reader = nflog::Reader::bind(100).unwrap();
    nft(
        "table inet clawgress { chain o { type filter hook output priority 0;
            udp dport 9 log prefix \"7:not-allowlisted\" group 100 snaplen 128 drop
        }
        }",
    );
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"x", "127.0.0.1:9").unwrap_err();
    let begun = Instant::now();
    let packet = loop {
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "nothing was logged"
        );
        let (mut packets, lost) = reader.next(Duration::from_millis(500)).unwrap();
        assert!(!lost);
        if let Some(packet) = packets.pop() {
            break packet;
        }
    };
    assert_eq!(packet.prefix, "7:not-allowlisted");
    assert_eq!(packet.protocol, 17);
    let port = sender.local_addr().unwrap().port();
    assert_eq!(packet.ports, Some((port, 9)));
    // A second reader of the same group is refused, not served half.
    assert!(nflog::Reader::bind(100).is_err());
}

#[test]
fn flows_are_listed_from_conntrack() {
    if !inside("flows_are_listed_from_conntrack") {
        return;
    }
    nft(
        "table inet clawgress { chain i { type filter hook input priority 0; ct state new accept
        }
        }",
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = TcpStream::connect(address).unwrap();
    held.write_all(b"x").unwrap();
    let mut socket = Socket::open().unwrap();
    let mut find = || {
        let mut seen = None;
        conntrack::visit(
            &mut socket,
            |_| {},
            |flow| {
                if flow.flow.destination_port == address.port() {
                    seen = Some(flow);
                }
            },
        )
        .unwrap();
        seen
    };
    let seen = find().expect("the flow is listed");
    assert_eq!(seen.flow.source, address.ip());
    assert_eq!(seen.flow.protocol, 6);
    drop(held);
    drop(listener);
}

#[test]
fn bits_of_a_flows_mark_are_given_and_the_others_stay() {
    if !inside("bits_of_a_flows_mark_are_given_and_the_others_stay") {
        return;
    }
    nft(
        "table inet clawgress { chain i { type filter hook input priority 0; ct state new ct mark set 0x09000007
        }
        }",
    );
    let mut socket = Socket::open().unwrap();
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(listen).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (local, remote) = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
        let flow = conntrack::Flow {
            source: local.ip(),
            destination: remote.ip(),
            protocol: 6,
            source_port: local.port(),
            destination_port: remote.port(),
        };
        let marked = |socket: &mut Socket| {
            let seen = conntrack::find(socket, &flow).unwrap();
            seen.map(|seen| (seen.flow, seen.mark))
        };
        assert_eq!(marked(&mut socket), Some((flow, 0x0900_0007)));
        // What lies beside the bits is not taken over.
        conntrack::mark(&mut socket, &flow, 0x00ff_ffff, 0xff00_0123).unwrap();
        assert_eq!(marked(&mut socket), Some((flow, 0x0900_0123)));
        let other = conntrack::Flow {
            source_port: 1,
            ..flow
        };
        assert_eq!(conntrack::find(&mut socket, &other).unwrap(), None);
        let error = conntrack::mark(&mut socket, &other, 1, 1).unwrap_err();
        assert!(error.is_missing(), "{error}");
    }
}

#[test]
fn one_connection_is_ended_and_its_neighbour_lives() {
    if !inside("one_connection_is_ended_and_its_neighbour_lives") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut one = TcpStream::connect(address).unwrap();
    let mut other = TcpStream::connect(address).unwrap();
    let _held = [listener.accept().unwrap(), listener.accept().unwrap()];
    let mut socket = Socket::to_sockets().unwrap();
    let peers = HashSet::from([one.local_addr().unwrap()]);
    match diag::end(&mut socket, address.port(), &peers).unwrap() {
        // A kernel without this; the front's own interface ends flows there.
        Ended::Unsupported => return,
        ended @ Ended::Count(_) => assert_eq!(ended, Ended::Count(1)),
    }
    let error = one.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    other
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = other.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}
