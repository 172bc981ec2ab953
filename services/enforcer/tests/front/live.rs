//! Flows that live, and what a change forbids of them.

use clawgress_enforcer::front::live::{End, Full, Live, MOST_FLOWS};
use clawgress_enforcer::front::log::{Event, Path, What};
use clawgress_policy::{Index, Moment, Reason};

use crate::scene::{NOON, POLICY, over, revision};

fn event(event: &str, source: &str, port: u16, name: &str) -> Event {
    let line = format!(
        "v1 event={event} path=sni who=x src={source} sport={port} asked=- aport=- name={name} reason=- site=- in=0 out=0 ms=0 end=-- status=0 id=-"
    );
    Event::read(line.as_bytes()).unwrap()
}

fn end(source: &str, port: u16) -> End {
    End {
        source: (source.parse::<std::net::IpAddr>().unwrap(), port).into(),
        path: Path::Sni,
    }
}

#[test]
fn a_change_finds_the_flows_whose_name_it_forbids() {
    let mut live = Live::default();
    for (source, port, name) in [
        ("192.168.10.10", 1, "only.example.com"),
        ("192.168.10.77", 2, "example.com"),
        ("192.168.10.77", 3, "a.example.org"),
        ("10.1.1.1", 4, "example.com"),
    ] {
        live.note(&event("open", source, port, name)).unwrap();
    }
    let moment = Moment::trusted(NOON);
    let index = Index::of(&revision(POLICY)).unwrap();
    assert_eq!(
        live.forbidden(&index, moment, &over(&[])),
        [(end("10.1.1.1", 4), Reason::UnknownSource)]
    );
    live.note(&event("close", "10.1.1.1", 4, "example.com"))
        .unwrap();
    let caps = over(&[("agent-1", "only.example.com")]);
    assert_eq!(
        live.forbidden(&index, moment, &caps),
        [(end("192.168.10.10", 1), Reason::OverCap)]
    );
    let evening = Moment::trusted(NOON + 5 * 3600);
    assert_eq!(
        live.forbidden(&index, evening, &over(&[])),
        [(end("192.168.10.10", 1), Reason::OutsideWindow)]
    );
    let shorter =
        revision(&POLICY.replace("[\"example.com\", \"*.example.org\"", "[\"*.example.org\""));
    let index = Index::of(&shorter).unwrap();
    assert_eq!(
        live.forbidden(&index, moment, &over(&[])),
        [(end("192.168.10.77", 2), Reason::NotAllowlisted)]
    );
}

#[test]
fn a_port_used_again_keeps_its_new_flow() {
    let mut live = Live::default();
    live.note(&event("open", "192.168.10.77", 2, "example.com"))
        .unwrap();
    live.note(&event("open", "192.168.10.77", 2, "a.example.org"))
        .unwrap();
    live.note(&event("close", "192.168.10.77", 2, "example.com"))
        .unwrap();
    assert_eq!(live.len(), 1);
    live.note(&event("close", "192.168.10.77", 2, "example.com"))
        .unwrap();
    assert_eq!(live.ends().collect::<Vec<_>>(), [end("192.168.10.77", 2)]);
    live.note(&event("close", "192.168.10.77", 2, "a.example.org"))
        .unwrap();
    assert!(live.is_empty());
}

#[test]
fn a_full_table_says_so() {
    let mut live = Live::default();
    for number in 0..MOST_FLOWS {
        let source = format!("10.0.{}.1", number / 60_000);
        live.note(&event(
            "open",
            &source,
            (number % 60_000) as u16,
            "example.com",
        ))
        .unwrap();
    }
    assert_eq!(
        live.note(&event("open", "10.9.9.9", 1, "example.com")),
        Err(Full)
    );
    assert!(matches!(
        event("deny", "10.9.9.9", 1, "example.com").what,
        What::Deny(Reason::NotTls)
    ));
    assert_eq!(live.len(), MOST_FLOWS);
}
