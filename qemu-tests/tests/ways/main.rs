//! The ways around, each tried against everything that enforces: real nft, named and haproxy and our own daemons, with
//! an agent behind them and a fake internet before them. What passes outside is on record.

mod front;
mod limits;
mod tools;

use std::time::{Duration, Instant};

use qemu_tests::agent::{Agent, box_between};
use qemu_tests::capture::Capture;
use qemu_tests::configuration::enforcing;
use qemu_tests::frame::{Frame, Mac};
use qemu_tests::lab::{Host, Internet, Lab, Wire};
use qemu_tests::names::address_of;
use qemu_tests::stack::Stack;
use qemu_tests::{Case, Result, case, fail, require};

use qemu_tests::tools::{CURL, DIG, HAPROXY, NAMED, NFT, need};

const ALLOWED: &str = "api.allowed.example";
const OWN: &str = "own.example";

const POLICY: &str = "domain api.allowed.example {
    label llm-provider
}
domain *.wild.example
ip 192.0.2.7/32
port 80
port 443
host agent-2 {
    source 10.66.0.8/32
    domain own.example
    port 443
}";

/// Everything around the box, and the box.
pub(crate) struct Scene {
    pub(crate) stack: Stack,
    pub(crate) agent: Agent,
    /// Another agent, with a policy of its own.
    pub(crate) second: Host,
    pub(crate) internet: Internet,
    outside: Capture,
    outside_wire: Wire,
    lab: Lab,
}

impl Scene {
    pub(crate) fn new(case: &Case) -> Result<Self> {
        need(&[NFT, NAMED, HAPROXY, DIG, CURL])?;
        let lab = Lab::new()?;
        let (outside, inside) = (lab.wire("eth0")?, lab.wire("eth1")?);
        let internet = Internet::on(&lab, &outside)?;
        let agent = Agent::on(&lab, &inside)?;
        let second = lab.host("second")?;
        lab.plug(
            &second,
            &inside,
            Mac([2, 0xa9, 0, 0, 0, 8]),
            &["10.66.0.8/24", "fd66::8/64"],
        )?;
        second.ip("-4 route add default via 10.66.0.1")?;
        second.ip("-6 route add default via fd66::1")?;
        let host = box_between(&lab, &outside, &inside)?;
        let captured = lab.capture_at(case, &host, &outside)?;
        let logs = case.log_directory("daemons")?;
        let stack = case.step("everything starts", || {
            Stack::start(&lab, host, &enforcing(POLICY), &logs)
        })?;
        case.step("the configuration's policy comes into force", || {
            stack.wait_for_revision(1)
        })?;
        Ok(Self {
            stack,
            agent,
            second,
            internet,
            outside: captured,
            outside_wire: outside,
            lab,
        })
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(crate) fn outside_wire(&self) -> &Wire {
        &self.outside_wire
    }

    /// All that passed outside until now.
    pub(crate) fn frames(self) -> Result<Vec<Frame>> {
        drop(self.stack);
        self.outside.stop()
    }
}

pub(crate) fn dig(host: &Host, question: &str) -> Result<String> {
    host.run(&format!("{} +time=3 +tries=2 {question}", DIG.0))
}

pub(crate) fn resolves(host: &Host, name: &str, at: &str) -> Result {
    let address = address_of(name).0.to_string();
    let answer = dig(host, &format!("+short {name} @{at}"))?;
    require!(
        answer.trim() == address,
        "{name} at {at}: {answer:?} instead of {address}"
    );
    Ok(())
}

pub(crate) fn denied(host: &Host, question: &str, reason: &str) -> Result {
    let answer = dig(host, question)?;
    require!(
        answer.contains("status: NXDOMAIN")
            && answer.contains("EDE: 15")
            && answer.contains(reason),
        "{question} is not denied for {reason}:\n{answer}"
    );
    Ok(())
}

pub(crate) fn reaches(host: &Host, address: &str) -> Result {
    let said = host.dial(address)?;
    require!(
        said.starts_with("clawgress fake internet at "),
        "{address} said {said:?}"
    );
    Ok(())
}

pub(crate) fn does_not_reach(host: &Host, address: &str) -> Result {
    if let Ok(said) = host.dial(address) {
        fail!("{address} answered: {said:?}");
    }
    Ok(())
}

/// Names that crossed the outside wire in a question of the box.
pub(crate) fn was_heard(frames: &[Frame], part: &str) -> Vec<String> {
    frames
        .iter()
        .filter(|frame| {
            let bytes = frame.bytes.to_ascii_lowercase();
            bytes
                .windows(part.len())
                .any(|window| window == part.as_bytes())
        })
        .map(Frame::describe)
        .collect()
}

#[test]
fn addresses_are_reached_by_their_names_alone() {
    case("ways-addresses", |case| {
        let scene = Scene::new(case)?;
        let agent = &scene.agent.host;
        let (v4, v6) = address_of(ALLOWED);
        let site = format!("{v4}:443");
        case.check(
            "before the name was asked for, its address is out of reach",
            || does_not_reach(agent, &site),
        );
        case.check("the name resolves and the site answers at once", || {
            resolves(agent, ALLOWED, "10.66.0.1")?;
            reaches(agent, &site)
        });
        case.check("over IPv6 too", || {
            dig(agent, &format!("+short AAAA {ALLOWED} @fd66::1"))?;
            reaches(agent, &format!("[{v6}]:443"))
        });
        case.check("not on other ports", || {
            does_not_reach(agent, &format!("{v4}:22"))
        });
        case.check(
            "the policy's own address is reached, its neighbour is not",
            || {
                reaches(agent, "192.0.2.7:443")?;
                does_not_reach(agent, "192.0.2.8:443")?;
                does_not_reach(agent, "192.0.2.7:22")
            },
        );
        case.check("another host's pins are not this one's", || {
            let own = address_of(OWN).0;
            resolves(&scene.second, OWN, "10.66.0.1")?;
            reaches(&scene.second, &format!("{own}:443"))?;
            does_not_reach(agent, &format!("{own}:443"))?;
            does_not_reach(&scene.second, &site)?;
            does_not_reach(&scene.second, "192.0.2.7:443")
        });
        case.check("a host has its own names alone", || {
            denied(
                &scene.second,
                &format!("{ALLOWED} @10.66.0.1"),
                "not-allowlisted",
            )?;
            denied(agent, &format!("{OWN} @10.66.0.1"), "not-allowlisted")
        });
        case.check("the box's own ports are shut to agents", || {
            for port in [22, 443, 8440, 10053, 10054, 10443] {
                does_not_reach(agent, &format!("10.66.0.1:{port}"))?;
            }
            Ok(())
        });
        Ok(())
    });
}

#[test]
fn no_question_about_a_denied_name_leaves() {
    case("ways-dns", |case| {
        let scene = Scene::new(case)?;
        let agent = &scene.agent.host;
        let long = format!("{0}.{0}.{0}.tunnel.example", "a".repeat(60));
        let questions = [
            "secret.tunnel.example @10.66.0.1".to_owned(),
            "TXT secret.tunnel.example @10.66.0.1".to_owned(),
            "NULL secret.tunnel.example @10.66.0.1".to_owned(),
            "ANY secret.tunnel.example @10.66.0.1".to_owned(),
            "HTTPS secret.tunnel.example @10.66.0.1".to_owned(),
            "MX tunnel.example @10.66.0.1".to_owned(),
            "+dnssec +cdflag secret.tunnel.example @10.66.0.1".to_owned(),
            "SeCrEt.TuNnEl.ExAmPlE @8.8.8.8".to_owned(),
            "+tcp secret.tunnel.example @1.1.1.1".to_owned(),
            "secret.tunnel.example @fd66::1".to_owned(),
            "secret.tunnel.example @2606:4700:4700::1111".to_owned(),
            format!("{long} @10.66.0.1"),
            // From elsewhere to an allowed name.
            format!("alias.tunnel.example.{ALLOWED}.tunnel.example @10.66.0.1"),
        ];
        for question in &questions {
            case.check(question, || denied(agent, question, "not-allowlisted"));
        }
        case.check("an allowed name at any resolver is answered here", || {
            resolves(agent, ALLOWED, "8.8.8.8")?;
            resolves(agent, ALLOWED, "198.51.100.1")
        });
        case.check(
            "a CNAME of an allowed name pins its target's address",
            || {
                let name = "alias.cdn.wild.example";
                let target = address_of("cdn.wild.example").0;
                let answer = dig(agent, &format!("+short {name} @10.66.0.1"))?;
                require!(answer.contains(&target.to_string()), "{answer}");
                reaches(agent, &format!("{target}:443"))
            },
        );
        case.check("inside addresses are stripped", || {
            for kind in ["A", "AAAA"] {
                let answer = dig(
                    agent,
                    &format!("+short {kind} rebind.wild.example @10.66.0.1"),
                )?;
                require!(answer.trim().is_empty(), "{kind}: {answer}");
            }
            Ok(())
        });
        case.check("DNS over TLS is refused", || {
            does_not_reach(agent, "1.1.1.1:853")
        });
        case.check(
            "a tunnel through an allowed wildcard meets its budget",
            || {
                let mut answered = 0;
                for number in 0..120 {
                    let answer = dig(
                        agent,
                        &format!("+tries=1 +time=2 chunk{number:04}.wild.example @10.66.0.1"),
                    )?;
                    if answer.contains("status: NOERROR") {
                        answered += 1;
                    }
                }
                require!(
                    (1..=60).contains(&answered),
                    "{answered} of 120 names were answered"
                );
                denied(agent, "chunk9999.wild.example @10.66.0.1", "name-budget")
            },
        );
        let frames = scene.frames()?;
        case.check("outside nobody heard of the denied ones", || {
            let heard = was_heard(&frames, "tunnel");
            require!(heard.is_empty(), "{}", heard.join("\n"));
            Ok(())
        });
        Ok(())
    });
}

/// 10,000 in the full tier.
#[test]
fn the_first_packet_is_never_lost() {
    case("ways-first-packet", |case| {
        let scene = Scene::new(case)?;
        let names = if cfg!(feature = "full") { 2_000 } else { 50 };
        // More names than the default budget of a wildcard: names of their own.
        let list: Vec<String> = (0..names)
            .map(|number| format!("\"site{number}.example\""))
            .collect();
        let policy = format!(
            "{{\"version\":1,\"allow\":{{\"domains\":[{}],\"ports\":[443]}}}}",
            list.join(",")
        );
        scene.stack.import(&policy)?;
        for number in 0..names {
            let name = format!("site{number}.example");
            resolves(&scene.agent.host, &name, "10.66.0.1")?;
            reaches(&scene.agent.host, &format!("{}:443", address_of(&name).0))?;
        }
        Ok(())
    });
}

#[test]
fn a_revision_reaches_what_is_live() {
    case("ways-revision", |case| {
        let mut scene = Scene::new(case)?;
        let agent = &scene.agent.host;
        let (kept, cut) = (address_of(ALLOWED).0, address_of("cdn.wild.example").0);
        scene.internet.serve_streams(8443)?;
        let policy = |domains: &str| {
            format!("{{\"version\":1,\"allow\":{{\"domains\":[{domains}],\"ports\":[8443]}}}}")
        };
        scene
            .stack
            .import(&policy("\"api.allowed.example\",\"cdn.wild.example\""))?;
        resolves(agent, ALLOWED, "10.66.0.1")?;
        resolves(agent, "cdn.wild.example", "10.66.0.1")?;
        // Eight seconds each, if nobody interferes.
        let (size, pace) = (800_000, 100_000);
        let kept = agent.stream(&format!("{kept}:8443 --download {size} --pace {pace}"))?;
        let cut = agent.stream(&format!("{cut}:8443 --download {size} --pace {pace}"))?;
        std::thread::sleep(Duration::from_secs(2));
        scene.stack.import(&policy("\"api.allowed.example\""))?;
        let began = Instant::now();
        let cut = cut.finish()?;
        let took = began.elapsed();
        let kept = kept.finish()?;
        case.check("a forbidden download is cut within a second", || {
            require!(
                cut.contains("reset") && took < Duration::from_secs(2),
                "after {took:?}: {cut}"
            );
            Ok(())
        });
        case.check("an allowed one loses no byte", || {
            require!(
                kept.contains("\"end\":\"whole\"") && kept.contains("\"intact\":true"),
                "{kept}"
            );
            Ok(())
        });
        case.check(
            "a restart of the enforcer changes nothing in the kernel",
            || {
                let list = "/usr/sbin/nft list set inet clawgress generation";
                let before = scene.stack.host.run(list)?;
                scene.stack.kill("clawgress-enforcer")?;
                scene.stack.enforcer()?;
                std::thread::sleep(Duration::from_secs(3));
                let after = scene.stack.host.run(list)?;
                require!(before == after, "before:\n{before}after:\n{after}");
                reaches(
                    &scene.agent.host,
                    &format!("{}:8443", address_of(ALLOWED).0),
                )
                .or_else(|_| resolves(&scene.agent.host, ALLOWED, "10.66.0.1"))
            },
        );
        Ok(())
    });
}

#[test]
fn names_on_the_wire_are_judged_not_addresses() {
    case("ways-sni", |case| {
        let scene = Scene::new(case)?;
        let agent = &scene.agent.host;
        scene.stack.import(
            "{\"version\":1,\"allow\":{\"domains\":[\"api.allowed.example\",\"shared.example\"],\"ports\":[80,443]},\
             \"proxy\":{\"mode\":\"sni-allowlist\"}}",
        )?;
        let curl = |arguments: &str| {
            agent.run(&format!(
                "{} --silent --show-error --max-time 8 {arguments}",
                CURL.0
            ))
        };
        let at = |name: &str| format!("clawgress fake internet at {}", address_of(name).0);
        case.check(
            "port 80 leads to the site of the Host header, wherever it was sent",
            || {
                let page = curl(
                    "--resolve api.allowed.example:80:198.51.100.66 http://api.allowed.example/",
                )?;
                require!(page.contains(&at(ALLOWED)), "{page}");
                Ok(())
            },
        );
        case.check("another site's Host at an allowed address is refused", || {
            let (address, _) = address_of(ALLOWED);
            let page = curl(&format!("--write-out %{{http_code}} --resolve evil.example:80:{address} http://evil.example/"))?;
            require!(page.contains("403") && page.contains("\"decision\":\"deny\""), "{page}");
            Ok(())
        });
        case.check("plain TCP, SSH and silence on 443 reach nobody", || {
            does_not_reach(agent, &format!("{}:443", address_of(ALLOWED).0))
        });
        case.check("QUIC is refused, and the client is told so at once", || {
            let output = agent.run(&format!(
                "{} +notcp +time=4 +tries=1 -p 443 @{} {ALLOWED}",
                DIG.0,
                address_of(ALLOWED).0
            ));
            let text = output.err().map(|error| error.to_string());
            let text = text.unwrap_or_default();
            require!(text.contains("refused"), "{text}");
            Ok(())
        });
        Ok(())
    });
}
