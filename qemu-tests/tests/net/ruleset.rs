//! The sealed ruleset: what it lets out, and that it never opens, not even while it is being replaced.
//!
//! The box of these tests forwards. On an appliance forwarding is off as well; here the ruleset stands alone.

use std::time::{Duration, Instant};

use clawgress_link::ruleset::Ruleset;
use qemu_tests::agent::trace;
use qemu_tests::frame::{Frame, ICMPV6, UDP};
use qemu_tests::listing::judged;
use qemu_tests::{Case, Result, case, fail, require};

use crate::gateway::{DIG, Gateway, NFT, altered, need, overlay};

const SEALED: &str = "etc/clawgress/sealed.nft";
/// Frames a second of the attack; each kind of it comes by several times a second.
const RATE: u32 = 1000;

fn measured(gateway: &Gateway) -> Ruleset {
    judged(|command| gateway.host.run(command).unwrap_or_default())
}

/// The agent's frames that the attack brings to the outside wire while `body` runs.
fn escaped(case: &Case, gateway: &Gateway, body: impl FnOnce() -> Result) -> Result<Vec<Frame>> {
    let frames = gateway.outside_while(case, || {
        let hammer = gateway.agent.hammer(RATE)?;
        let outcome = body();
        let attack = hammer.stop()?;
        require!(
            attack.rounds > 0,
            "the attack did not get through its repertoire once: {attack:?}"
        );
        outcome
    })?;
    Ok(frames
        .into_iter()
        .filter(|frame| trace(frame).is_some())
        .collect())
}

fn nothing_escapes(case: &Case, gateway: &Gateway, body: impl FnOnce() -> Result) -> Result {
    match escaped(case, gateway, body)?.as_slice() {
        [] => Ok(()),
        [first, ..] => fail!("a packet of the agent got out: {}", first.describe()),
    }
}

/// As the body of a capture: just wait.
fn seconds(count: u64) -> impl FnOnce() -> Result {
    move || {
        std::thread::sleep(Duration::from_secs(count));
        Ok(())
    }
}

fn packets(gateway: &Gateway, counter: &str) -> Result<u64> {
    let listed = gateway
        .host
        .run(&format!("{} list counter inet clawgress {counter}", NFT.0))?;
    let mut words = listed
        .split_whitespace()
        .skip_while(|word| *word != "packets")
        .skip(1);
    match words.next().and_then(|number| number.parse().ok()) {
        Some(number) => Ok(number),
        None => fail!("nft lists no packets for the counter {counter}: {listed}"),
    }
}

#[test]
fn sealed_nothing_of_an_agent_gets_out_and_reloading_opens_no_gap() {
    case("net-sealed", |case| {
        need(&[NFT])?;
        let gateway = Gateway::new()?;
        case.step(
            "without a ruleset the box forwards: the lab can show an escape",
            || {
                let frames = escaped(case, &gateway, seconds(2))?;
                require!(
                    frames.len() > 100,
                    "only {} frames got through an open box",
                    frames.len()
                );
                Ok(())
            },
        )?;
        let sealed = overlay(SEALED);
        case.step("the sealed ruleset loads and is recognised", || {
            gateway.load(&sealed)?;
            let ruleset = measured(&gateway);
            require!(
                ruleset.loaded && ruleset.generation == 0,
                "judged as {ruleset:?}"
            );
            Ok(())
        })?;
        case.check("sealed, nothing gets out", || {
            nothing_escapes(case, &gateway, seconds(3))?;
            let dropped = packets(&gateway, "dropped_transit")?;
            require!(
                dropped > 100,
                "only {dropped} packets met the wall: the attack went elsewhere"
            );
            Ok(())
        });
        case.check(
            "nothing gets out while the ruleset is loaded again and again",
            || {
                let mut reloads = 0;
                nothing_escapes(case, &gateway, || {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_secs(4) {
                        gateway.load(&sealed)?;
                        reloads += 1;
                    }
                    Ok(())
                })?;
                case.note(&format!("{reloads} reloads under attack"));
                require!(reloads > 20, "only {reloads} reloads");
                Ok(())
            },
        );
        Ok(())
    });
}

#[test]
fn either_wall_against_forwarding_holds_alone() {
    case("net-walls", |case| {
        need(&[NFT])?;
        let gateway = Gateway::new()?;
        let walls = [
            (
                "the forward chain alone",
                "counter name dropped_transit drop",
                "counter name dropped_transit",
            ),
            (
                "the prerouting chain alone",
                "type filter hook forward priority filter; policy drop;",
                "type filter hook forward priority filter; policy accept;",
            ),
        ];
        for (what, from, to) in walls {
            case.check(what, || {
                let ruleset = gateway.file("one-wall.nft", &altered(SEALED, &[(from, to)])?)?;
                gateway.load(&ruleset)?;
                nothing_escapes(case, &gateway, seconds(3))
            });
        }
        case.check(
            "with neither of them it gets out: the two are what holds",
            || {
                let neither = altered(
                    SEALED,
                    &[(walls[0].1, walls[0].2), (walls[1].1, walls[1].2)],
                )?;
                gateway.load(&gateway.file("no-wall.nft", &neither)?)?;
                let frames = escaped(case, &gateway, seconds(2))?;
                require!(
                    !frames.is_empty(),
                    "nothing got out although nothing stood in the way"
                );
                Ok(())
            },
        );
        Ok(())
    });
}

/// Everything that a program on the box might try, one second each; whether it works is seen on the wire.
fn speak(gateway: &Gateway) {
    let asks = [
        format!("{} +time=1 +tries=1 @8.8.8.8 example.com", DIG.0),
        format!(
            "{} +time=1 +tries=1 @2606:4700:4700::1111 example.com",
            DIG.0
        ),
        format!("{} +tcp +time=1 +tries=1 @1.1.1.1 example.com", DIG.0),
        // From the box's own address outside to itself: over loopback, and still not loopback traffic.
        format!("{} +time=1 +tries=1 @203.0.113.10 example.com", DIG.0),
        format!(
            "{} +time=1 +tries=1 -p 123 @198.51.100.80 example.com",
            DIG.0
        ),
        format!("{} +time=1 +tries=1 -p 67 @203.0.113.1 example.com", DIG.0),
        format!(
            "{} +time=1 +tries=1 -p 4460 +tcp @198.51.100.80 example.com",
            DIG.0
        ),
    ];
    for ask in asks {
        // Denied or echoed back as nonsense: either way not an answer.
        let _ = gateway.host.run(&ask);
    }
}

/// IPv6 neighbourhood: what a card says to its own wire and no router passes on.
fn is_neighbourhood(frame: &Frame) -> bool {
    frame.protocol == Some(ICMPV6) && matches!(frame.icmp_type, Some(133 | 135 | 136 | 143))
}

/// Frames with an IP packet that is more than neighbourhood.
fn talk(frames: Vec<Frame>) -> Vec<Frame> {
    frames
        .into_iter()
        .filter(|frame| frame.protocol.is_some() && !is_neighbourhood(frame))
        .collect()
}

#[test]
fn the_box_itself_speaks_to_nobody() {
    case("net-output", |case| {
        need(&[NFT, DIG])?;
        let gateway = Gateway::new()?;
        let speaking = || {
            speak(&gateway);
            Ok(())
        };
        case.step("without a ruleset it does speak", || {
            let said = talk(gateway.outside_while(case, speaking)?);
            require!(said.len() >= 6, "only {} packets seen", said.len());
            Ok(())
        })?;
        gateway.load(&overlay(SEALED))?;
        case.check("sealed it does not, whatever the port", || {
            match talk(gateway.outside_while(case, speaking)?).as_slice() {
                [] => Ok(()),
                [first, ..] => fail!("the box said {}", first.describe()),
            }
        });
        Ok(())
    });
}

#[test]
fn chrony_alone_reaches_time_servers_and_hears_them() {
    case("net-time", |case| {
        need(&[NFT])?;
        let gateway = Gateway::new()?;
        // An echo of what was sent proves both ways; `timeout` fails if there is none.
        let ask = |port: u16| {
            let script = gateway.file(
                "ask.sh",
                &format!("exec 3<>/dev/udp/198.51.100.80/{port} && echo time >&3 && timeout 2 head -c 5 <&3\n"),
            )?;
            gateway.host.run(&format!("bash {}", script.display()))
        };
        gateway.load(&overlay(SEALED))?;
        case.check("another user is not heard outside", || {
            let frames = gateway.outside_while(case, || {
                let _ = ask(123);
                Ok(())
            })?;
            require!(
                talk(frames).is_empty(),
                "a packet to port 123 got out that is not chrony's"
            );
            Ok(())
        });
        // Inside the lab's namespace there is one user, number 0: let it be chrony.
        let root_is_chrony = altered(SEALED, &[("define chrony = 962", "define chrony = 0")])?;
        gateway.load(&gateway.file("chrony.nft", &root_is_chrony)?)?;
        case.check("chrony asks and gets its answer", || {
            let answer = ask(123)?;
            require!(answer.starts_with("time"), "the echo was {answer:?}");
            Ok(())
        });
        case.check("chrony reaches no other port", || {
            let frames = gateway.outside_while(case, || {
                let _ = ask(53);
                Ok(())
            })?;
            let to_dns =
                |frame: &Frame| frame.protocol == Some(UDP) && frame.destination_port == Some(53);
            require!(!frames.iter().any(to_dns), "a packet to port 53 got out");
            Ok(())
        });
        case.check(
            "nobody outside gets in by sending from a time server's port",
            || {
                let before = packets(&gateway, "dropped_input")?;
                let stranger = format!(
                    "{} +time=1 +tries=1 -b 203.0.113.1#123 -p 5353 @203.0.113.10 x",
                    DIG.0
                );
                need(&[DIG])?;
                // The helper of the lab holds port 123 on all addresses there; any other will do as well.
                let _ = gateway
                    .internet
                    .host
                    .run(&stranger.replace("#123", "#4460"));
                require!(
                    packets(&gateway, "dropped_input")? > before,
                    "the stranger's packet was not dropped"
                );
                Ok(())
            },
        );
        Ok(())
    });
}

#[test]
fn what_is_not_a_loaded_sealed_ruleset_is_not_taken_for_one() {
    case("net-judge", |case| {
        need(&[NFT])?;
        let gateway = Gateway::new()?;
        let sealed = overlay(SEALED);
        let tampering = [
            ("add table inet clawgress { flags dormant ; }", "dormant"),
            ("add rule inet clawgress forward accept", "accept"),
            ("flush set inet clawgress generation", "generation"),
            (
                "add chain inet clawgress output { policy accept ; }",
                "accepts by default",
            ),
            ("flush chain inet clawgress forward", ""),
        ];
        for (change, expected) in tampering {
            case.check(change, || {
                gateway.load(&sealed)?;
                gateway.load(&gateway.file("change.nft", &format!("{change}\n"))?)?;
                let ruleset = measured(&gateway);
                // An emptied forward chain still drops by its policy.
                require!(
                    ruleset.loaded == expected.is_empty(),
                    "judged as {ruleset:?}"
                );
                require!(
                    ruleset.detail.contains(expected),
                    "the detail is {:?}",
                    ruleset.detail
                );
                Ok(())
            });
        }
        Ok(())
    });
}
