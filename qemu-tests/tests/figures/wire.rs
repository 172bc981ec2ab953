//! New TLS connections a second through the judging front, beside a haproxy that passes everything: one in the front's
//! own place, behind the same ruleset and with the agents' addresses, and one that agents connect to themselves, with
//! nothing between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use qemu_tests::figures::{Figure, Must, median};
use qemu_tests::frame::Mac;
use qemu_tests::lab::Host;
use qemu_tests::names::address_of;
use qemu_tests::process::{self, words};
use qemu_tests::tools::{HAPROXY, NFT};
use qemu_tests::{Error, Result, case};

use crate::Scene;

const SITE: &str = "api.allowed.example";
const ROUNDS: usize = 5;
const SECONDS: u32 = 4;
const WORKERS: u32 = 16;

const POLICY: &str = r#"{"version": 2, "allow": {"domains": ["api.allowed.example"], "ports": [443]},
    "proxy": {"mode": "sni-allowlist"}}"#;

/// A program on a host; it ends with the measurement.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        process::end(&mut self.0);
    }
}

fn start(host: &Host, command: &str) -> Result<Guest> {
    let mut arguments = host.entry();
    arguments.extend(words(command));
    let child = process::spawn(&arguments, |command| {
        command.stdin(Stdio::null()).stdout(Stdio::null());
    })?;
    // For it to listen.
    std::thread::sleep(Duration::from_secs(1));
    Ok(Guest(child))
}

/// The load generator, built beside this program.
fn load() -> Result<PathBuf> {
    let program = std::env::current_exe().map_err(|error| Error::other(error.to_string()))?;
    let profile = program.ancestors().nth(2).unwrap_or(Path::new("."));
    let load = profile.join("examples/tls_load");
    if fs::exists(&load).unwrap_or(false) {
        return Ok(load);
    }
    Err(Error::other(format!(
        "{} is not built: cargo xtask bench enforce builds it",
        load.display()
    )))
}

/// What the agent dials for the peer in the front's place, and where that one listens.
const TO_THE_PEER: &str = "192.0.2.66";
const IN_PLACE: &str = "10.66.0.2";
/// The peer that agents connect to.
const DIRECT: &str = "10.66.0.250";

/// Everything is passed to one site.
fn passing(listens: &str, more: &str, site: &str) -> String {
    format!(
        "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend all\n  bind {listens}\n  default_backend site\nbackend site\n{more}  server site {site}:443\n"
    )
}

/// On the box, beside the front: what goes to one address is turned to this one instead, and goes the front's way else.
fn in_place(scene: &mut Scene, site: &str) -> Result {
    let stack = &mut scene.stack;
    let card = stack.host.run("ip -4 -o route show 10.66.0.0/24")?;
    let card = card
        .split(" dev ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let card =
        card.ok_or_else(|| Error::other("the box has no card toward the agent".to_owned()))?;
    stack
        .host
        .ip(&format!("address add {IN_PLACE}/24 dev {card}"))?;
    let turn = stack.file(
        "in-place.nft",
        &format!(
            "table ip measured {{\n chain to_the_peer {{\n  type nat hook prerouting priority -101;\n  \
             ip daddr {TO_THE_PEER} tcp dport 443 dnat to {IN_PLACE}:10443\n }}\n}}\n"
        ),
    )?;
    stack
        .host
        .run(&format!("{} -f {}", NFT.0, turn.display()))?;
    let config = passing(
        &format!("{IN_PLACE}:10443"),
        "  source 0.0.0.0 usesrc clientip\n",
        site,
    );
    let config = stack.file("in-place.cfg", &config)?;
    stack.another_haproxy("haproxy-in-place", &config)
}

#[test]
fn names_judged_on_the_wire() {
    case("figures-wire", |case| {
        let load = load()?;
        let mut scene = Scene::new(case)?;
        scene.stack.import(POLICY)?;
        let address = address_of(SITE).0.to_string();
        let site = scene.lab.host("site")?;
        let plug = |host, wire, last, addresses: &[&str]| {
            scene
                .lab
                .plug(host, wire, Mac([2, 0xa9, 0, 0, 1, last]), addresses)
        };
        plug(
            &site,
            &scene.outside,
            1,
            &["203.0.113.80/24", &format!("{address}/32")],
        )?;
        let direct = scene.lab.host("plain")?;
        plug(&direct, &scene.outside, 2, &["203.0.113.81/24"])?;
        plug(&direct, &scene.inside, 3, &[&format!("{DIRECT}/24")])?;
        for host in [&scene.stack.host, &direct] {
            host.ip(&format!("route add {address}/32 via 203.0.113.80"))?;
        }
        let _site = start(&site, &format!("{} serve {address}:443", load.display()))?;
        let config = scene.stack.file(
            "direct.cfg",
            &passing(&format!("{DIRECT}:443"), "", &address),
        )?;
        let _direct = start(
            &direct,
            &format!("{} -db -q -f {}", HAPROXY.0, config.display()),
        )?;
        in_place(&mut scene, &address)?;

        let rate = |to: &str| -> Result<f64> {
            let said = scene.agent.host.run(&format!(
                "{} connect {to}:443 {SITE} {SECONDS} {WORKERS}",
                load.display()
            ))?;
            said.trim()
                .parse()
                .map_err(|_| Error::other(format!("no rate: {said}")))
        };
        // Without a lookup of the front the ruleset would let nothing go there.
        rate(&address)?;
        let (mut judged, mut passed, mut unjudged) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            passed.push(rate(DIRECT)?);
            judged.push(rate(&address)?);
            unjudged.push(rate(TO_THE_PEER)?);
            case.note(&format!(
                "reached directly, judged, in its place: {passed:.0?}, {judged:.0?}, {unjudged:.0?}"
            ));
        }
        let judged = median(&mut judged);
        for (name, peer, mut rates) in [
            (
                "new TLS connections through the judging front",
                "haproxy passing everything, in its place",
                unjudged,
            ),
            (
                "the same, the peer connected to directly and without a ruleset",
                "haproxy passing everything, directly",
                passed,
            ),
        ] {
            Figure {
                name,
                value: judged,
                unit: "/s",
                must: Must::AtLeastTimesPeer(0.8),
                peer: Some((peer, median(&mut rates))),
            }
            .line()
            .announce();
        }
        Ok(())
    });
}
