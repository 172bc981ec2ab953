//! Loopback is no common room: the ports of the box's own services are open to the users whose business they are, sealed
//! as well as with a policy.

use clawgress_enforcer::plan::Carry;
use qemu_tests::{Result, case, require};

use crate::gateway::{Gateway, NFT, need, overlay};
use crate::plan::Planned;

const SEALED: &str = "etc/clawgress/sealed.nft";
const POLICY: &str = r#"{"version": 1, "allow": {"domains": ["api.example.com"], "ports": [443]}}"#;
/// Anybody.
const STRANGER: u32 = 12_345;

/// (user, protocol, port, whether it may begin to speak to it).
const TALKS: [(u32, &str, u16, bool); 17] = [
    (STRANGER, "udp", 53, false),
    (STRANGER, "tcp", 53, false),
    (STRANGER, "tcp", 8440, false),
    (STRANGER, "tcp", 8447, false),
    (STRANGER, "tcp", 8450, false),
    (STRANGER, "udp", 10053, false),
    (STRANGER, "udp", 10054, false),
    // The front itself is for whoever has a key.
    (STRANGER, "tcp", 443, true),
    (STRANGER, "tcp", 2222, true),
    (0, "tcp", 8440, true),
    // haproxy, clawgress-dns, -gateway, -policy, chrony
    (964, "tcp", 8440, true),
    (964, "udp", 10054, true),
    (972, "udp", 53, true),
    (973, "tcp", 8450, true),
    (970, "udp", 10053, true),
    (962, "udp", 53, true),
    (972, "tcp", 8440, false),
];

fn dropped(gateway: &Gateway) -> Result<u64> {
    let listed = gateway.host.run(&format!(
        "{} list counter inet clawgress dropped_output",
        NFT.0
    ))?;
    let words: Vec<&str> = listed.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "packets");
    let number = at.and_then(|at| words.get(at + 1)?.parse().ok());
    number.ok_or_else(|| qemu_tests::Error::other(format!("no packets in: {listed}")))
}

fn everybody_has_his_own(gateway: &Gateway) -> Result {
    for (user, protocol, port, may) in TALKS {
        let script = gateway.file(
            "speak.sh",
            &format!(
                "exec setpriv --reuid {user} --regid {user} --clear-groups \\\n\
                 timeout 0.5 bash -c 'exec 3<>/dev/{protocol}/127.0.0.1/{port} && echo >&3'\n"
            ),
        )?;
        let before = dropped(gateway)?;
        // Nobody listens: whoever is let through is refused at once, and who is not waits for nothing.
        let _ = gateway.host.run(&format!("bash {}", script.display()));
        let stopped = dropped(gateway)? > before;
        require!(
            stopped != may,
            "user {user} to {protocol} port {port}: stopped {stopped}"
        );
    }
    Ok(())
}

#[test]
fn a_stranger_on_the_box_reaches_none_of_its_services() {
    case("net-loopback", |case| {
        need(&[NFT])?;
        let scene = Planned::new()?;
        let gateway = &scene.gateway;
        case.step("sealed", || {
            gateway.load(&overlay(SEALED))?;
            everybody_has_his_own(gateway)
        })?;
        case.step("with a policy", || {
            scene.enforce(POLICY, 1, Carry::default())?;
            everybody_has_his_own(gateway)
        })
    });
}
