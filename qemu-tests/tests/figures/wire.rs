//! New TLS connections a second through the judging front, beside a haproxy that passes everything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use qemu_tests::figures::{Figure, Must, median};
use qemu_tests::frame::Mac;
use qemu_tests::lab::Host;
use qemu_tests::names::address_of;
use qemu_tests::process::{self, words};
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

#[test]
fn names_judged_on_the_wire() {
    case("figures-wire", |case| {
        let load = load()?;
        let scene = Scene::new(case)?;
        scene.stack.import(POLICY)?;
        let address = address_of(SITE).0;
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
        let plain = scene.lab.host("plain")?;
        plug(&plain, &scene.outside, 2, &["203.0.113.81/24"])?;
        plug(&plain, &scene.inside, 3, &["10.66.0.250/24"])?;
        for host in [&scene.stack.host, &plain] {
            host.ip(&format!("route add {address}/32 via 203.0.113.80"))?;
        }
        let _site = start(&site, &format!("{} serve {address}:443", load.display()))?;
        let config = scene.stack.file(
            "plain.cfg",
            &format!(
                "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                 frontend all\n  bind 10.66.0.250:443\n  default_backend site\nbackend site\n  server site {address}:443\n"
            ),
        )?;
        let _plain = start(
            &plain,
            &format!("/usr/sbin/haproxy -db -q -f {}", config.display()),
        )?;

        let rate = |to: &str| -> Result<f64> {
            let said = scene.agent.host.run(&format!(
                "{} connect {to}:443 {SITE} {SECONDS} {WORKERS}",
                load.display()
            ))?;
            said.trim()
                .parse()
                .map_err(|_| Error::other(format!("no rate: {said}")))
        };
        let (mut judged, mut passed) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            passed.push(rate("10.66.0.250")?);
            judged.push(rate(&address.to_string())?);
            case.note(&format!(
                "passing everything, judged: {passed:.0?}, {judged:.0?}"
            ));
        }
        Figure {
            name: "new TLS connections through the judging front",
            value: median(&mut judged),
            unit: "/s",
            must: Must::AtLeastTimesPeer(0.8),
            peer: Some(("haproxy passing everything", median(&mut passed))),
        }
        .line()
        .announce();
        Ok(())
    });
}
