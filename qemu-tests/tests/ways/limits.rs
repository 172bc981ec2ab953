//! Caps and windows against everything that enforces: what runs is cut, what is used up stays so on every path.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qemu_tests::names::address_of;
use qemu_tests::tools::CURL;
use qemu_tests::{Error, Result, case, require};

use crate::{ALLOWED, Scene, denied, does_not_reach, reaches, resolves};

const CAP: u64 = 1_000_000;

fn capped(more: &str) -> String {
    format!(
        r#"{{"version": 2, "hosts": {{"agent-1": {{"sources": ["10.66.0.7/32"],
            "allow": {{"domains": ["{ALLOWED}", "free.example"], "ports": [80, 443, 8443]}}{more},
            "exfil": {{"domains": {{"{ALLOWED}": {{"bytes": {CAP}, "period": "day"}}}}}}}}}}}}"#
    )
}

/// Bytes of the only cap that are used, as the operator is told.
fn used(scene: &Scene) -> Result<u64> {
    let text = scene.stack.console("telemetry --json")?;
    let number = text.split("\"used\":").nth(1).and_then(|rest| {
        let digits: String = rest
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        digits.parse().ok()
    });
    number.ok_or_else(|| Error::other(format!("the telemetry tells no use of a cap:\n{text}")))
}

#[test]
fn what_is_used_up_is_used_up_on_every_path() {
    case("ways-cap", |case| {
        let mut scene = Scene::new(case)?;
        let site = address_of(ALLOWED).0;
        scene.internet.serve_streams(8443)?;
        scene.stack.import(&capped(""))?;
        let agent = &scene.agent.host;
        resolves(agent, ALLOWED, "10.66.0.1")?;
        case.step("an upload is cut at the cap", || {
            let flow = agent.stream(&format!("{site}:8443 --upload 20000000"))?;
            let said = flow.finish()?;
            require!(said.contains("\"end\":\"reset\""), "{said}");
            // It is read each second.
            std::thread::sleep(Duration::from_secs(2));
            let used = used(&scene)?;
            case.note(&format!("{used} bytes of {CAP} are used"));
            require!((CAP * 9 / 10..CAP + 64 * 1024).contains(&used), "{used}");
            Ok(())
        })?;
        let shut = |scene: &Scene, when: &str| -> Result {
            does_not_reach(&scene.agent.host, &format!("{site}:8443"))
                .map_err(|error| Error::other(format!("{when}: {error}")))?;
            let question = format!("{ALLOWED} @10.66.0.1");
            denied(&scene.agent.host, &question, "over-cap")
        };
        case.check("nothing opens, and the name is denied", || {
            shut(&scene, "at once")
        });
        case.check("another name of the host goes on", || {
            resolves(agent, "free.example", "10.66.0.1")?;
            reaches(agent, &format!("{}:443", address_of("free.example").0))
        });
        case.step("a restart of the enforcer gives nothing back", || {
            scene.stack.kill("clawgress-enforcer")?;
            scene.stack.enforcer()?;
            std::thread::sleep(Duration::from_secs(3));
            shut(&scene, "after the restart")
        })?;
        case.step(
            "nor does another revision, nor the path by the name on the wire",
            || {
                scene
                    .stack
                    .import(&capped(r#", "proxy": {"mode": "sni-allowlist"}"#))?;
                shut(&scene, "under the next revision")?;
                let page = scene.agent.host.run(&format!(
                    "{} --silent --max-time 8 --resolve {ALLOWED}:80:{site} http://{ALLOWED}/",
                    CURL.0
                ))?;
                require!(page.contains("over-cap"), "{page}");
                Ok(())
            },
        )
    });
}

/// Minutes since midnight, and seconds until the next minute that is at least `least` seconds away.
fn next_minute(least: u64) -> (u64, u64) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let closes = (now + least).div_ceil(60) * 60;
    (closes / 60 % (24 * 60), closes)
}

#[test]
fn a_window_that_closes_cuts_what_runs() {
    case("ways-window", |case| {
        let mut scene = Scene::new(case)?;
        let site = address_of(ALLOWED).0;
        scene.internet.serve_streams(8443)?;
        let agent = &scene.agent.host;
        let (end, closes) = next_minute(20);
        let begin = (end + 24 * 60 - 90) % (24 * 60);
        let clock = |minutes: u64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        scene.stack.import(&format!(
            r#"{{"version": 1, "allow": {{"domains": ["{ALLOWED}", "free.example"], "ports": [8443]}},
                "domain_time_windows": {{"{ALLOWED}": {{"days": ["mon","tue","wed","thu","fri","sat","sun"],
                    "start": "{}", "end": "{}"}}}}}}"#,
            clock(begin),
            clock(end)
        ))?;
        resolves(agent, ALLOWED, "10.66.0.1")?;
        resolves(agent, "free.example", "10.66.0.1")?;
        let free = address_of("free.example").0;
        let cut = agent.stream(&format!("{site}:8443 --download 20000000 --pace 100000"))?;
        let kept = agent.stream(&format!("{free}:8443 --download 9000000 --pace 100000"))?;
        let said = cut.finish()?;
        let ended = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let after = ended - closes as f64;
        case.note(&format!("cut {after:.2} s after the window closed"));
        case.check("the download is cut within a second", || {
            require!(
                said.contains("\"end\":\"reset\"") && (0.0..1.5).contains(&after),
                "after {after:.2} s: {said}"
            );
            Ok(())
        });
        case.check("nothing opens any more, and the name is denied", || {
            does_not_reach(agent, &format!("{site}:8443"))?;
            denied(agent, &format!("{ALLOWED} @10.66.0.1"), "outside-window")
        });
        let said = kept.finish()?;
        case.check("a flow without a window lost no byte", || {
            require!(
                said.contains("\"end\":\"whole\"") && said.contains("\"intact\":true"),
                "{said}"
            );
            Ok(())
        });
        Ok(())
    });
}
