//! Policies of a hundred thousand and of a million domains: from the operator's command to enforced, and what all
//! daemons together take meanwhile.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qemu_tests::figures::median;
use qemu_tests::{Result, case};

use crate::{Scene, at_most};

const DAEMONS: [&str; 5] = [
    "named",
    "haproxy",
    "clawgress-dns",
    "clawgress-enforcer",
    "clawgress-policy",
];

/// So many domains, 1,000 networks and 200 hosts; `changed` takes the place of one of the domains.
fn policy(domains: usize, changed: &str) -> String {
    let mut text = String::from("{\"version\": 1, \"allow\": {\"domains\": [");
    for n in 1..domains {
        write!(text, "\"api-{n}.customer-{}.example\", ", n / 10).expect("a string takes all");
    }
    write!(text, "\"{changed}\"], \"ips\": [").expect("a string takes all");
    let networks: Vec<String> = (0..1000)
        .map(|n| format!("\"192.{}.{}.0/24\"", 8 + n / 200, n % 200))
        .collect();
    write!(text, "{}]}}, \"hosts\": {{", networks.join(", ")).expect("a string takes all");
    let hosts: Vec<String> = (0..200)
        .map(|n| {
            format!(
                "\"agent-{n}\": {{\"sources\": [\"10.66.0.{}/32\"], \"allow\": {{\"domains\": [\"own-{n}.example\"]}}}}",
                n + 20
            )
        })
        .collect();
    write!(text, "{}}}}}", hosts.join(", ")).expect("a string takes all");
    text
}

/// KiB that a process has for itself, and its share of what several have.
fn memory(pid: u32) -> u64 {
    // Of a process and of those that it started: haproxy has a worker.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children: u64 = children
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(memory)
        .sum();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let own = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse().ok());
    children + own.unwrap_or(0)
}

/// Seconds from the command to its end, which is when the policy is in force; and the most that all daemons took.
fn import(scene: &Scene, policy: &str) -> Result<(f64, f64)> {
    let each = || -> Vec<String> {
        let of = |name: &&str| {
            let pid = scene.stack.pid(name)?;
            Some(format!("{name} {} MiB", memory(pid) / 1024))
        };
        DAEMONS.iter().filter_map(of).collect()
    };
    let pids: Vec<u32> = DAEMONS
        .iter()
        .filter_map(|name| scene.stack.pid(name))
        .collect();
    assert_eq!(pids.len(), DAEMONS.len(), "a daemon has ended");
    let (done, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let took = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let now = pids.iter().copied().map(memory).sum();
                most.fetch_max(now, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let began = Instant::now();
        let imported = scene.stack.import(policy);
        done.store(true, Ordering::Relaxed);
        imported.map(|said| {
            let took = began.elapsed().as_secs_f64();
            // Stage by stage, for whoever wonders where the time goes.
            println!("{said}");
            took
        })
    })?;
    println!("{}", each().join(", "));
    Ok((took, most.into_inner() as f64 / 1024.0))
}

#[test]
fn large_policies() {
    case("figures-large", |case| {
        let scene = Scene::new(case)?;
        let (mut first, mut memory) = (Vec::new(), 0.0_f64);
        let mut change = Vec::new();
        for round in 0..3 {
            let (took, most) = import(&scene, &policy(100_000, "change-0.example"))?;
            // Only the first time everything is new.
            first.push(took);
            memory = memory.max(most);
            for n in 1..4 {
                let changed = format!("change-{round}-{n}.example");
                change.push(import(&scene, &policy(100_000, &changed))?.0);
            }
            scene.stack.import(&policy(10, "small.example"))?;
        }
        at_most(
            "100,000 domains, 1,000 networks, 200 hosts: command to enforced",
            median(&mut first),
            "s",
            4.0,
        )
        .line()
        .announce();
        at_most(
            "the same: all daemons together, at most",
            memory,
            "MiB",
            400.0,
        )
        .line()
        .announce();
        at_most("one domain of it changed", median(&mut change), "s", 0.3)
            .line()
            .announce();
        let (took, most) = import(&scene, &policy(1_000_000, "million.example"))?;
        case.note(&format!("a million domains take {most:.0} MiB"));
        at_most("1,000,000 domains: command to enforced", took, "s", 40.0)
            .line()
            .announce();
        Ok(())
    });
}
