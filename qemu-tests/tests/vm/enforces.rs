//! A booted box that enforces: an agent behind it reaches what the policy allows, by the name it asked for, and nothing
//! else, whichever way it tries; and what a new revision forbids ends.

use std::net::IpAddr;
use std::time::Duration;

use qemu_tests::agent::BOX_WAN_MAC;
use qemu_tests::configuration::enforcing;
use qemu_tests::frame::{Frame, TCP, UDP};
use qemu_tests::lab::helper_path;
use qemu_tests::names::address_of;
use qemu_tests::{Case, Result, case, require};

use crate::scene::Scene;
use crate::sni_hello::Hello;
use crate::{no_unit_has_failed, the_kernel_is_sealed};

const ALLOWED: &str = "api.allowed.example";
const WILD: &str = "cdn.wild.example";
const DENIED: &str = "evil.example";
const OTHER: &str = "other.example";
const STREAMS: u16 = 8443;
/// The fake internet's resolver.
const RESOLVER: &str = "203.0.113.1";

const POLICY: &str = "domain api.allowed.example {
    label llm-provider
}
domain *.wild.example
ip 192.0.2.7/32
port 443
port 80";

#[test]
fn an_agent_reaches_what_the_policy_allows_and_nothing_else() {
    case("enforces", |case| {
        let mut scene = Scene::new(case, &enforcing(POLICY))?;
        what_is_allowed(case, &scene);
        what_is_denied(case, &mut scene);
        what_changes(case, &mut scene);
        what_runs(case, &mut scene);
        what_names_say(case, &mut scene);
        case.check("no unit has failed", || no_unit_has_failed(&mut scene.vm));
        let Scene { vm, outside, .. } = scene;
        drop(vm);
        let frames = outside.stop()?;
        case.check("outside went nothing but what was allowed", || {
            only_allowed(&frames)
        });
        case.check("no resolver outside ever heard a denied name", || {
            let heard = frames.iter().filter(|frame| {
                let bytes = frame.bytes.to_ascii_lowercase();
                bytes.windows(4).any(|window| window == b"evil") && frame.source_mac == BOX_WAN_MAC
            });
            let heard: Vec<String> = heard.map(Frame::describe).collect();
            require!(heard.is_empty(), "{}", heard.join("\n"));
            Ok(())
        });
        Ok(())
    });
}

fn what_is_allowed(case: &Case, scene: &Scene) {
    let (allowed, wild) = (address_of(ALLOWED), address_of(WILD));
    let site = format!("{}:443", allowed.0);
    case.check(
        "an address is out of reach before its name is asked for",
        || scene.does_not_reach(&site),
    );
    case.check("an allowed name resolves", || {
        scene.resolves(ALLOWED, "10.66.0.1")
    });
    case.check("and its site answers at once", || scene.reaches(&site));
    case.check("over IPv6 too", || {
        scene.dig(&format!("+short AAAA {ALLOWED} @fd66::1"))?;
        scene.reaches(&format!("[{}]:443", allowed.1))
    });
    case.check(
        "a name below a wildcard resolves, its parent does not",
        || {
            scene.resolves(WILD, "10.66.0.1")?;
            scene.reaches(&format!("{}:443", wild.0))?;
            scene.is_denied("wild.example @10.66.0.1", "not-allowlisted")
        },
    );
    case.check("an address of the policy is reached", || {
        scene.reaches("192.0.2.7:443")
    });
    case.check("on its ports alone", || {
        scene.does_not_reach("192.0.2.7:22")?;
        scene.does_not_reach(&format!("{}:22", allowed.0))
    });
    case.check("other addresses are not", || {
        scene.does_not_reach("192.0.2.8:443")?;
        scene.does_not_reach("198.51.100.250:443")?;
        scene.does_not_reach("[2001:db8:1::99]:443")
    });
}

fn what_is_denied(case: &Case, scene: &mut Scene) {
    case.check("a denied name is denied, with the reason", || {
        scene.is_denied(&format!("{DENIED} @10.66.0.1"), "not-allowlisted")?;
        scene.is_denied(
            &format!("TXT secret.{DENIED} @10.66.0.1"),
            "not-allowlisted",
        )?;
        scene.is_denied(
            &format!("+dnssec +cdflag {DENIED} @fd66::1"),
            "not-allowlisted",
        )
    });
    case.check("another resolver is this one", || {
        scene.resolves(ALLOWED, "8.8.8.8")?;
        scene.is_denied(&format!("{DENIED} @1.1.1.1"), "not-allowlisted")?;
        scene.is_denied(&format!("+tcp {DENIED} @8.8.8.8"), "not-allowlisted")
    });
    case.check("DNS over TLS is refused", || {
        scene.does_not_reach("1.1.1.1:853")
    });
    case.check("inside addresses of an allowed name are stripped", || {
        let answer = scene.dig("+short rebind.wild.example @10.66.0.1")?;
        require!(answer.trim().is_empty(), "{answer}");
        let answer = scene.dig("+short AAAA rebind.wild.example @10.66.0.1")?;
        require!(answer.trim().is_empty(), "{answer}");
        Ok(())
    });
    case.check("the appliance's own ports are shut", || {
        for port in [22, 443, 3128, 8440] {
            scene.does_not_reach(&format!("10.66.0.1:{port}"))?;
        }
        Ok(())
    });
    case.check("the console says what is enforced", || {
        let status = scene.vm.run_ok("clawgress status")?;
        require!(
            status.contains('1') && status.contains("enforcing"),
            "{status}"
        );
        let zone = scene.vm.run_ok("clawgress rpz")?;
        require!(zone.contains(ALLOWED), "{zone}");
        Ok(())
    });
}

fn what_changes(case: &Case, scene: &mut Scene) {
    let site = format!("{}:443", address_of(ALLOWED).0);
    case.check("a killed resolver seals the box, which then heals", || {
        // Masked, or it would be there again within a second or two.
        scene.vm.run_ok("systemctl mask --runtime --now named")?;
        scene.vm.run_until_ok(
            "nft list set inet clawgress generation | grep -q 'elements = { 0x00000000 }'",
            Duration::from_secs(5),
        )?;
        the_kernel_is_sealed(&mut scene.vm)?;
        scene.does_not_reach(&site)?;
        scene
            .vm
            .run_ok("systemctl unmask --runtime named && systemctl start named")?;
        scene.vm.wait_enforcing()?;
        scene.vm.run_until_ok(
            "! nft list set inet clawgress generation | grep -q 'elements = { 0x00000000 }'",
            Duration::from_secs(20),
        )?;
        scene.resolves(ALLOWED, "10.66.0.1")?;
        scene.reaches(&site)
    });
    case.check("a revision forbids what it leaves out", || {
        scene.commit(r#"{"version":1,"allow":{"domains":["other.example"],"ports":[443]}}"#)?;
        scene.is_denied(&format!("{ALLOWED} @10.66.0.1"), "not-allowlisted")?;
        scene.does_not_reach(&site)?;
        scene.resolves("other.example", "10.66.0.1")?;
        scene.reaches(&format!("{}:443", address_of("other.example").0))
    });
    case.check("a broken policy changes nothing", || {
        scene
            .vm
            .run_ok("printf '{\"version\":1,\"alow\":{}}' > /tmp/bad.json")?;
        let output = scene.vm.run("clawgress import --policy /tmp/bad.json")?;
        require!(
            output.status == 1 && output.stdout.contains("alow") && output.stdout.contains("allow"),
            "{output:?}"
        );
        scene.resolves("other.example", "10.66.0.1")
    });
}

/// A revision reaches what runs.
fn what_runs(case: &Case, scene: &mut Scene) {
    let policy = |domains: &str| {
        format!(r#"{{"version":1,"allow":{{"domains":[{domains}],"ports":[443,{STREAMS}]}}}}"#)
    };
    case.check(
        "a forbidden download is cut, an allowed one loses no byte",
        || {
            scene.internet.serve_streams(STREAMS)?;
            scene.commit(&policy("\"other.example\",\"cdn.wild.example\""))?;
            scene.resolves(OTHER, "10.66.0.1")?;
            scene.resolves(WILD, "10.66.0.1")?;
            let download = |name: &str, bytes: u64| {
                let site = address_of(name).0;
                scene
                    .agent
                    .host
                    .stream(&format!("{site}:{STREAMS} --download {bytes} --pace 50000"))
            };
            let (kept, cut) = (download(OTHER, 1_500_000)?, download(WILD, 5_000_000)?);
            scene.commit(&policy("\"other.example\""))?;
            let began = std::time::Instant::now();
            let cut = cut.finish()?;
            let took = began.elapsed();
            require!(
                // Whoever only listens hears nothing any more; whoever says something is told.
                (cut.contains("\"end\":\"reset\"") || cut.contains("\"end\":\"silence\""))
                    && took < Duration::from_secs(6),
                "after {took:?}: {cut}"
            );
            let kept = kept.finish()?;
            require!(
                kept.contains("\"end\":\"whole\"") && kept.contains("\"intact\":true"),
                "{kept}"
            );
            Ok(())
        },
    );
}

/// In SNI mode the name on the wire decides, whatever address it is said to.
fn what_names_say(case: &Case, scene: &mut Scene) {
    const ATTACKER: &str = "198.51.100.66";
    let committed = scene.commit(
        r#"{"version":1,"allow":{"domains":["other.example"],"ports":[80,443]},"proxy":{"mode":"sni-allowlist"}}"#,
    );
    case.check("names on the wire are judged from now on", || committed);
    let site = format!("clawgress fake internet at {}", address_of(OTHER).0);
    let hello = |to: &str, name: &str| -> Result<String> {
        let bytes = Hello::to(name).record();
        let hex = bytes
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let helper = helper_path()?;
        let host = &scene.agent.host;
        host.run(&format!("{helper} converse {to}:443 send={hex} read shut"))
    };
    case.check(
        "an allowed name at an attacker's address: the true site",
        || {
            let said = hello(ATTACKER, OTHER)?;
            require!(said.contains(&site), "{said}");
            Ok(())
        },
    );
    case.check("another name at the allowed site's address is cut", || {
        let said = hello(&address_of(OTHER).0.to_string(), DENIED)?;
        require!(!said.contains("fake internet"), "{said}");
        Ok(())
    });
    let page = |name: &str, at: &str| {
        scene.agent.host.run(&format!(
            "/usr/bin/curl --silent --max-time 8 --resolve {name}:80:{at} http://{name}/"
        ))
    };
    case.check("the same on port 80, by the Host", || {
        let said = page(OTHER, ATTACKER)?;
        require!(said.contains(&site), "{said}");
        let said = page(DENIED, &address_of(OTHER).0.to_string())?;
        require!(said.contains("\"decision\":\"deny\""), "{said}");
        Ok(())
    });
    case.check("QUIC is refused", || {
        let asked = scene.agent.host.run(&format!(
            "/usr/bin/dig +notcp +time=4 +tries=1 -p 443 @{} {OTHER}",
            address_of(OTHER).0
        ));
        require!(asked.is_err(), "{asked:?}");
        Ok(())
    });
}

/// Every TCP and UDP packet of the box goes to an allowed site on an allowed port, to its resolver, or for an address.
fn only_allowed(frames: &[Frame]) -> Result {
    let names = [ALLOWED, WILD, OTHER];
    let mut sites: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))];
    for name in names {
        let (v4, v6) = address_of(name);
        sites.extend([IpAddr::from(v4), IpAddr::from(v6)]);
    }
    let resolver: IpAddr = RESOLVER.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let strange: Vec<String> = frames
        .iter()
        .filter(|frame| frame.source_mac == BOX_WAN_MAC)
        .filter(|frame| matches!(frame.protocol, Some(TCP | UDP)))
        .filter(|frame| {
            let Some(to) = frame.destination else {
                return true;
            };
            let port = frame.destination_port;
            let site = sites.contains(&to) && matches!(port, Some(80 | 443 | STREAMS));
            let asks = to == resolver && port == Some(53);
            let lease = matches!(port, Some(67 | 547));
            !site && !asks && !lease
        })
        .map(Frame::describe)
        .collect();
    require!(
        strange.is_empty(),
        "{} frames:\n{}",
        strange.len(),
        strange[..strange.len().min(20)].join("\n")
    );
    Ok(())
}
