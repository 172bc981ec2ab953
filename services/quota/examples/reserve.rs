//! What reserving costs one request that has a quota as an agent, a team and a project. Prints a JSON line; fails if it is
//! missed.
//!
//! `cargo run --release -p clawgress-quota --example reserve`

use std::{hint::black_box, process::ExitCode, time::Instant};

use clawgress_config::access::{Quota, Quotas};
use clawgress_config::policy::Period;
use clawgress_quota::{Ledger, Outcome, Subject};

const AGENTS: usize = 10_000;
const REQUESTS: usize = 2_000_000;
const MUST: f64 = 300.0;
const NOW: u64 = 1_764_000_000_000_000_000;

fn main() -> ExitCode {
    let quota = Quota {
        rps: Some(10_000_000),
        rpm: Some(10_000_000),
        connections: Some(1_000_000),
        bytes: Some((1 << 60, Period::Day)),
        ..Quota::default()
    };
    let all = |name: &str, count: usize| {
        let names = (0..count).map(|number| (format!("{name}-{number}"), quota));
        names.collect()
    };
    let ledger = Ledger::new(&Quotas {
        agents: all("agent", AGENTS),
        teams: all("team", 100),
        projects: all("project", 400),
        ..Quotas::default()
    });
    let asked: Vec<[String; 3]> = (0..AGENTS)
        .map(|number| {
            let at = number * 7_919 % AGENTS;
            [
                format!("agent-{at}"),
                format!("team-{}", at % 100),
                format!("project-{}", at % 400),
            ]
        })
        .collect();
    let mut admitted = 0;
    let started = Instant::now();
    for [agent, team, project] in asked.iter().cycle().take(REQUESTS) {
        let subject = Subject {
            agent,
            team,
            project,
        };
        if let Outcome::Admit(reservation) = ledger.reserve(black_box(&subject), NOW) {
            admitted += 1;
            drop(black_box(reservation));
        }
    }
    let each = started.elapsed().as_nanos() as f64 / REQUESTS as f64;
    let holds = each < MUST && admitted == REQUESTS;
    println!(
        "figure: {{\"figure\":\"reserve and release\",\"value\":{each:.1},\"unit\":\"ns\",\"must\":\"< {MUST} ns\",\"holds\":{holds}}}"
    );
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
