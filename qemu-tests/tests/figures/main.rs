//! What enforcement costs, measured with everything that enforces: large policies, and names judged on the wire.
//!
//! Not part of the gate: `cargo xtask bench enforce` runs it, built for release, and prints the figures.

mod large;
mod wire;

use qemu_tests::agent::{Agent, box_between};
use qemu_tests::configuration::enforcing;
use qemu_tests::figures::{Figure, Must};
use qemu_tests::lab::{Internet, Lab, Wire};
use qemu_tests::stack::Stack;
use qemu_tests::tools::{HAPROXY, NAMED, NFT, need};
use qemu_tests::{Case, Result};

const POLICY: &str = "domain first.example";

/// A box under its first policy, an agent behind it, a fake internet before it.
pub(crate) struct Scene {
    pub(crate) stack: Stack,
    pub(crate) agent: Agent,
    pub(crate) outside: Wire,
    pub(crate) inside: Wire,
    pub(crate) lab: Lab,
    _internet: Internet,
}

impl Scene {
    pub(crate) fn new(case: &Case) -> Result<Self> {
        need(&[NFT, NAMED, HAPROXY])?;
        let lab = Lab::new()?;
        let (outside, inside) = (lab.wire("eth0")?, lab.wire("eth1")?);
        let internet = Internet::on(&lab, &outside)?;
        let agent = Agent::on(&lab, &inside)?;
        let host = box_between(&lab, &outside, &inside)?;
        let stack = Stack::start(
            &lab,
            host,
            &enforcing(POLICY),
            &case.log_directory("daemons")?,
        )?;
        stack.wait_for_revision(1)?;
        Ok(Self {
            stack,
            agent,
            outside,
            inside,
            lab,
            _internet: internet,
        })
    }
}

/// A figure without a peer.
pub(crate) fn at_most(name: &'static str, value: f64, unit: &'static str, most: f64) -> Figure {
    Figure {
        name,
        value,
        unit,
        must: Must::AtMost(most),
        peer: None,
    }
}
