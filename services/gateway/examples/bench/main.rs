//! Measures the gateway against other proxies and against no proxy at all, in turns within one run. Prints one JSON object
//! per figure.
//!
//! To be run in namespaces of its own, so that nothing outlives it: `unshare -nmpf --mount-proc --kill-child bench
//! [--squid PATH] [--envoy PATH] …` as root.

mod load;
mod measure;
mod origin;
mod peers;
#[path = "../../tests/gateway/world.rs"]
mod world;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use clawgress_gateway::gateway::{Gateway, Sockets};
use clawgress_gateway::listen;

use load::Proxy;
use measure::Bench;
use peers::{Daemon, Programs};
use world::World;

const NAMES: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
const GATEWAY: u16 = 3128;
/// Two more, for what a long list costs.
const FEW: u16 = 3129;
const MANY: u16 = 3130;

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Of a range for documentation: outside to the gateway, and yet on this machine.
const ORIGIN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    programs: Programs,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Of a measurement.
    #[arg(long, default_value_t = 3)]
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
    Gateway {
        queue: PathBuf,
        #[arg(long)]
        port: u16,
        /// On the allowlist.
        #[arg(long)]
        names: usize,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Origin) => origin::run(&[(ORIGIN, 443).into(), (ORIGIN, 80).into()]),
        Some(Role::Names) => origin::name_server(NAMES, ORIGIN),
        Some(Role::Gateway { queue, port, names }) => gateway(queue, *port, *names),
        None => bench(&arguments),
    }
}

/// Serves until it is killed.
fn gateway(queue: &Path, port: u16, names: usize) -> Result<()> {
    let mut world = World::with(&world::allowing(&[load::HOST], names - 1));
    world.revision.access.gateway.connections_per_agent = 16_000;
    let key = world.agent("agent-1");
    std::fs::write(queue.with_extension("key"), &key)?;
    let judge = world.judge(queue);
    let sockets = || -> Result<Sockets> {
        Ok(Sockets {
            plain: vec![listen::open(at(port))?],
            ..Sockets::default()
        })
    };
    let _gateway = Gateway::start(
        judge,
        world::LIMITS,
        NAMES,
        &Arc::default(),
        &Arc::default(),
        vec![sockets()?, sockets()?],
    )?;
    loop {
        std::thread::park();
    }
}

fn bench(arguments: &Arguments) -> Result<()> {
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    run(Command::new("ip").args(["route", "add", "local", "203.0.113.0/24", "dev", "lo"]))?;
    // Thousands of connections a second leave more behind than there are ports.
    for (name, value) in [
        ("tcp_max_tw_buckets", "64"),
        ("ip_local_port_range", "1024 65535"),
        ("tcp_tw_reuse", "1"),
    ] {
        std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
            .with_context(|| format!("setting {name}"))?;
    }
    let scratch = tempfile::tempdir().context("making a directory to work in")?;
    let scratch = scratch.path();
    // A peer that leaves root behind writes its log here, too.
    std::fs::set_permissions(scratch, std::fs::Permissions::from_mode(0o777))?;
    let hosts = scratch.join("hosts");
    std::fs::write(
        &hosts,
        format!("127.0.0.1 localhost\n{ORIGIN} {}\n", load::HOST),
    )?;
    run(Command::new("mount")
        .arg("--bind")
        .arg(&hosts)
        .arg("/etc/hosts"))?;
    // Squid leaves things there when it is killed.
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/dev/shm"]))?;
    let own = std::env::current_exe()?;
    let names = Command::new(&own).arg("names").spawn()?;
    let daemons = start(&own, scratch, &arguments.programs)?;
    let bench = Bench {
        daemons,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        only: arguments.only.clone(),
    };
    let measured = bench.all().and_then(|()| {
        if !bench.wants("names") {
            return Ok(());
        }
        let list = |name, port, names| own_gateway(name, &own, scratch, port, names);
        measure::names(
            &list("10 names", FEW, 10)?,
            &list("gateway", MANY, 1_000_000)?,
        )
    });
    let mut names = names;
    // The namespace ends with this process, and it with that.
    let _ = names.kill();
    measured
}

fn start(own: &Path, scratch: &Path, programs: &Programs) -> Result<Vec<Daemon>> {
    let direct = (ORIGIN, 443).into();
    let mut all = vec![Daemon::start(
        "direct",
        direct,
        None,
        Command::new(own).arg("origin"),
        scratch,
    )?];
    all.push(own_gateway("gateway", own, scratch, GATEWAY, 10_000)?);
    if let Some(program) = &programs.squid {
        all.push(peers::squid(
            program,
            programs.squid_library.as_deref(),
            scratch,
        )?);
    }
    if let Some(program) = &programs.tinyproxy {
        all.push(peers::tinyproxy(program, scratch)?);
    }
    if let Some(program) = &programs.envoy {
        all.push(peers::envoy(program, scratch)?);
    }
    if let Some(program) = &programs.haproxy {
        all.push(peers::haproxy(program, scratch, (ORIGIN, 80).into())?);
    }
    Ok(all)
}

fn own_gateway(
    name: &'static str,
    own: &Path,
    scratch: &Path,
    port: u16,
    names: usize,
) -> Result<Daemon> {
    let queue = scratch.join(format!("{name}.queue"));
    let mut serve = Command::new(own);
    serve.arg("gateway").arg(&queue);
    serve
        .arg(format!("--port={port}"))
        .arg(format!("--names={names}"));
    let mut gateway = Daemon::start(name, at(port), None, &mut serve, scratch)?;
    let key = std::fs::read_to_string(queue.with_extension("key"))?;
    gateway.way.proxy = Some(Proxy::with(&format!(
        "Proxy-Authorization: Bearer {key}\r\n"
    )));
    Ok(gateway)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("running {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
