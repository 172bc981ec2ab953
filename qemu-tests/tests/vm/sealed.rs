//! Nothing of an agent gets out: not while the box is off, boots, loses a daemon, restarts or ends.

use std::time::{Duration, Instant};

use qemu_tests::agent::{Agent, BOX_LAN, BOX_LAN_MAC, BOX_WAN_MAC, trace};
use qemu_tests::frame::{ARP, Frame, ICMP, ICMPV6, TCP, UDP};
use qemu_tests::lab::{Internet, Lab};
use qemu_tests::machine::{Attach, Machine};
use qemu_tests::media::Shelf;
use qemu_tests::vm::Vm;
use qemu_tests::{Dist, Result, case, fail, require};

use crate::lifecycle::switched_off;
use crate::{every_step_is_ok, no_unit_has_failed, the_kernel_is_sealed};

/// Both cards in use and a time server to talk to: the more the box does outside, the more the capture proves.
const CONFIG: &str = "interfaces {
    ethernet eth0 {
        address dhcp
        role wan
    }
    ethernet eth1 {
        address 10.66.0.1/24
        address fd66::1/64
        role lan
    }
}
system {
    ntp {
        server 203.0.113.1
    }
}
";

/// Every daemon that has a part in enforcement, and its unit.
const DAEMONS: [&str; 8] = [
    "named",
    "haproxy",
    "clawgress-dns",
    "clawgress-enforcer",
    "clawgress-policy",
    "systemd-networkd",
    "chrony",
    "appliance-init",
];

/// Frames a second: much for an emulated box that boots meanwhile, little for the machine that emulates it.
const RATE: u32 = 150;

#[test]
fn not_one_packet_of_an_agent_gets_out() {
    case("sealed", |case| {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let volume = shelf.config_volume(CONFIG)?;
        let lab = Lab::new()?;
        let (outside, inside) = (lab.wire("outside")?, lab.wire("inside")?);
        let _internet = Internet::on(&lab, &outside)?;
        let agent = Agent::on(&lab, &inside)?;
        let (wan, lan) = (lab.tap(&outside)?, lab.tap(&inside)?);
        let captured_outside = lab.capture(case, &wan)?;
        let captured_inside = lab.capture(case, &lan)?;
        let hammer = agent.hammer(RATE)?;

        let mut vm = Machine::quick(&dist)
            .medium(Attach::Virtio, &volume)
            .tap_nic(&lab, &wan, &BOX_WAN_MAC.to_string())
            .tap_nic(&lab, &lan, &BOX_LAN_MAC.to_string())
            .power_on(case)?;
        let report = case.step("it reaches enforcing under attack", || vm.wait_enforcing())?;
        every_step_is_ok(&report)?;
        case.step("it has its address outside", || on_the_wire(&mut vm))?;
        case.check("honest tries of the agent end in nothing", || tries(&agent));
        for daemon in DAEMONS {
            case.check(&format!("{daemon}, killed, comes back"), || {
                comes_back(&mut vm, daemon)
            });
        }
        case.check(
            "while the resolver is stopped, the console says sealed",
            || {
                let sealed = "the box is now sealed: named";
                let before = vm.serial().text().matches(sealed).count();
                vm.run_ok("systemctl stop named")?;
                is_said_again(&vm, sealed, before)?;
                vm.run_ok("systemctl start named")?;
                vm.wait_enforcing().map(drop)
            },
        );
        case.check("a ruleset that is flushed is loaded again", || {
            vm.run_ok("nft flush ruleset")?;
            heals(&mut vm, "nft list chain inet clawgress forward")
        });
        case.check("forwarding that is switched on is switched off", || {
            vm.run_ok("sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")?;
            heals(&mut vm, "[ $(sysctl -n net.ipv4.ip_forward)$(sysctl -n net.ipv6.conf.all.forwarding) = 00 ]")
        });
        case.check("no unit has failed", || no_unit_has_failed(&mut vm));
        case.check("the attack has reached the box's kernel", || {
            let counter = vm.run_ok("nft list counter inet clawgress dropped_transit")?;
            require!(!counter.contains("packets 0 "), "{counter}");
            Ok(())
        });
        case.step("it restarts", || vm.reboot())?;
        case.step("it reaches enforcing again", || vm.wait_enforcing())?;
        case.check("honest tries of the agent end in nothing again", || {
            tries(&agent)
        });
        case.check("poweroff switches it off", || {
            vm.serial().send("poweroff\n")?;
            switched_off(case, &mut vm)
        });
        let attack = hammer.stop()?;
        drop(vm);

        let (outside, inside) = (captured_outside.stop()?, captured_inside.stop()?);
        case.note(&format!(
            "{attack:?}; {} frames at the box inside, {} outside",
            inside.len(),
            outside.len()
        ));
        case.check("the attack was one", || {
            let arrived = inside.iter().filter(|frame| trace(frame).is_some()).count() as u64;
            require!(
                attack.rounds >= 20 && arrived * 10 > attack.sent * 9,
                "{attack:?}, of which {arrived} arrived at the box"
            );
            Ok(())
        });
        case.check("the box was heard outside", || was_heard(&outside));
        case.check("nothing outside came from the agent", || {
            let leaks = described(&outside, |frame| trace(frame).is_some());
            require!(
                leaks.is_empty(),
                "{} frames leaked:\n{}",
                leaks.len(),
                first(&leaks)
            );
            Ok(())
        });
        case.check("the box said nothing outside but what it must", || {
            let strange = described(&outside, |frame| {
                frame.source_mac == BOX_WAN_MAC && !is_expected(frame)
            });
            require!(
                strange.is_empty(),
                "{} frames:\n{}",
                strange.len(),
                first(&strange)
            );
            Ok(())
        });
        Ok(())
    });
}

/// The box holds its lease: what it would let out could go.
fn on_the_wire(vm: &mut Vm) -> Result {
    let lease = Internet::LEASE;
    vm.run_until_ok(
        &format!("ip -4 -brief address show eth0 | grep -q {lease}"),
        Duration::from_secs(10),
    )?;
    vm.run_ok("ip -4 route show default | grep -q 203.0.113.1")?;
    vm.run_ok("ip -brief address show eth1 | grep 10.66.0.1/24 | grep -q fd66::1/64")
        .map(drop)
}

/// A host outside, and what the box itself might offer on this wire.
fn tries(agent: &Agent) -> Result {
    for to in ["198.51.100.80:443", "10.66.0.1:443", "[fd66::1]:53"] {
        if let Ok(said) = agent.host.dial(to) {
            fail!("{to} answered the agent: {said:?}");
        }
    }
    Ok(())
}

/// Kills a daemon without warning. Nothing may be forwarded meanwhile, and all must be well again after.
fn comes_back(vm: &mut Vm, unit: &str) -> Result {
    let pid = format!("systemctl show --property MainPID --value {unit}");
    let first = vm.run_ok(&pid)?.trim().to_owned();
    require!(first != "0", "{unit} was not running");
    vm.run_ok(&format!("kill -KILL {first}"))?;
    the_kernel_is_sealed(vm)?;
    vm.run_until_ok(
        &format!(
            "p=$({pid}); [ $p != 0 ] && [ $p != {first} ] && systemctl is-active --quiet {unit}"
        ),
        Duration::from_secs(10),
    )?;
    vm.wait_enforcing().map(drop)
}

/// Waits until the console has said the words once more than `before`, whatever else was read meanwhile.
fn is_said_again(vm: &Vm, words: &str, before: usize) -> Result {
    let deadline = Instant::now() + vm.scale(Duration::from_secs(5));
    while vm.serial().text().matches(words).count() <= before {
        require!(
            Instant::now() < deadline,
            "the console never said {words:?}; its last lines:\n{}",
            vm.serial().last_lines()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Ruleset and forwarding are two walls. One was torn down by root; it must be up again by itself, and all well.
fn heals(vm: &mut Vm, whole: &str) -> Result {
    vm.run_until_ok(whole, Duration::from_secs(10))?;
    vm.wait_enforcing()?;
    the_kernel_is_sealed(vm)
}

/// The capture works and the box was awake: it asked for an address and for the time.
fn was_heard(frames: &[Frame]) -> Result {
    let from_box = |port: u16| {
        frames
            .iter()
            .filter(|frame| frame.source_mac == BOX_WAN_MAC && frame.destination_port == Some(port))
            .count()
    };
    let (dhcp, ntp) = (from_box(67), from_box(123));
    require!(dhcp >= 2, "only {dhcp} DHCP frames in two boots");
    require!(ntp >= 1, "it never asked for the time");
    Ok(())
}

/// Address resolution, leases, neighbours, time.
fn is_expected(frame: &Frame) -> bool {
    match (frame.ethertype, frame.protocol) {
        (ARP, _) => true,
        (_, Some(UDP)) => matches!(
            (frame.source_port, frame.destination_port),
            (Some(68), Some(67)) | (Some(546), Some(547)) | (_, Some(123))
        ),
        // Router and neighbour solicitation, neighbour advertisement, multicast membership.
        (_, Some(ICMPV6)) => matches!(frame.icmp_type, Some(133 | 135 | 136 | 143)),
        _ => false,
    }
}

fn described(frames: &[Frame], wanted: impl Fn(&Frame) -> bool) -> Vec<String> {
    frames
        .iter()
        .filter(|frame| wanted(frame))
        .map(Frame::describe)
        .collect()
}

fn first(lines: &[String]) -> String {
    lines[..lines.len().min(20)].join("\n")
}

/// The tester is tested: the same attack through a router that forwards everything is seen by the same capture.
#[test]
fn a_plain_router_in_the_boxs_place_is_caught() {
    case("sealed-control", |case| {
        let lab = Lab::new()?;
        let (outside, inside) = (lab.wire("outside")?, lab.wire("inside")?);
        let internet = Internet::on(&lab, &outside)?;
        let agent = Agent::on(&lab, &inside)?;
        let router = lab.host("router")?;
        let wan = ["203.0.113.10/24", "2001:db8:f00d::10/64"];
        lab.plug(&router, &outside, BOX_WAN_MAC, &wan)?;
        lab.plug(&router, &inside, BOX_LAN_MAC, &BOX_LAN)?;
        router.forward_everything()?;
        router.ip("-4 route replace default via 203.0.113.1")?;
        router.ip("-6 route replace default via 2001:db8:f00d::1")?;
        internet.route("10.66.0.0/24", "203.0.113.10")?;
        internet.route("fd66::/64", "2001:db8:f00d::10")?;

        let capture = lab.capture_at(case, &router, &outside)?;
        let hammer = agent.hammer(1000)?;
        for host in ["198.51.100.80:443", "[2606:4700:4700::1111]:443"] {
            case.step(&format!("the agent hears {host}"), || {
                let said = agent.host.dial(host)?;
                require!(
                    said.starts_with("clawgress fake internet at "),
                    "it said {said:?}"
                );
                Ok(())
            })?;
        }
        std::thread::sleep(Duration::from_secs(2));
        let attack = hammer.stop()?;
        let seen: Vec<Frame> = capture
            .stop()?
            .into_iter()
            .filter(|frame| trace(frame).is_some())
            .collect();
        case.note(&format!("{attack:?}, {} frames seen outside", seen.len()));
        for protocol in [TCP, UDP, ICMP, ICMPV6] {
            require!(
                seen.iter().any(|frame| frame.protocol == Some(protocol)),
                "not one packet of protocol {protocol} was seen outside: the capture or the attack is blind to it"
            );
        }
        require!(
            seen.len() as u64 > attack.sent / 4,
            "only {} of {} frames were seen outside of a router that forwards everything",
            seen.len(),
            attack.sent
        );
        Ok(())
    });
}
