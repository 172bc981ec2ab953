//! Measures the gateway against other proxies and against no proxy at all, in turns within one run. Prints one JSON object
//! per figure.
//!
//! To be run in namespaces of its own, so that nothing outlives it: `unshare -Urnmpf --mount-proc --kill-child bench
//! [--squid PATH] [--envoy PATH] …`.

mod load;
mod origin;
mod peers;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use load::{Proxy, Way};
use peers::{Daemon, Programs};
use support::World;

/// Of a range for documentation: outside to the gateway, and yet on this machine.
const NAMES: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 3128);
const ORIGIN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    programs: Programs,
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of a measurement.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Figures to take, by the beginning of their names; all without it.
    #[arg(long)]
    only: Vec<String>,
}

#[derive(Subcommand)]
enum Role {
    /// The server behind.
    Origin,
    /// The name server.
    Names,
    Gateway { queue: PathBuf },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Origin) => origin::run(&[(ORIGIN, 443).into(), (ORIGIN, 80).into()]),
        Some(Role::Names) => origin::name_server(([127, 0, 0, 1], 53).into(), ORIGIN),
        Some(Role::Gateway { queue }) => gateway(queue),
        None => measure(&arguments),
    }
}

/// Serves until it is killed.
fn gateway(queue: &Path) -> Result<()> {
    let mut world = World::with(&support::allowing(&[load::HOST], 9_999));
    let key = world.agent("agent-1");
    std::fs::write(queue.with_extension("key"), &key)?;
    let judge = world.judge(queue);
    let _gateway = support::serve(&judge, GATEWAY, 2, NAMES, support::LIMITS);
    loop {
        std::thread::park();
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    run(Command::new("ip").args(["route", "add", "local", "203.0.113.0/24", "dev", "lo"]))?;
    // Thousands of connections a second leave more behind than there are ports.
    for (name, value) in [("tcp_max_tw_buckets", "64"), ("ip_local_port_range", "1024 65535"), ("tcp_tw_reuse", "1")] {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).with_context(|| format!("setting {name}"))?;
    }
    let scratch = std::env::temp_dir().join(format!("clawgress-bench-gateway-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("making {}", scratch.display()))?;
    let hosts = scratch.join("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost\n{ORIGIN} {}\n", load::HOST))?;
    run(Command::new("mount").arg("--bind").arg(&hosts).arg("/etc/hosts"))?;
    let own = std::env::current_exe()?;
    let direct: SocketAddr = (ORIGIN, 443).into();
    let _names = Command::new(&own).arg("names").spawn()?;
    let mut all = vec![Daemon::start("direct", direct, None, Command::new(&own).arg("origin"), &scratch)?];
    let queue = scratch.join("queue");
    let mut gateway = Daemon::start("gateway", GATEWAY, None, Command::new(&own).arg("gateway").arg(&queue), &scratch)?;
    let key = std::fs::read_to_string(queue.with_extension("key"))?;
    gateway.way.proxy = Some(Proxy::with(&format!("Proxy-Authorization: Bearer {key}\r\n")));
    all.push(gateway);
    let programs = &arguments.programs;
    if let Some(program) = &programs.squid {
        all.push(peers::squid(program, programs.squid_library.as_deref(), &scratch)?);
    }
    if let Some(program) = &programs.tinyproxy {
        all.push(peers::tinyproxy(program, &scratch)?);
    }
    if let Some(program) = &programs.envoy {
        all.push(peers::envoy(program, &scratch)?);
    }
    let wanted = |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| name.starts_with(only));
    for daemon in &all { load::openings(&daemon.way, 1, 200).with_context(|| daemon.way.name)?; }
    if wanted("latency") {
        for clients in [1, 4] {
            let mut took: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
            for _ in 0..arguments.rounds { for (at, d) in all.iter().enumerate() { took[at].extend(load::openings(&d.way, clients, 1500/clients)?); } }
            let base = three(&mut took[0]);
            for (at, d) in all.iter().enumerate() { let t = three(&mut took[at]); println!("latency {clients} {:10} p50 {:7.1} p95 {:7.1} p99 {:7.1} added", d.way.name, t[0]-base[0], t[1]-base[1], t[2]-base[2]); }
        }
    }
    if wanted("rate") {
        for round in 0..arguments.rounds { for d in &all { let c = d.cpu()?; let (n, t) = load::openings_within(&d.way, 32, Duration::from_secs(arguments.seconds))?; let c = d.cpu()? - c; println!("rate round {round} {:10} {:8.0}/s cpu/10k {:.2}", d.way.name, n as f64/t.as_secs_f64(), c*1e4/n as f64); } }
    }
    if wanted("bulk") {
        for streams in [1_usize, 8] { for round in 0..arguments.rounds { for d in &all { let c = d.cpu()?; let r = load::bulk(&d.way, streams, (4u64<<30) / streams as u64)?; println!("bulk {streams} round {round} {:10} {:.2} GB/s cpu {:.2}", d.way.name, r/1e9, d.cpu()?-c); } } }
    }
    if wanted("kept") {
        let mut took: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
        for _ in 0..arguments.rounds { for (at, d) in all.iter().enumerate() { took[at].extend(load::exchanges(&d.way, 5000)?); } }
        let base = three(&mut took[0]);
        for (at, d) in all.iter().enumerate() { let t = three(&mut took[at]); println!("kept {:10} p50 {:7.1} p95 {:7.1} p99 {:7.1} added", d.way.name, t[0]-base[0], t[1]-base[1], t[2]-base[2]); }
    }
    if wanted("idle") {
        for d in all.iter().skip(1) { let before = d.memory()?; let mut open = Vec::new(); let hello = load::hello(); for _ in 0..9000 { open.push(load::open(&d.way, &hello)?); } println!("idle {:10} {} MiB ({} before)", d.way.name, d.memory()? >> 20, before >> 20); }
    }
    let _ = Way { name: "", address: direct, proxy: None };
    Ok(())
}

fn three(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [50, 95, 99].map(|percent| values.get(values.len() * percent / 100).copied().unwrap_or(f64::NAN))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
