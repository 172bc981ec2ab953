//! What changes while haproxy runs, and that one agent's flows leave room for another's.

use std::time::{Duration, Instant};

use clawgress_policy::Reason;
use qemu_tests::error::IoContext;
use qemu_tests::frame::Mac;
use qemu_tests::lab::{Host, helper_path};
use qemu_tests::names::address_of;
use qemu_tests::process::Helper;
use qemu_tests::{Error, Result, case, require};

use crate::gateway::{HAPROXY, eventually};
use crate::sni::{ATTACKER, Front, Guest, NOON, greeting, hex};
use crate::sni_hello::Hello;

const POLICY: &str = r#"{
    "version": 2,
    "allow": {"domains": ["api.example.com", "day.example.com"]},
    "proxy": {"mode": "sni-allowlist"},
    "domain_time_windows": {"day.example.com": {"days": ["tue"], "start": "09:00", "end": "17:00"}},
    "hosts": {
        "agent-1": {
            "sources": ["10.66.0.8/32"],
            "allow": {"domains": ["own.example.com"], "ips": ["100.64.0.0/16"], "ports": [443]},
            "proxy": {"mode": "sni-allowlist"},
            "exfil": {"domains": {"own.example.com": {"bytes": 1000, "period": "day"}}}
        }
    }
}"#;

fn to() -> String {
    format!("{ATTACKER}:443")
}

fn opens(front: &Front, name: &str) -> Result {
    let outcome = front.say(&to(), &Hello::to(name).record())?;
    front.was_open(name)?;
    require!(
        outcome.said.starts_with(&greeting(name, false)),
        "{name}: {outcome:?}"
    );
    Ok(())
}

fn is_cut(front: &Front, name: &str, reason: Reason) -> Result {
    let outcome = front.say(&to(), &Hello::to(name).record())?;
    require!(outcome.said.is_empty(), "{name}: {outcome:?}");
    front.was_denied(reason).map(drop)
}

#[test]
fn a_running_haproxy_follows_the_policy_without_a_reload() {
    case("net-sni-live", |case| {
        let mut front = Front::new(case, POLICY)?;
        case.step("as it begins", || {
            opens(&front, "api.example.com")?;
            opens(&front, "day.example.com")?;
            is_cut(&front, "new.example.com", Reason::SniMismatch)
        })?;
        let more = POLICY.replace(
            "\"day.example.com\"]",
            "\"day.example.com\", \"new.example.com\"]",
        );
        case.step("a name more", || {
            front.change(&more, NOON, &[])?;
            opens(&front, "new.example.com")
        })?;
        case.step("a name less", || {
            front.change(POLICY, NOON, &[])?;
            is_cut(&front, "new.example.com", Reason::SniMismatch)
        })?;
        case.step("a window that closes, and opens again", || {
            front.change(POLICY, NOON + 6 * 3600, &[])?;
            is_cut(&front, "day.example.com", Reason::OutsideWindow)?;
            opens(&front, "api.example.com")?;
            front.change(POLICY, NOON, &[])?;
            opens(&front, "day.example.com")
        })?;
        // The agent becomes a host of its own.
        let host = POLICY.replace("10.66.0.8/32", "10.66.0.7/32");
        case.step("a source that becomes a host's", || {
            front.change(&host, NOON, &[])?;
            is_cut(&front, "api.example.com", Reason::SniMismatch)?;
            opens(&front, "own.example.com")
        })?;
        case.step("a host whose ports leave out 80", || {
            let steps = [
                format!(
                    "send={}",
                    hex(b"GET / HTTP/1.1\r\nHost: own.example.com\r\n\r\n")
                ),
                "wait=200".to_owned(),
                "shut".to_owned(),
            ];
            let outcome = front.converse(&format!("{ATTACKER}:80"), &steps)?;
            require!(outcome.said.starts_with("HTTP/1.1 403"), "{outcome:?}");
            front.was_denied(Reason::Port).map(drop)
        })?;
        case.step("a cap that is used up, and free again", || {
            front.change(&host, NOON, &[("agent-1", "own.example.com")])?;
            is_cut(&front, "own.example.com", Reason::OverCap)?;
            front.change(&host, NOON, &[])?;
            opens(&front, "own.example.com")
        })?;
        case.step("a source that is nobody's", || {
            let outcome = {
                front
                    .gateway
                    .agent
                    .host
                    .ip("address add 172.31.9.9/32 dev inside")?;
                front
                    .gateway
                    .agent
                    .host
                    .ip("-4 route replace default via 10.66.0.1 src 172.31.9.9")?;
                front
                    .gateway
                    .host
                    .ip("-4 route add 172.31.9.9/32 dev inside")?;
                front.say(&to(), &Hello::to("own.example.com").record())?
            };
            require!(outcome.said.is_empty(), "{outcome:?}");
            let event = front.was_denied(Reason::UnknownSource)?;
            require!(
                event.who.is_none() && event.source.ip().to_string() == "172.31.9.9",
                "{event:?}"
            );
            Ok(())
        })?;
        Ok(())
    });
}

#[test]
fn a_hundred_thousand_names_cost_a_change_little() {
    case("net-sni-many", |case| {
        let names = |count: usize| {
            let names: Vec<String> = (0..count)
                .map(|n| format!("\"n{n}.example.net\""))
                .collect();
            POLICY.replace(
                "\"day.example.com\"]",
                &format!("\"day.example.com\", {}]", names.join(",")),
            )
        };
        let many = names(100_000);
        let began = Instant::now();
        let mut front = Front::new(case, &many)?;
        case.note(&format!("100,000 names: up after {:?}", began.elapsed()));
        case.step("the last of them", || opens(&front, "n99999.example.net"))?;
        case.step("none beyond", || {
            is_cut(&front, "n100000.example.net", Reason::SniMismatch)
        })?;
        let more = names(100_001);
        let (added, took) = front.apply(&more, NOON, &[])?;
        case.note(&format!("one name more: {added} commands in {took:?}"));
        case.step("the one more", || {
            require!(took < Duration::from_millis(300), "it took {took:?}");
            opens(&front, "n100000.example.net")
        })?;
        let (removed, took) = front.apply(&many, NOON, &[])?;
        case.note(&format!("one name less: {removed} commands in {took:?}"));
        case.step("the one less", || {
            require!(took < Duration::from_millis(300), "it took {took:?}");
            is_cut(&front, "n100000.example.net", Reason::SniMismatch)
        })?;
        Ok(())
    });
}

#[test]
fn one_source_can_t_take_all_flows() {
    case("net-sni-crowd", |case| {
        let front = Front::new(case, POLICY)?;
        front
            .gateway
            .agent
            .host
            .ip("address add 10.66.0.9/24 dev inside")?;
        let helper = [helper_path()?, "crowd".to_owned(), to(), "450".to_owned()];
        let mut crowd = front.gateway.agent.host.entry();
        crowd.extend(helper);
        let _crowd = case.step("450 flows that say nothing", || {
            Helper::start("the crowd", &crowd)
        })?;
        case.check("one more of the same source", || {
            is_cut(&front, "api.example.com", Reason::Unavailable)
        });
        let helper = [helper_path()?, "crowd".to_owned(), to(), "150".to_owned()];
        let mut more = front.gateway.agent.host.entry();
        more.extend(helper);
        let _more = case.step("600 of them", || Helper::start("more of the crowd", &more))?;
        case.check("no more of this source are even heard", || {
            front.forget_events();
            // It may be cut before it is a connection to the client.
            if let Ok(outcome) = front.say(&to(), &Hello::to("api.example.com").record()) {
                require!(
                    outcome.said.is_empty() && outcome.end != "open",
                    "{outcome:?}"
                );
            }
            let shown = front.runtime("show table flows-of-source\n")?;
            let most = shown
                .split("conn_cur=")
                .skip(1)
                .filter_map(|rest| rest.split_whitespace().next()?.parse::<u32>().ok())
                .max();
            require!(
                most.is_some_and(|most| (400..=513).contains(&most)),
                "{shown}"
            );
            Ok(())
        });
        case.check("one of another", || {
            front
                .gateway
                .agent
                .host
                .ip("-4 route replace default via 10.66.0.1 src 10.66.0.9")?;
            opens(&front, "api.example.com")
        });
        case.check("the silent ones are gone after their five seconds", || {
            front
                .gateway
                .agent
                .host
                .ip("-4 route replace default via 10.66.0.1 src 10.66.0.7")?;
            std::thread::sleep(Duration::from_secs(6));
            front.forget_events();
            opens(&front, "api.example.com")
        });
        Ok(())
    });
}

const NEXT: &str = r#"{
    "version": 2,
    "allow": {"domains": ["api.example.com"]},
    "proxy": {
        "mode": "sni-allowlist",
        "backend": "gw.example.net:3128",
        "mtls": {"ca": "/config/gw.crt", "certificate": "/config/gw.crt", "key": "/config/gw.key"}
    }
}"#;

#[test]
fn the_next_gateway_learns_who_and_what() {
    case("net-sni-next", |case| {
        let gateway_of = |front: &Front, asks: &str| -> Result<(Host, Guest)> {
            let gateway = &front.gateway;
            let host = gateway.lab.host("next")?;
            let address = address_of("gw.example.net").0;
            let mac = Mac([2, 0xee, 0, 0, 0, 9]);
            gateway.lab.plug(
                &host,
                &gateway.outside,
                mac,
                &["203.0.113.80/24", &format!("{address}/32")],
            )?;
            host.ip("-4 route add default via 203.0.113.1")?;
            gateway
                .host
                .ip(&format!("-4 route add {address} via 203.0.113.80"))?;
            let config = gateway.file(
                "next.cfg",
                &format!(
                    "global\n\tlog stdout format raw daemon\ndefaults\n\tmode tcp\n\tlog global\n\ttimeout connect 4s\n\t\
                     timeout client 9s\n\ttimeout server 9s\nfrontend next\n\tbind {address}:3128 accept-proxy ssl crt {0} \
                     {asks}\n\tlog-format \"next for %[src] name %[fc_pp_unique_id]\"\n\tdefault_backend site\n\
                     backend site\n\tserver site {1}:443\n",
                    gateway.path("gw.pem").display(),
                    address_of("api.example.com").0,
                ),
            )?;
            let command = format!("{} -db -f {}", HAPROXY.0, config.display());
            let guest = Guest::start(&host, &command, &gateway.path("next.log"))?;
            Ok((host, guest))
        };
        let front = Front::with(case, NEXT, |gateway| {
            let made = rcgen::generate_simple_self_signed(["gw.example.net".to_owned()])
                .map_err(|error| Error::other(format!("making a certificate: {error}")))?;
            gateway.file("gw.crt", &made.cert.pem())?;
            gateway.file("gw.key", &made.signing_key.serialize_pem())?;
            gateway.file(
                "gw.pem",
                &format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()),
            )?;
            Ok(())
        })?;
        let ca = front.gateway.path("gw.crt").display().to_string();
        let _next = gateway_of(&front, &format!("ca-file {ca} verify required"))?;
        case.check("over TLS that both sides proved themselves in", || {
            eventually("the next gateway", || {
                front.forget_events();
                let outcome = front.say(&to(), &Hello::to("api.example.com").record())?;
                require!(
                    outcome
                        .said
                        .starts_with(&greeting("api.example.com", false)),
                    "{outcome:?}"
                );
                Ok(())
            })?;
            front.was_open("api.example.com")?;
            let log = front.gateway.path("next.log");
            eventually("its log", || {
                let log = std::fs::read_to_string(&log).doing("reading", &log)?;
                require!(
                    log.contains("next for 10.66.0.7 name api.example.com"),
                    "{log}"
                );
                Ok(())
            })
        });
        case.check("a name that is not allowed stays here", || {
            is_cut(&front, "evil.example", Reason::SniMismatch)
        });
        Ok(())
    });
}
