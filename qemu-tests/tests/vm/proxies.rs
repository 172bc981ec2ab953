//! A booted box with its gateway: an agent that shows its key reaches through the proxy what rules allow, is told why
//! where they don't, is cut when it is blocked, and every request is one event of a trail that proves itself.

use std::time::Duration;

use qemu_tests::agent::BOX_WAN_MAC;
use qemu_tests::configuration::enforcing_with;
use qemu_tests::lab::helper_path;
use qemu_tests::names::address_of;
use qemu_tests::{Case, Result, case, require};

use crate::no_unit_has_failed;
use crate::scene::Scene;
use crate::sni_hello::Hello;

const ALLOWED: &str = "api.allowed.example";
const BY_RULE: &str = "cdn.wild.example";
const DENIED: &str = "evil.example";
const PROXY: &str = "10.66.0.1:3128";

const POLICY: &str = "domain api.allowed.example
domain cdn.wild.example
port 443
port 80";

const ACCESS: &str = "agent agent-1 {
    team red
    project crawler
    environment production
    auth-type api-key
}
agent agent-2 {
    team blue
    project crawler
    environment production
    auth-type api-key
}
rule wild-for-red-alone {
    priority 10
    identity {
        team blue
    }
    domain *.wild.example
    action deny
    label not-for-blue
}
quota {
    agent agent-2 {
        rpm 5
    }
}
gateway {
    enable
    contact security@example.com
}";

#[test]
fn an_agent_with_a_key_goes_through_the_proxy() {
    case("proxies", |case| {
        let mut scene = Scene::new(case, &enforcing_with(POLICY, ACCESS))?;
        case.step("every service around the gateway is there", || {
            scene.vm.run_until_ok(
                "/usr/lib/clawgress/appliance-init status | grep -q 'gateway .*judges by revision'",
                Duration::from_secs(90),
            )
        })?;
        let first = case.step("agents get their keys", || key(&mut scene, "agent-1"))?;
        let second = key(&mut scene, "agent-2")?;
        who_may_go(case, &scene, &first, &second);
        who_is_blocked(case, &mut scene, &first);
        what_is_written_down(case, &mut scene);
        case.check("no unit has failed", || no_unit_has_failed(&mut scene.vm));
        case.check("nothing but names' sites was spoken to", || {
            let Scene { vm, outside, .. } = scene;
            drop(vm);
            let frames = outside.stop()?;
            let denied = address_of(DENIED).0.to_string();
            let strange: Vec<String> = frames
                .iter()
                .filter(|frame| frame.source_mac == BOX_WAN_MAC)
                .filter(|frame| frame.destination.is_some_and(|to| to.to_string() == denied))
                .map(qemu_tests::frame::Frame::describe)
                .collect();
            require!(strange.is_empty(), "{}", strange.join("\n"));
            Ok(())
        });
        Ok(())
    });
}

/// Made on the console, where it is shown once.
fn key(scene: &mut Scene, agent: &str) -> Result<String> {
    let said = scene
        .vm
        .run_ok(&format!("clawgress agent {agent} key create"))?;
    let key = said
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || "_-".contains(letter)))
        .find(|word| word.starts_with("cg_") && word.len() > 40);
    require!(key.is_some(), "no key in:\n{said}");
    Ok(key.unwrap_or_default().to_owned())
}

/// A request as curl makes it with `http_proxy`; status and body.
fn page(scene: &Scene, user: Option<(&str, &str)>, url: &str) -> Result<String> {
    let proxy = match user {
        Some((agent, key)) => format!("http://{agent}:{key}@{PROXY}"),
        None => format!("http://{PROXY}"),
    };
    scene.agent.host.run(&format!(
        "/usr/bin/curl --silent --http0.9 --max-time 15 --proxy {proxy} --write-out HTTP%{{http_code}} {url}"
    ))
}

/// A tunnel, and a TLS hello in it.
fn tunnel(scene: &Scene, agent: &str, key: &str, host: &str, hello: &str) -> Result<String> {
    let credential = base64(&format!("{agent}:{key}"));
    let head = format!(
        "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Basic {credential}\r\n\r\n"
    );
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    };
    let helper = helper_path()?;
    scene.agent.host.run(&format!(
        "{helper} converse {PROXY} send={} read send={} read shut",
        hex(head.as_bytes()),
        hex(&Hello::to(hello).record())
    ))
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut coded = String::new();
    for three in text.as_bytes().chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            if place > three.len() {
                coded.push('=');
            } else {
                coded.push(char::from(LETTERS[six as usize]));
            }
        }
    }
    coded
}

fn who_may_go(case: &Case, scene: &Scene, first: &str, second: &str) {
    // Over whichever family the gateway connected first.
    let is_from = |said: &str, name: &str| {
        let (v4, v6) = address_of(name);
        [v4.to_string(), v6.to_string()]
            .iter()
            .any(|address| said.contains(&format!("clawgress fake internet at {address}")))
    };
    case.check("a request without a credential is refused", || {
        let said = page(scene, None, &format!("http://{ALLOWED}/"))?;
        require!(said.ends_with("HTTP407"), "{said}");
        Ok(())
    });
    case.check("so is one with another's key", || {
        let said = page(
            scene,
            Some(("agent-1", second)),
            &format!("http://{ALLOWED}/"),
        )?;
        require!(said.ends_with("HTTP407"), "{said}");
        Ok(())
    });
    case.check("a request with a key reaches what is allowed", || {
        let said = page(
            scene,
            Some(("agent-1", first)),
            &format!("http://{ALLOWED}/"),
        )?;
        require!(is_from(&said, ALLOWED), "{said}");
        Ok(())
    });
    case.check("a tunnel, too", || {
        let said = tunnel(scene, "agent-1", first, BY_RULE, BY_RULE)?;
        require!(
            said.contains("HTTP/1.1 200") && is_from(&said, BY_RULE),
            "{said}"
        );
        Ok(())
    });
    case.check("a tunnel whose hello names another site is cut", || {
        let said = tunnel(scene, "agent-1", first, ALLOWED, DENIED)?;
        require!(!said.contains("fake internet"), "{said}");
        Ok(())
    });
    case.check("a denial says which rule, and whom to ask", || {
        let said = page(
            scene,
            Some(("agent-2", second)),
            &format!("http://{BY_RULE}/"),
        )?;
        require!(
            said.ends_with("HTTP403")
                && said.contains("wild-for-red-alone")
                && said.contains("not-for-blue")
                && said.contains("security@example.com"),
            "{said}"
        );
        let said = page(
            scene,
            Some(("agent-1", first)),
            &format!("http://{DENIED}/"),
        )?;
        require!(
            said.ends_with("HTTP403") && said.contains("default-deny"),
            "{said}"
        );
        Ok(())
    });
    case.check("over its quota an agent is told when to come again", || {
        let url = format!("http://{ALLOWED}/");
        let mut last = String::new();
        for _ in 0..8 {
            last = page(scene, Some(("agent-2", second)), &url)?;
        }
        require!(last.ends_with("HTTP429"), "{last}");
        Ok(())
    });
    case.check("the box itself and its near side are out of reach", || {
        for url in [
            "http://10.66.0.1:8440/",
            "http://127.0.0.1:8440/",
            "http://10.66.0.7/",
        ] {
            let said = page(scene, Some(("agent-1", first)), url)?;
            require!(said.ends_with("HTTP403"), "{url}: {said}");
        }
        Ok(())
    });
}

fn who_is_blocked(case: &Case, scene: &mut Scene, key: &str) {
    let url = format!("http://{ALLOWED}/");
    case.check("the kill switch holds at once", || {
        scene.vm.run_ok("clawgress agent agent-1 block")?;
        let said = page(scene, Some(("agent-1", key)), &url)?;
        require!(
            said.ends_with("HTTP403") && said.contains("blocked"),
            "{said}"
        );
        scene.vm.run_ok("clawgress agent agent-1 unblock")?;
        let said = page(scene, Some(("agent-1", key)), &url)?;
        require!(said.contains("fake internet"), "{said}");
        Ok(())
    });
    case.check("a revoked key is nobody's", || {
        let list = scene.vm.run_ok("clawgress agent agent-1 key list")?;
        let prefix = key.split('_').nth(1).unwrap_or_default();
        require!(list.contains(prefix), "{list}");
        scene
            .vm
            .run_ok(&format!("clawgress agent agent-1 key revoke {prefix}"))?;
        std::thread::sleep(Duration::from_secs(1));
        let said = page(scene, Some(("agent-1", key)), &url)?;
        require!(said.ends_with("HTTP407"), "{said}");
        Ok(())
    });
}

fn what_is_written_down(case: &Case, scene: &mut Scene) {
    case.check("every request is an event, with who, where and why", || {
        // Shipped each moment; the last ones may be under way.
        scene.vm.run_until_ok(
            "clawgress audit query --agent agent-1 --host api.allowed.example --json | grep -q '\"allow\"'",
            Duration::from_secs(20),
        )?;
        let denied = scene
            .vm
            .run_ok("clawgress audit query --agent agent-2 --limit 200 --json")?;
        require!(
            denied.contains("wild-for-red-alone") && denied.contains("not-for-blue"),
            "{denied}"
        );
        Ok(())
    });
    case.check("the trail proves itself", || {
        let said = scene
            .vm
            .run_within("clawgress audit verify", Duration::from_secs(60))?;
        require!(said.status == 0, "{said:?}");
        Ok(())
    });
    case.check("a decision can be explained", || {
        let said = scene.vm.run_ok(&format!(
            "clawgress explain --agent agent-2 --url https://{BY_RULE}/"
        ))?;
        require!(said.contains("wild-for-red-alone"), "{said}");
        Ok(())
    });
}
