//! Owns the agent of the lab: its place on the inside wire, its attack, and how its packets are recognised.

use std::net::IpAddr;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::frame::{Frame, Mac};
use crate::lab::{Host, Internet, Lab, Wire};
use crate::process::{Helper, words};

/// The box's card on the outside wire.
pub const BOX_WAN_MAC: Mac = Mac([0x52, 0x54, 0, 0xc1, 0xa0, 1]);
/// The box's card on the inside wire.
pub const BOX_LAN_MAC: Mac = Mac([0x52, 0x54, 0, 0xc1, 0xa0, 2]);
/// The box's addresses on the inside wire, with their prefix length.
pub const BOX_LAN: [&str; 2] = ["10.66.0.1/24", "fd66::1/64"];

const AGENT_MAC: Mac = Mac([2, 0xa9, 0, 0, 0, 7]);
const AGENT_ADDRESSES: [&str; 2] = ["10.66.0.7/24", "fd66::7/64"];
/// In every frame of the attack; a domain label too, so all in small letters.
const MARKER: &str = "cgmarker7f3a";

pub struct Agent {
    pub host: Host,
    wire: Wire,
}

impl Agent {
    /// Puts an agent on the inside wire, whose default route is the box.
    pub fn on(lab: &Lab, wire: &Wire) -> Result<Self> {
        let host = lab.host("agent")?;
        lab.plug(&host, wire, AGENT_MAC, &AGENT_ADDRESSES)?;
        host.ip("-4 route add default via 10.66.0.1")?;
        host.ip("-6 route add default via fd66::1")?;
        Ok(Self {
            host,
            wire: wire.clone(),
        })
    }

    /// Starts to send, at once and whatever the box does, all that must not pass.
    pub fn hammer(&self, frames_a_second: u32) -> Result<Hammer> {
        let mut verb = words(&format!(
            "hammer --interface {} --rate {frames_a_second} --mac {AGENT_MAC} --box-mac {BOX_LAN_MAC} \
             --address 10.66.0.7 --address6 fd66::7 --box-address 10.66.0.1 --box-address6 fd66::1 --marker {MARKER}",
            self.wire.name()
        ));
        for target in ["198.51.100.80", "1.1.1.1", "203.0.113.1"] {
            verb.extend(["--target".to_owned(), target.to_owned()]);
        }
        for target in ["2606:4700:4700::1111", "2001:db8:f00d::1"] {
            verb.extend(["--target6".to_owned(), target.to_owned()]);
        }
        // Another host of the LAN, the box's own address outside, loopback, a host outside.
        let lease = Internet::LEASE.to_string();
        for spoof in ["10.66.0.99", &lease, "127.0.0.1", "198.51.100.80"] {
            verb.extend(["--spoof".to_owned(), spoof.to_owned()]);
        }
        self.host.start(&verb).map(Hammer)
    }
}

/// The attack under way.
pub struct Hammer(Helper);

/// What the attack did.
#[derive(Debug, Deserialize)]
pub struct Attack {
    /// Frames that the wire took.
    pub sent: u64,
    /// Frames that the wire did not take.
    pub refused: u64,
    /// Times that every kind was sent.
    pub rounds: u64,
}

impl Hammer {
    pub fn stop(self) -> Result<Attack> {
        let said = self.0.finish()?;
        serde_json::from_str(&said)
            .map_err(|error| Error::other(format!("the hammer ended with {said:?}: {error}")))
    }
}

/// Why a frame is the agent's, or was caused by one: its hardware address, a source address of the inside network,
/// or the marker. `None`: it is not.
pub fn trace(frame: &Frame) -> Option<&'static str> {
    if frame.source_mac == AGENT_MAC {
        return Some("it has the agent's hardware address");
    }
    let inside = match frame.source {
        Some(IpAddr::V4(address)) => address.octets()[..3] == [10, 66, 0],
        Some(IpAddr::V6(address)) => address.segments()[0] == 0xfd66,
        None => false,
    };
    if inside {
        return Some("its source is an address of the inside network");
    }
    // A resolver may change the case of a name.
    let lower = frame.bytes.to_ascii_lowercase();
    lower
        .windows(MARKER.len())
        .any(|window| window == MARKER.as_bytes())
        .then_some("it carries the agent's marker")
}

/// The box without a VM: a host between an outside and an inside wire.
pub fn box_between(lab: &Lab, outside: &Wire, inside: &Wire) -> Result<Host> {
    let host = lab.host("box")?;
    let lease = format!("{}/24", Internet::LEASE);
    lab.plug(
        &host,
        outside,
        BOX_WAN_MAC,
        &[&lease, "2001:db8:f00d::10/64"],
    )?;
    lab.plug(&host, inside, BOX_LAN_MAC, &BOX_LAN)?;
    host.ip(&format!(
        "-4 route replace default via {}",
        Internet::ROUTER
    ))?;
    host.ip("-6 route replace default via 2001:db8:f00d::1")?;
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Ip, UDP, ethernet, udp};

    fn frame(mac: Mac, source: &str, payload: &[u8]) -> Frame {
        let ip = Ip::V4(
            source.parse().expect("an address"),
            "1.1.1.1".parse().expect("an address"),
        );
        let bytes = ethernet(
            mac,
            Mac::BROADCAST,
            ip.ethertype(),
            &ip.packet(UDP, &udp(&ip, 1, 53, payload)),
        );
        Frame::parse(&bytes).expect("a frame")
    }

    #[test]
    fn each_trace_is_enough() {
        assert!(trace(&frame(AGENT_MAC, "203.0.113.10", b"")).is_some());
        assert!(trace(&frame(BOX_WAN_MAC, "10.66.0.99", b"")).is_some());
        assert!(trace(&frame(BOX_WAN_MAC, "203.0.113.10", b"xxCGmarker7F3Axx")).is_some());
    }

    #[test]
    fn the_boxs_own_traffic_is_not_the_agents() {
        assert_eq!(trace(&frame(BOX_WAN_MAC, "203.0.113.10", b"ntp")), None);
    }
}
