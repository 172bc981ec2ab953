//! What a decision costs with 100,000 domains, 10,000 agents and 5,000 rules, and how long 100,000 rules take to read and
//! to compile. Prints one JSON line for each figure; fails if one is missed.
//!
//! `cargo run --release -p clawgress-policy --example rules_bench`

mod counting;

use std::{collections::BTreeMap, hint::black_box, net::IpAddr, process::ExitCode, time::Instant};

use anyhow::Context;
use clawgress_config::access::{
    Access, Action, Agent, AuthType, IdentityMatch, Rule, RuleMode, Status,
};
use clawgress_config::policy::{Allow, Day, DomainPattern, Policy, Scope, TimeOfDay, TimeWindow};
use clawgress_policy::{
    Card, Host, Index, Logging, Moment, Network, Request, Revision, Rules, Zone,
};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

const DOMAINS: usize = 100_000;
const AGENTS: usize = 10_000;
const RULES: usize = 5_000;
const DECISIONS: usize = 400_000;
const NOW: i64 = 1_764_000_000;

fn main() -> anyhow::Result<ExitCode> {
    let mut holds = decisions()?;
    holds &= compilation()?;
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn figure(name: &str, value: f64, unit: &str, must: f64) -> bool {
    let holds = value <= must;
    println!(
        "figure: {{\"figure\":\"{name}\",\"value\":{value:.3},\"unit\":\"{unit}\",\"must\":\"≤ {must} {unit}\",\"holds\":{holds}}}"
    );
    holds
}

fn decisions() -> anyhow::Result<bool> {
    let revision = revision(
        &(0..DOMAINS).map(listed).collect::<Vec<_>>(),
        rules(RULES, DOMAINS / RULES)?,
    )?;
    let index = Index::of(&revision)?;
    let compiled = Rules::compile(&revision.access, &Zone::named("UTC")?)?;
    let moment = Moment::trusted(NOW);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % most as u64) as usize
    };
    // Each question has its own texts, as one that was just read from a socket does.
    let asked: Vec<(String, [String; 4], usize)> = (0..DECISIONS / 10)
        .map(|number| {
            let agent = random(AGENTS);
            let name = match number % 4 {
                0 => listed(random(DOMAINS)),
                1 => format!("api.{}", domain(random(DOMAINS))),
                2 => domain(random(DOMAINS)),
                _ => format!("a.b.nowhere-{}.example", random(DOMAINS)),
            };
            (name, ids(agent), number)
        })
        .collect();
    let mut times = Vec::with_capacity(DECISIONS);
    let mut allowed_allocations = 0;
    let mut allowed = 0;
    for _ in 0..10 {
        for (name, ids, number) in &asked {
            let request = Request {
                agent_id: &ids[0],
                team_id: &ids[1],
                project_id: &ids[2],
                environment: &ids[3],
                source: IpAddr::from([192, 168, 10, 10]),
                host: Host::Name(name),
                port: 443,
                method: Some("CONNECT"),
                path: None,
                tunnel: true,
                resolved: if number % 3 == 0 {
                    &[IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7))]
                } else {
                    &[]
                },
            };
            let before = counting::allocations();
            let started = Instant::now();
            let decision = compiled.decide(&index, black_box(&request), moment);
            let took = started.elapsed();
            if black_box(decision).allowed {
                allowed += 1;
                allowed_allocations += counting::allocations() - before;
            }
            times.push(took.as_nanos() as u64);
        }
    }
    times.sort_unstable();
    let at = |permille: usize| {
        let at = times.len() * permille / 1_000;
        times.get(at).copied().unwrap_or_default() as f64 / 1_000.0
    };
    eprintln!("{} % allowed", allowed * 100 / DECISIONS);
    eprintln!("p50 {} us, p999 {} us", at(500), at(999));
    let mut holds = figure("one decision, p99", at(990), "us", 2.0);
    holds &= figure(
        "allocations of decisions that allow",
        allowed_allocations as f64,
        "allocations",
        0.0,
    );
    Ok(holds)
}

fn compilation() -> anyhow::Result<bool> {
    let revision = revision(&[], rules(100_000, 1)?)?;
    let zone = Zone::named("UTC")?;
    let json = serde_json::to_string(&revision.access)?;
    let started = Instant::now();
    let access = Access::from_json(&json)?;
    let read = started.elapsed();
    let started = Instant::now();
    let rules = Rules::compile(&access, &zone)?;
    let compiled = started.elapsed();
    anyhow::ensure!(
        rules.len() == 100_000,
        "{} rules were compiled",
        rules.len()
    );
    eprintln!(
        "{} MB of JSON read in {} ms",
        json.len() / 1_000_000,
        read.as_millis()
    );
    let mut holds = figure("100,000 rules compiled", compiled.as_secs_f64(), "s", 1.0);
    let whole = read + compiled;
    holds &= figure(
        "100,000 rules read and compiled",
        whole.as_secs_f64(),
        "s",
        1.0,
    );
    Ok(holds)
}

fn listed(number: usize) -> String {
    format!("listed-{number}.example")
}

fn domain(number: usize) -> String {
    format!("site-{number}.example")
}

fn ids(agent: usize) -> [String; 4] {
    [
        format!("agent-{agent}"),
        format!("team-{}", agent % 100),
        format!("project-{}", agent % 400),
        ["production", "staging", "development"][agent % 3].to_owned(),
    ]
}

/// Rules of every shape: for one agent, for teams, projects, starred agents and everybody; names and wildcards, denials of
/// networks, windows, reports.
fn rules(count: usize, domains_each: usize) -> anyhow::Result<BTreeMap<String, Rule>> {
    let mut rules = BTreeMap::new();
    for number in 0..count {
        let mut identity = IdentityMatch::default();
        match number % 8 {
            0 | 1 => identity.agents = [format!("agent-{}", number % AGENTS)].into(),
            2 | 3 => identity.teams = [format!("team-{}", number % 100)].into(),
            4 => {
                identity.projects = [format!("project-{}", number % 400)].into();
                identity.environments = ["prod*".to_owned()].into();
            }
            5 => identity.agents = [format!("agent-{}*", number % 1_000)].into(),
            6 => identity.environments = ["staging".to_owned()].into(),
            _ => {}
        }
        let first = number * domains_each;
        let mut domains = (first..first + domains_each)
            .map(|at| {
                DomainPattern::parse(&if at % 10 == 0 {
                    format!("*.{}", domain(at))
                } else {
                    domain(at)
                })
            })
            .collect::<Result<std::collections::BTreeSet<_>, _>>()?;
        let mut networks = std::collections::BTreeSet::new();
        let denies = number % 5 == 0;
        if number % 50 == 0 {
            domains.clear();
            networks.insert(clawgress_config::Cidr {
                address: IpAddr::from([10, (number / 256) as u8, number as u8, 0]),
                length: 24,
            });
        }
        let window = (number % 20 == 1).then(|| TimeWindow {
            days: Day::ALL.into(),
            start: TimeOfDay(6 * 60),
            end: TimeOfDay(22 * 60),
        });
        rules.insert(
            format!("rule-{number}"),
            Rule {
                version: 1,
                priority: (number % 10) as u32 * 100,
                enabled: true,
                mode: if number % 25 == 0 {
                    RuleMode::Report
                } else {
                    RuleMode::Enforce
                },
                identity,
                domains,
                networks,
                ports: [80, 443].into(),
                methods: [].into(),
                path_prefixes: [].into(),
                time_window: window,
                action: if denies { Action::Deny } else { Action::Allow },
                alert: false,
                plain_tunnel: false,
                upgrade: false,
                label: None,
            },
        );
    }
    Ok(rules)
}

fn revision(listed: &[String], rules: BTreeMap<String, Rule>) -> anyhow::Result<Revision> {
    let domains: Result<_, _> = listed
        .iter()
        .map(|name| DomainPattern::parse(name))
        .collect();
    let agents = (0..AGENTS)
        .map(|number| {
            let [id, team_id, project_id, environment] = ids(number);
            let agent = Agent {
                team_id,
                project_id,
                environment,
                auth_type: AuthType::ApiKey,
                status: Status::Active,
                sources: [].into(),
                bound: false,
            };
            (id, agent)
        })
        .collect();
    Ok(Revision {
        number: 1,
        created: 0,
        enabled: true,
        policy: Policy {
            global: Scope {
                allow: Allow {
                    domains: domains?,
                    ..Allow::default()
                },
                ..Scope::default()
            },
            ..Policy::default()
        },
        network: Network {
            lan: vec![Card {
                name: "eth1".to_owned(),
                addresses: vec![clawgress_config::Cidr {
                    address: "192.168.10.1".parse().context("an address")?,
                    length: 24,
                }],
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
        access: Access {
            agents,
            rules,
            ..Access::default()
        },
    })
}
