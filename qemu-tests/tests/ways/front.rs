//! What the enforcer knows of the front's flows: where they were meant to go, and of each that it goes on.

use std::time::Duration;

use qemu_tests::lab::helper_path;
use qemu_tests::names::address_of;
use qemu_tests::process::{self, words};
use qemu_tests::{Error, Result, case, require};

use crate::{ALLOWED, Scene};

/// Where the enforcer hears the front.
const LOG: &str = "/run/clawgress/enforcer/front.sock";

/// A TLS hello that says no more than it must, in hexadecimal digits.
fn hello(name: &str) -> String {
    let two = |length: usize| u16::try_from(length).unwrap_or(0).to_be_bytes().to_vec();
    let list = [vec![0], two(name.len()), name.as_bytes().to_vec()].concat();
    let extension = [vec![0, 0], two(list.len() + 2), two(list.len()), list].concat();
    let mut body = vec![3, 3];
    // To the fake site: stay.
    body.extend(b"stay".repeat(8));
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend([two(extension.len()), extension].concat());
    let message = [vec![1, 0], two(body.len()), body].concat();
    let record = [vec![22, 3, 1], two(message.len()), message].concat();
    record
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Says a hello, hears the site and then waits for the end of the flow, nine seconds at most.
fn flow(mut arguments: Vec<String>, to: &str, name: &str) -> Result<String> {
    arguments.extend([helper_path()?, "converse".to_owned(), to.to_owned()]);
    arguments.extend([format!("send={}", hello(name)), "read".to_owned()]);
    process::run(&arguments)
}

/// Another name of the same address.
fn neighbour(of: &str) -> String {
    let mut names = (0..).map(|number| format!("n{number}.elsewhere.example"));
    names
        .find(|name| address_of(name) == address_of(of))
        .unwrap_or_default()
}

#[test]
fn a_flow_that_nobody_was_told_of_does_not_outlive_its_permission() {
    case("ways-unheard", |case| {
        let scene = Scene::new(case)?;
        let agent = || scene.agent.host.entry();
        let stays = neighbour(ALLOWED);
        let to = "192.0.2.66:443";
        let policy = |names: &str| {
            format!(
                "{{\"version\":1,\"allow\":{{\"domains\":[{names}],\"ports\":[443]}},\
                 \"proxy\":{{\"mode\":\"sni-allowlist\"}}}}"
            )
        };
        let run = |command: &str| scene.stack.host.run(command).map(drop);
        let enforcer = scene.stack.pid("clawgress-enforcer").unwrap_or_default();
        let tell = |signal: &str| process::run(&words(&format!("kill -{signal} {enforcer}")));
        scene
            .stack
            .import(&policy(&format!("\"{ALLOWED}\",\"{stays}\"")))?;
        let (unheard, heard) = std::thread::scope(|threads| -> Result<(String, String)> {
            let (first, second) = (agent(), agent());
            let heard = threads.spawn(|| flow(first, to, &stays));
            std::thread::sleep(Duration::from_secs(1));
            // The enforcer must be there for the flow to have an address: so the line of it gets lost on its way.
            run(&format!("mv {LOG} {LOG}.aside"))?;
            let unheard = threads.spawn(|| flow(second, to, ALLOWED));
            std::thread::sleep(Duration::from_secs(1));
            run(&format!("mv {LOG}.aside {LOG}"))?;
            // More is said than waits for it.
            tell("STOP")?;
            for _ in 0..24 {
                flow(agent(), to, "evil.example")?;
            }
            tell("CONT")?;
            std::thread::sleep(Duration::from_secs(1));
            scene.stack.import(&policy(&format!("\"{stays}\"")))?;
            let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<String>>| {
                thread
                    .join()
                    .map_err(|_| Error::other("a flow's thread panicked"))?
            };
            Ok((joined(unheard)?, joined(heard)?))
        })?;
        let site = format!("fake internet at {}", address_of(ALLOWED).0);
        case.check("the one that lost its name is cut", || {
            require!(
                unheard.contains(&site) && !unheard.starts_with("open"),
                "{unheard}"
            );
            Ok(())
        });
        case.check("the one that is known and allowed goes on", || {
            require!(
                heard.contains(&site) && heard.starts_with("open"),
                "{heard}"
            );
            Ok(())
        });
        case.check("the lines that were lost are counted", || {
            let log = scene.stack.log("clawgress-enforcer");
            require!(log.contains("lines of the front were lost"), "{log}");
            require!(log.contains("nobody knows its name"), "{log}");
            Ok(())
        });
        case.check("a denial tells what was dialled", || {
            let said = flow(agent(), to, "evil.example")?;
            require!(!said.contains("fake internet"), "{said}");
            std::thread::sleep(Duration::from_millis(500));
            let log = scene.stack.log("clawgress-enforcer");
            let line = log.lines().find(|line| line.contains("\"sni-mismatch\""));
            let told = line.is_some_and(|line| {
                line.contains("\"destination\":\"192.0.2.66\"") && line.contains("\"port\":443")
            });
            require!(told, "{line:?}");
            Ok(())
        });
        Ok(())
    });
}
