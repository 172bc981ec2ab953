//! The machines around a booted box that enforces: an agent inside, a small internet outside, all that passes outside on
//! record; and what an agent says and hears.

use std::time::Duration;

use qemu_tests::agent::{Agent, BOX_LAN_MAC, BOX_WAN_MAC};
use qemu_tests::capture::Capture;
use qemu_tests::lab::{Internet, Lab};
use qemu_tests::machine::{Attach, Machine};
use qemu_tests::media::Shelf;
use qemu_tests::names::address_of;
use qemu_tests::vm::Vm;
use qemu_tests::{Case, Dist, Result, fail, require};

use crate::every_step_is_ok;

pub(crate) struct Scene {
    pub(crate) vm: Vm,
    pub(crate) agent: Agent,
    pub(crate) outside: Capture,
    pub(crate) internet: Internet,
    pub(crate) _lab: Lab,
}

impl Scene {
    /// A box that has booted with this configuration, and has put it into force.
    pub(crate) fn new(case: &Case, configuration: &str) -> Result<Self> {
        let (dist, shelf) = (Dist::from_env()?, Shelf::new()?);
        let volume = shelf.config_volume(configuration)?;
        let lab = Lab::new()?;
        let (outside, inside) = (lab.wire("outside")?, lab.wire("inside")?);
        let internet = Internet::on(&lab, &outside)?;
        let agent = Agent::on(&lab, &inside)?;
        let (wan, lan) = (lab.tap(&outside)?, lab.tap(&inside)?);
        let captured = lab.capture(case, &wan)?;
        let mut vm = Machine::quick(&dist)
            .medium(Attach::Virtio, &volume)
            .tap_nic(&lab, &wan, &BOX_WAN_MAC.to_string())
            .tap_nic(&lab, &lan, &BOX_LAN_MAC.to_string())
            .power_on(case)?;
        let report = case.step("it reaches enforcing", || vm.wait_enforcing())?;
        every_step_is_ok(&report)?;
        case.step("the committed revision is in force", || {
            vm.run_until_ok(
                "/usr/lib/clawgress/appliance-init status | grep -q 'is in force'",
                Duration::from_secs(40),
            )
            .map(drop)
        })?;
        Ok(Self {
            vm,
            agent,
            outside: captured,
            internet,
            _lab: lab,
        })
    }

    /// What the agent's own resolver library would see.
    pub(crate) fn dig(&self, question: &str) -> Result<String> {
        self.agent
            .host
            .run(&format!("/usr/bin/dig +time=5 +tries=2 {question}"))
    }

    pub(crate) fn resolves(&self, name: &str, at: &str) -> Result {
        let address = address_of(name).0.to_string();
        let answer = self.dig(&format!("+short {name} @{at}"))?;
        require!(
            answer.trim() == address,
            "{name} at {at}: {answer:?} instead of {address}"
        );
        Ok(())
    }

    pub(crate) fn is_denied(&self, question: &str, reason: &str) -> Result {
        let answer = self.dig(question)?;
        require!(answer.contains("status: NXDOMAIN"), "{question}:\n{answer}");
        require!(
            answer.contains("EDE: 15") && answer.contains(reason),
            "{question} is denied without the reason {reason}:\n{answer}"
        );
        Ok(())
    }

    pub(crate) fn reaches(&self, address: &str) -> Result {
        let said = self.agent.host.dial(address)?;
        require!(
            said.starts_with("clawgress fake internet at "),
            "{address} said {said:?}"
        );
        Ok(())
    }

    pub(crate) fn does_not_reach(&self, address: &str) -> Result {
        if let Ok(said) = self.agent.host.dial(address) {
            fail!("{address} answered the agent: {said:?}");
        }
        Ok(())
    }

    pub(crate) fn commit(&mut self, policy: &str) -> Result {
        self.vm
            .run_ok(&format!("printf '%s' '{policy}' > /tmp/policy.json"))?;
        self.vm
            .run_within(
                "clawgress import --policy /tmp/policy.json",
                Duration::from_secs(30),
            )
            .and_then(|output| {
                require!(output.status == 0, "the import ended with {output:?}");
                Ok(())
            })
    }
}
