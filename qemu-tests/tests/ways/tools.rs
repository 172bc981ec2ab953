//! Tools that people tunnel with, each used as an agent would, against everything that enforces. Each is first shown to
//! work where nothing is in its way.

use std::process::{Child, Stdio};
use std::time::Duration;

use qemu_tests::frame::Mac;
use qemu_tests::lab::Host;
use qemu_tests::process::{self, words};
use qemu_tests::tools::{HPING, PTUNNEL, need};
use qemu_tests::{Result, case, fail, require};

use crate::{Scene, was_heard};

/// An address that the policy allows: the likeliest to let something slip through.
const OPEN: &str = "192.0.2.7";
const MARKER: &str = "clawgress-must-not-see-this-outside";

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        process::end(&mut self.0);
    }
}

fn start(host: &Host, command: &str) -> Result<Running> {
    let mut arguments = host.entry();
    arguments.extend(words(command));
    let child = process::spawn(&arguments, |command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
    })?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(Running(child))
}

#[test]
fn an_icmp_tunnel_carries_nothing() {
    case("ways-ptunnel", |case| {
        need(&[PTUNNEL])?;
        let scene = Scene::new(case)?;
        let far = &scene.internet.host;
        let _proxy = start(far, &format!("{} -r198.51.100.66 -R443", PTUNNEL.0))?;
        let through = |host: &Host, proxy: &str| -> Result<String> {
            let _client = start(
                host,
                &format!("{} -p{proxy} -l2222 -r198.51.100.66 -R443", PTUNNEL.0),
            )?;
            host.dial("127.0.0.1:2222")
        };
        case.step("it works where nothing is in its way", || {
            let free = scene.lab().host("free")?;
            scene.lab().plug(
                &free,
                scene.outside_wire(),
                Mac([2, 0xa9, 0, 0, 0, 0x55]),
                &["203.0.113.55/24"],
            )?;
            free.ip("link set lo up")?;
            let said = through(&free, "203.0.113.1")?;
            require!(said.contains("fake internet"), "it said {said:?}");
            Ok(())
        })?;
        for proxy in ["203.0.113.1", OPEN] {
            case.check(&format!("by {proxy}"), || {
                match through(&scene.agent.host, proxy) {
                    Ok(said) if said.contains("fake internet") => fail!("it carried {said:?}"),
                    _ => Ok(()),
                }
            });
        }
        Ok(())
    });
}

/// What is tried, and how hping3 is told so.
const CRAFTED: [(&str, &str); 13] = [
    ("echo requests", "--icmp"),
    ("timestamps", "--icmp --icmptype 13"),
    ("UDP to a TCP port", "--udp -p 443"),
    ("NTP", "--udp -p 123"),
    ("Teredo", "--udp -p 3544"),
    ("data in a SYN", "-S -p 22"),
    ("data without a beginning", "-A -p 443"),
    ("a christmas tree", "-F -P -U -p 443"),
    ("no flags at all", "-p 443"),
    ("tiny fragments", "--udp -p 443 -f"),
    ("a neighbour's address", "--udp -p 443 -a 10.66.0.8"),
    ("an address outside", "--udp -p 443 -a 198.51.100.3"),
    ("a source port of DNS", "--udp -s 53 -k -p 443"),
];

#[test]
fn crafted_packets_stay_inside() {
    case("ways-hping", |case| {
        need(&[HPING])?;
        let scene = Scene::new(case)?;
        let agent = &scene.agent.host;
        let common = format!("-c 3 -i u20000 -d 60 -e {MARKER}");
        let mut attempts: Vec<(String, String)> = CRAFTED
            .map(|(what, arguments)| (what.to_owned(), arguments.to_owned()))
            .into();
        // IP in IP, IPv6 in IP, GRE, ESP, AH, OSPF, SCTP, UDP-Lite, and one that nobody uses.
        for protocol in [4, 41, 47, 50, 51, 89, 132, 136, 253] {
            attempts.push((
                format!("IP protocol {protocol}"),
                format!("--rawip --ipproto {protocol}"),
            ));
        }
        for (what, arguments) in &attempts {
            // It fails when nobody answers; only what came out counts.
            let sent = agent.run(&format!("{} {common} {arguments} {OPEN}", HPING.0));
            let text = match sent {
                Ok(text) => text,
                Err(error) => error.to_string(),
            };
            case.check(what, || {
                require!(text.contains("HPING "), "not even tried: {text}");
                Ok(())
            });
        }
        case.step(
            "the tester is right: a packet from outside is on record",
            || {
                let far = &scene.internet.host;
                let _ = far.run(&format!(
                    "{} -c 1 -d 60 -e {MARKER}-outside --udp -p 9 203.0.113.10",
                    HPING.0
                ));
                Ok(())
            },
        )?;
        let frames = scene.frames()?;
        let heard = was_heard(&frames, MARKER);
        case.check("nothing of it came out", || {
            require!(
                heard.iter().all(|frame| frame.contains("203.0.113.10")) && !heard.is_empty(),
                "{}",
                heard.join("\n")
            );
            let own = frames.iter().filter(|frame| {
                frame.source_mac == qemu_tests::agent::BOX_WAN_MAC
                    && frame
                        .bytes
                        .windows(MARKER.len())
                        .any(|part| part == MARKER.as_bytes())
            });
            // An error about the packet from outside may quote it.
            require!(
                own.clone()
                    .all(|frame| frame.bytes.windows(7).any(|part| part == b"outside")),
                "the box sent {}",
                own.count()
            );
            Ok(())
        });
        Ok(())
    });
}
