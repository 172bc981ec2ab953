//! The box of the plan's tests: a policy is compiled and its plan loaded as the enforcer would, by this machine's own
//! nft, ip and tc. Pins are given by the test instead of a resolver.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use clawgress_config::Cidr;
use clawgress_enforcer::plan::{self, CarriedPin, Carry, Leaf, Plan, Touched};
use clawgress_policy::{Card, Index, Logging, Moment, Network, Revision};
use qemu_tests::agent::BOX_LAN;
use qemu_tests::frame::Mac;
use qemu_tests::lab::Host;
use qemu_tests::process::{Helper, words};
use qemu_tests::{Error, Result, require};
use serde::Deserialize;
use serde_json::Value;

use crate::access;
use crate::gateway::{Gateway, NFT};

pub(crate) const IP: (&str, &str) = ("/usr/sbin/ip", "iproute2");
pub(crate) const TC: (&str, &str) = ("/usr/sbin/tc", "iproute2");
/// A port of the internet's with streams on it.
pub(crate) const STREAMS: u16 = 8443;
pub(crate) const NOON: i64 = 1_800_000_000;

/// How a long flow went, as one of its ends saw it.
#[derive(Debug, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) bytes: u64,
    pub(crate) intact: bool,
    pub(crate) end: String,
    pub(crate) seconds: f64,
}

pub(crate) fn outcome(line: &str) -> Result<Outcome> {
    serde_json::from_str(line)
        .map_err(|error| Error::other(format!("{line:?} is no outcome: {error}")))
}

fn cidr(text: &str) -> Result<Cidr> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        Some(Cidr {
            address: address.parse().ok()?,
            length: length.parse().ok()?,
        })
    });
    parsed.ok_or_else(|| Error::other(format!("{text} is no network")))
}

pub(crate) fn pin(principal: &str, name: &str, addresses: &[&str]) -> CarriedPin {
    CarriedPin {
        principal: principal.to_owned(),
        name: name.to_owned(),
        addresses: addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect::<BTreeSet<IpAddr>>(),
        leaving: false,
    }
}

pub(crate) fn carry(pins: &[CarriedPin]) -> Carry {
    Carry {
        pins: pins.to_vec(),
        ..Carry::default()
    }
}

/// A box with a policy in force.
pub(crate) struct Planned {
    pub(crate) gateway: Gateway,
    in_force: RefCell<Option<Plan>>,
    forgotten: Cell<bool>,
}

impl Planned {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            gateway: Gateway::new()?,
            in_force: RefCell::new(None),
            forgotten: Cell::new(false),
        })
    }

    pub(crate) fn compile(
        &self,
        policy: &str,
        moment: Moment,
        generation: u32,
        mut carry: Carry,
    ) -> Result<Plan> {
        let (policy, access) = access::read(policy)?;
        let addresses = BOX_LAN
            .into_iter()
            .map(cidr)
            .collect::<Result<Vec<Cidr>>>()?;
        let card = |name: &str, addresses: Vec<Cidr>| Card {
            name: name.to_owned(),
            addresses,
        };
        let revision = Revision {
            number: u64::from(generation),
            created: 0,
            enabled: true,
            policy,
            network: Network {
                wan: vec![card("outside", Vec::new())],
                lan: vec![card("inside", addresses)],
                ..Network::default()
            },
            time_zone: "UTC".to_owned(),
            trust_hardware_clock: false,
            logging: Logging {
                facility: "local0".to_owned(),
                deny_log: true,
            },
            name_servers: Vec::new(),
            access,
        };
        let index = Index::of(&revision).map_err(|error| Error::other(error.to_string()))?;
        if let Some(before) = &*self.in_force.borrow() {
            carry.meter = before.meter_objects();
        }
        Ok(plan::compile(&revision, &index, moment, generation, &carry))
    }

    /// Compiles and loads, as the enforcer does, and returns how long nft took.
    pub(crate) fn enforce(&self, policy: &str, generation: u32, carry: Carry) -> Result<Duration> {
        let plan = self.compile(policy, Moment::trusted(NOON), generation, carry)?;
        self.load(plan)
    }

    pub(crate) fn load(&self, plan: Plan) -> Result<Duration> {
        let before = self.in_force.take();
        let transaction = match &before {
            Some(before) if !self.forgotten.take() => {
                plan.transaction_after(before, &Touched::new())
            }
            _ => plan.transaction(),
        };
        for sysctl in &plan.host.before {
            let set = self
                .gateway
                .host
                .sysctl(sysctl.path.trim_start_matches("net/"), sysctl.value);
            if !sysctl.optional {
                set?;
            }
        }
        let file = self.gateway.file("plan.json", &as_root(&transaction)?)?;
        let began = std::time::Instant::now();
        self.gateway
            .host
            .run(&format!("{} -j -f {}", NFT.0, file.display()))?;
        let took = began.elapsed();
        for route in plan.host.routes() {
            let done = self
                .gateway
                .host
                .run(&format!("{} {}", IP.0, route.arguments));
            if !route.may_fail {
                done?;
            }
        }
        let shaping = plan
            .shaping
            .batch(before.as_ref().map(|before| &before.shaping), Leaf::Fifo);
        if !shaping.is_empty() {
            let file = self.gateway.file("tc.batch", &shaping)?;
            self.gateway
                .host
                .run(&format!("{} -batch {}", TC.0, file.display()))?;
        }
        self.in_force.replace(Some(plan));
        Ok(took)
    }

    /// The next plan is loaded as if nobody knew what is in force, but for the meter table.
    pub(crate) fn forget(&self) {
        self.forgotten.set(true);
    }

    /// Packets of a counter of the main table.
    pub(crate) fn packets(&self, counter: &str) -> Result<u64> {
        self.counted("clawgress", counter, "packets")
    }

    /// One number of one object, `0` if nothing was counted.
    pub(crate) fn counted(&self, table: &str, object: &str, unit: &str) -> Result<u64> {
        let listed = self
            .gateway
            .host
            .run(&format!("{} list counter inet {table} {object}", NFT.0))?;
        let mut words = listed
            .split_whitespace()
            .skip_while(|word| *word != unit)
            .skip(1);
        words
            .next()
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| Error::other(format!("nft lists no {unit} for {object}: {listed}")))
    }

    /// The counter of denials of a principal for a reason, in whichever table.
    pub(crate) fn denied(&self, principal: &str, reason: clawgress_policy::Reason) -> Result<u64> {
        let wanted = plan::What::Denied(reason);
        let in_force = self.in_force.borrow();
        let counted = in_force.iter().flat_map(|plan| &plan.counted);
        let mut total = 0;
        for object in
            counted.filter(|object| object.principal == principal && object.what == wanted)
        {
            total += self.counted(object.table, &object.object, "packets")?;
        }
        Ok(total)
    }

    /// Bytes or flows of a principal.
    pub(crate) fn metered(&self, principal: &str, what: &plan::What) -> Result<u64> {
        let in_force = self.in_force.borrow();
        let mut counted = in_force.iter().flat_map(|plan| &plan.counted);
        let object = counted
            .find(|object| object.principal == principal && object.what == *what)
            .ok_or_else(|| Error::other(format!("nothing counts {what:?} of {principal}")))?;
        let unit = if *what == plan::What::Flows {
            "packets"
        } else {
            "bytes"
        };
        self.counted(object.table, &object.object, unit)
    }

    /// Another machine on the agents' wire.
    pub(crate) fn neighbour(&self, name: &str, mac: Mac, addresses: &[&str]) -> Result<Host> {
        let host = self.gateway.lab.host(name)?;
        self.gateway
            .lab
            .plug(&host, &self.gateway.inside, mac, addresses)?;
        host.ip("-4 route add default via 10.66.0.1")?;
        if addresses.iter().any(|address| address.contains(':')) {
            host.ip("-6 route add default via fd66::1")?;
        }
        Ok(host)
    }

    /// Streams outside, at every address and the port of streams.
    pub(crate) fn streams(&self) -> Result<Helper> {
        self.gateway
            .internet
            .host
            .start(&words(&format!("streams {STREAMS}")))
    }

    /// The agent's end of a stream, once it is connected.
    pub(crate) fn stream(&self, what: &str) -> Result<Helper> {
        self.stream_verb(&format!("stream {what}"))
    }

    /// Any verb of the helper's on the agent.
    pub(crate) fn stream_verb(&self, verb: &str) -> Result<Helper> {
        self.gateway.agent.host.start(&words(verb))
    }

    /// Leaves the box without any ruleset.
    pub(crate) fn unload(&self) -> Result {
        self.in_force.replace(None);
        self.gateway
            .host
            .run(&format!("{} flush ruleset", NFT.0))
            .map(drop)
    }

    /// Every counter of the main table that has counted, to say why something went wrong.
    pub(crate) fn nonzero(&self) -> Result<String> {
        let listed = self.gateway.host.run(&format!("{} list counters", NFT.0))?;
        let words: Vec<&str> = listed.split_whitespace().collect();
        let counted = words
            .windows(5)
            .filter(|words| words[0] == "counter" && words[4] != "0");
        let said = counted.map(|words| format!("{} {}", words[1], words[4]));
        Ok(said.collect::<Vec<_>>().join(", "))
    }

    /// What nft lists of a table.
    pub(crate) fn listed(&self, table: &str) -> Result<String> {
        self.gateway
            .host
            .run(&format!("{} list table inet {table}", NFT.0))
    }
}

/// In the lab's namespace there is one user.
fn as_root(transaction: &str) -> Result<String> {
    let mut document: Value = serde_json::from_str(transaction)
        .map_err(|error| Error::other(format!("the plan's transaction: {error}")))?;
    rename_users(&mut document);
    Ok(document.to_string())
}

fn rename_users(value: &mut Value) {
    if value["match"]["left"]["meta"]["key"] == "skuid" {
        value["match"]["right"] = 0.into();
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(rename_users),
        Value::Object(fields) => fields.values_mut().for_each(rename_users),
        _ => {}
    }
}

/// Puts frames on the agents' wire from a host's card.
pub(crate) fn inject(host: &Host, frames: &[Vec<u8>]) -> Result {
    let mut verb = words("inject inside");
    verb.extend(frames.iter().map(|frame| {
        frame
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    }));
    let taken = host.start(&verb)?.finish()?;
    require!(
        taken == frames.len().to_string(),
        "the wire took {taken} of {} frames",
        frames.len()
    );
    Ok(())
}
