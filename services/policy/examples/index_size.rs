//! What an index of many names costs: time to compile it, memory that it keeps, time of a question. Prints, judges not.
//!
//! `cargo run --release -p clawgress-policy --example index_size [domains]`

use std::{collections::BTreeSet, fs, hint::black_box, time::Instant};

use anyhow::Context;
use clawgress_config::{
    Cidr,
    policy::{Allow, DomainPattern, Host, Policy, Scope},
};
use clawgress_policy::{Card, Index, Logging, Moment, Network, Revision};

const QUESTIONS: usize = 2_000_000;
const HOSTS: usize = 200;

fn main() -> anyhow::Result<()> {
    let domains = match std::env::args().nth(1) {
        Some(number) => number.parse().context("the number of domains")?,
        None => 1_000_000,
    };
    one_scope(domains)?;
    shared_by_hosts(domains / 50)
}

/// Everything in the global scope, one pattern in a hundred a wildcard.
fn one_scope(domains: usize) -> anyhow::Result<()> {
    let names: Vec<String> = (0..domains).map(name).collect();
    let global = Scope {
        allow: allow(names.iter().enumerate().map(|(number, name)| {
            if number % 100 == 0 {
                format!("*.{name}")
            } else {
                name.clone()
            }
        }))?,
        ..Scope::default()
    };
    let revision = revision(Policy {
        global,
        ..Policy::default()
    })?;
    let index = compile(&revision, &format!("{domains} domains in one scope"))?;
    drop(revision);
    let who = index
        .principal_of("10.0.0.9".parse()?)
        .context("an agent of the LAN")?;
    let moment = Moment::trusted(0);

    // Each in memory where it is asked for, as a name is that was just read from a packet.
    let asked: Vec<String> = shuffled(domains)
        .iter()
        .filter_map(|at| names.get(*at).cloned())
        .collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let below: Vec<String> = asked.iter().map(|name| format!("www.{name}")).collect();
    let deep: Vec<String> = asked
        .iter()
        .map(|name| format!("{}{name}", "a.".repeat(100)))
        .collect();
    let cases: [(&str, Vec<&str>); 4] = [
        ("listed names, in random order", asked.clone()),
        (
            "a hundred listed names",
            asked.iter().copied().take(100).collect(),
        ),
        (
            "names below listed ones",
            below.iter().map(String::as_str).collect(),
        ),
        (
            "names of a hundred labels more",
            deep.iter().map(String::as_str).collect(),
        ),
    ];
    for (what, asked) in cases {
        let started = Instant::now();
        let mut allowed = 0;
        for name in asked.iter().cycle().take(QUESTIONS) {
            allowed += usize::from(index.judge_name(who, black_box(name), moment).is_allowed());
        }
        let each = started.elapsed().as_nanos() as usize / QUESTIONS;
        println!(
            "  {each:>4} ns a question: {what} ({} % allowed)",
            allowed * 100 / QUESTIONS
        );
    }
    Ok(())
}

/// Every host with the same list.
fn shared_by_hosts(domains: usize) -> anyhow::Result<()> {
    let list = allow((0..domains).map(name))?;
    let mut policy = Policy::default();
    for number in 0..HOSTS {
        let host = Host {
            sources: [cidr(&format!("10.0.1.{number}"), 32)?].into(),
            scope: Scope {
                allow: list.clone(),
                ..Scope::default()
            },
            ..Host::default()
        };
        policy.hosts.insert(format!("agent-{number}"), host);
    }
    let revision = revision(policy)?;
    compile(
        &revision,
        &format!("{HOSTS} hosts with the same {domains} domains"),
    )?;
    Ok(())
}

fn compile(revision: &Revision, what: &str) -> anyhow::Result<Index> {
    let before = resident()?;
    let started = Instant::now();
    let index = Index::of(revision)?;
    let took = started.elapsed();
    println!(
        "{what}: compiled in {} ms, {} MiB more resident than the {before} MiB before",
        took.as_millis(),
        resident()?.saturating_sub(before),
    );
    Ok(index)
}

fn name(number: usize) -> String {
    const WORDS: [&str; 8] = [
        "api",
        "telemetry",
        "cdn-edge",
        "models",
        "registry",
        "objects",
        "login",
        "eu-west-1",
    ];
    let word = WORDS.get(number % WORDS.len()).copied().unwrap_or_default();
    format!("{word}.site-{number}.example")
}

fn allow(patterns: impl Iterator<Item = String>) -> anyhow::Result<Allow> {
    let domains: Result<BTreeSet<_>, _> =
        patterns.map(|text| DomainPattern::parse(&text)).collect();
    Ok(Allow {
        domains: domains?,
        ..Allow::default()
    })
}

fn cidr(address: &str, length: u8) -> anyhow::Result<Cidr> {
    Ok(Cidr {
        address: address.parse()?,
        length,
    })
}

fn revision(policy: Policy) -> anyhow::Result<Revision> {
    Ok(Revision {
        number: 1,
        created: 0,
        enabled: true,
        policy,
        network: Network {
            lan: vec![Card {
                name: "eth1".to_owned(),
                addresses: vec![cidr("10.0.0.1", 16)?],
            }],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: false,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access: clawgress_config::access::Access::default(),
    })
}

/// A fixed order without order.
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(at, (state % (at as u64 + 1)) as usize);
    }
    order
}

fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    Ok(kib
        .context("no VmRSS in /proc/self/status")?
        .parse::<u64>()?
        / 1024)
}
