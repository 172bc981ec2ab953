//! What changes while connections are open: the revision, the clock, the box's own addresses.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clawgress_config::Cidr;
use clawgress_gateway::clock::Look;
use clawgress_gateway::judge::{Own, Proved};

use crate::lab::{HOST, Lab};
use crate::origin::hello;

fn tunnel(lab: &Lab) -> TcpStream {
    let mut agent = lab.agent();
    let head = lab.connect(&mut agent, &format!("{HOST}:443"));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    agent.write_all(&hello(HOST)).unwrap();
    let mut byte = [0];
    agent.read_exact(&mut byte).unwrap();
    agent
}

fn ends_within_a_second(agent: &mut TcpStream) {
    let began = Instant::now();
    let mut byte = [0];
    assert!(!matches!(agent.read(&mut byte), Ok(1..)));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

fn own(address: &str) -> Own {
    let cidr = Cidr {
        address: address.parse().unwrap(),
        length: 24,
    };
    Own::of([("wan0".to_owned(), cidr)])
}

#[test]
fn an_address_that_becomes_the_boxs_own_is_not_dialled_any_more() {
    Lab::run(|lab| {
        let mut agent = tunnel(lab);
        lab.judge.take_own(own("203.0.113.7"));
        agent.write_all(b"?").unwrap();
        agent.read_exact(&mut [0]).unwrap();
        lab.judge.take_own(own("203.0.113.10"));
        ends_within_a_second(&mut agent);
        let head = lab.connect(&mut lab.agent(), &format!("{HOST}:443"));
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        lab.idle();
        let events = lab.events();
        assert!(
            events
                .iter()
                .all(|event| event["reason"] == "private-address")
        );
        lab.judge.take_own(Own::default());
        tunnel(lab);
    });
}

#[test]
fn a_network_of_the_near_side_is_never_dialled_whatever_dhcp_made_it() {
    Lab::run_with(
        |world| {
            world.revision.network.lan.push(clawgress_policy::Card {
                name: "wan0".to_owned(),
                addresses: Vec::new(),
            });
        },
        |lab| {
            tunnel(lab);
            lab.judge.take_own(own("203.0.113.7"));
            let head = lab.connect(&mut lab.agent(), &format!("{HOST}:443"));
            assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        },
    );
}

#[test]
fn a_clock_that_steps_is_recorded_and_one_that_is_behind_is_not_believed() {
    Lab::run(|lab| {
        let generation = *lab.judge.changes().borrow();
        assert!(lab.judge.believes_clock());
        lab.judge.take_clock(Look {
            jump: Some(-3600),
            is_behind: true,
        });
        assert!(!lab.judge.believes_clock());
        assert!(*lab.judge.changes().borrow() > generation);
        lab.judge.take_clock(Look::default());
        assert!(lab.judge.believes_clock());
        let events = lab.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["decision"], "notice");
        assert_eq!(events[0]["reason"], "clock-jump: -3600 s");
    });
}

#[test]
fn a_window_denies_open_tunnels_while_the_clock_is_behind() {
    Lab::run_with(
        |world| {
            let policy = serde_json::json!({
                "version": 1,
                "time_window": {"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "start": "00:00", "end": "24:00"},
                "allow": {"domains": [HOST]},
            });
            world.revision.policy =
                clawgress_config::policy::Policy::from_json(policy.to_string().as_bytes()).unwrap();
        },
        |lab| {
            let mut agent = tunnel(lab);
            lab.judge.take_clock(Look {
                jump: Some(-7200),
                is_behind: true,
            });
            ends_within_a_second(&mut agent);
            lab.idle();
            let events = lab.events();
            assert!(
                events
                    .iter()
                    .any(|event| event["reason"] == "clock-untrusted")
            );
        },
    );
}

#[test]
fn an_idle_connection_ends_when_the_gateway_drains() {
    Lab::run(|lab| {
        let mut agent = lab.agent();
        let answer = lab.get(&mut agent, &format!("http://{HOST}/"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        lab.stop_accepting();
        ends_within_a_second(&mut agent);
    });
}

#[test]
fn flows_of_one_identity_prove_it_once_when_they_are_judged_again() {
    Lab::run(|lab| {
        let _open: Vec<TcpStream> = (0..20).map(|_| tunnel(lab)).collect();
        let flows = lab.flows();
        assert_eq!(flows.len(), 20);
        let mut proved = Proved::default();
        for flow in &flows {
            lab.judge.judge_beside(&flow.subject, &mut proved).unwrap();
        }
        assert_eq!(proved.identities(), 1);
    });
}
