//! Measures the resolver against bare named: processor time of a query, and latency at 1,000 queries a second, both of
//! cached names, in one run. Announces each figure on a line of its own.
//!
//! To be run where port 53 of loopback is free and may be bound, such as in a network namespace of its own:
//! `unshare -Urn bench --resolver PATH --named PATH --dnsperf PATH [--seconds N]`. Both sides run as in the image: named with
//! the policy zones behind the resolver, and bare for the comparison.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use clawgress_config::Cidr;
use clawgress_config::policy::Policy;
use clawgress_link::pins::{FromEnforcer, FromResolver, LONGEST_MESSAGE};
use clawgress_policy::{Card, Logging, Network, Revision};
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recv, send,
    socket,
};

const NAMES: u16 = 1000;
const BARE: u16 = 5301;
const AGENTS: u16 = 10053;
const A_SECOND: u32 = 1000;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    resolver: PathBuf,
    #[arg(long, default_value = "/usr/sbin/named")]
    named: PathBuf,
    #[arg(long, default_value = "/usr/bin/dnsperf")]
    dnsperf: PathBuf,
    /// Of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

/// Ends with the measurement.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let scratch = std::env::temp_dir().join(format!("clawgress-bench-dns-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("making {}", scratch.display()))?;
    let figures = measure(&arguments, &scratch);
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
    for figure in figures? {
        println!("figure: {figure}");
    }
    Ok(())
}

fn measure(arguments: &Arguments, scratch: &Path) -> Result<Vec<serde_json::Value>> {
    let named = scratch.join("named");
    // A copy: where AppArmor confines named to its usual places, that goes by the path of the program.
    fs::copy(&arguments.named, &named)
        .with_context(|| format!("copying {}", arguments.named.display()))?;
    let bare = start_named(scratch, &named, "bare", BARE, false)?;
    let behind = start_named(scratch, &named, "behind", 53, true)?;
    let resolver = start_resolver(arguments, scratch)?;
    let questions = scratch.join("questions");
    let lines = (0..NAMES).fold(String::new(), |text, n| {
        text + &format!("n{n}.bench.test A\n")
    });
    fs::write(&questions, lines).with_context(|| format!("writing {}", questions.display()))?;
    for port in [BARE, AGENTS] {
        wait_for(port)?;
        // Caches are full from here on.
        flood(arguments, &questions, port, 2)?;
    }
    let (mut of_named, mut of_resolver) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let used = cpu(&bare)?;
        let answered = flood(arguments, &questions, BARE, arguments.seconds)?;
        of_named.push((cpu(&bare)? - used) * 1e6 / answered);
        let used = cpu(&resolver)? + cpu(&behind)?;
        let answered = flood(arguments, &questions, AGENTS, arguments.seconds)?;
        of_resolver.push((cpu(&resolver)? + cpu(&behind)? - used) * 1e6 / answered);
    }
    let cpu_of_named = middle(&mut of_named);
    let cpu_of_resolver = middle(&mut of_resolver);
    let (mut to_named, mut to_resolver) = latencies(arguments.seconds)?;
    let at_99 = |sorted: &[f64]| sorted.get(sorted.len() * 99 / 100).copied();
    let added_p99 = at_99(&to_resolver).unwrap_or(f64::NAN) - at_99(&to_named).unwrap_or(0.0);
    let added_median = middle(&mut to_resolver) - middle(&mut to_named);
    Ok(vec![
        serde_json::json!({
            "figure": "processor time of a query, with its share of named", "value": cpu_of_resolver, "unit": "µs",
            "must": "≤ 2 × peer", "holds": cpu_of_resolver <= 2.0 * cpu_of_named,
            "peer": {"name": "bare named", "value": cpu_of_named},
        }),
        serde_json::json!({
            "figure": "median added at 1,000 queries/s", "value": added_median, "unit": "ms",
            "must": "≤ 0.15 ms", "holds": added_median <= 0.15,
        }),
        serde_json::json!({
            "figure": "p99 added at 1,000 queries/s", "value": added_p99, "unit": "ms",
            "must": "≤ 1 ms", "holds": added_p99 <= 1.0,
        }),
    ])
}

fn start_named(
    scratch: &Path,
    program: &Path,
    name: &str,
    port: u16,
    policy: bool,
) -> Result<Daemon> {
    let directory = scratch.display();
    let addresses = (0..NAMES).fold(String::new(), |text, n| {
        text + &format!("n{n} A 198.51.100.{}\n", n % 250 + 1)
    });
    let zone = format!("$TTL 300\n@ SOA ns. h. 1 60 60 60 60\n@ NS ns.\n{addresses}");
    write(&scratch.join("bench.zone"), &zone)?;
    let passes = (0..NAMES).fold(String::new(), |text, n| {
        text + &format!("n{n}.bench.test CNAME rpz-passthru.\n")
    });
    let rpz = format!("$TTL 5\n@ SOA ns. h. 1 60 60 60 5\n@ NS ns.\n{passes}* CNAME .\n");
    write(&scratch.join("rpz.zone"), &rpz)?;
    let (option, zone) = if policy {
        (
            "response-policy { zone \"rpz.clawgress\" policy given log no; } qname-wait-recurse no break-dnssec yes \
             recursive-only no min-update-interval 0 max-policy-ttl 5;",
            format!("zone \"rpz.clawgress\" {{ type primary; file \"{directory}/rpz.zone\"; }};\n"),
        )
    } else {
        ("", String::new())
    };
    let config = format!(
        "options {{ directory \"{directory}\"; pid-file none; session-keyfile none; recursion yes; \
         listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; dnssec-validation no; \
         empty-zones-enable no; {option} }};\ncontrols {{ }};\n\
         zone \"bench.test\" {{ type primary; file \"{directory}/bench.zone\"; }};\n{zone}"
    );
    let file = scratch.join(format!("{name}.conf"));
    write(&file, &config)?;
    start(
        Command::new(program)
            .args(["-f", "-n", "1", "-c"])
            .arg(&file),
    )
}

fn start_resolver(arguments: &Arguments, scratch: &Path) -> Result<Daemon> {
    let names: Vec<String> = (0..NAMES).map(|n| format!("n{n}.bench.test")).collect();
    let policy = serde_json::json!({"version": 1, "allow": {"domains": names}}).to_string();
    let Ok(policy) = Policy::from_json(policy.as_bytes()) else {
        bail!("the policy of this measurement is wrong");
    };
    let revision = Revision {
        number: 1,
        created: 1,
        enabled: true,
        policy,
        network: Network {
            lan: vec![Card {
                name: "lan".to_owned(),
                addresses: vec![Cidr {
                    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    length: 8,
                }],
            }],
            ..Network::default()
        },
        time_zone: "UTC".to_owned(),
        trust_hardware_clock: true,
        logging: Logging {
            facility: "local0".to_owned(),
            deny_log: true,
        },
        name_servers: Vec::new(),
        access: clawgress_config::access::Access::default(),
    };
    let file = scratch.join("1.json");
    revision.write(&file)?;
    let socket = scratch.join("pins.sock");
    serve_pins(&socket, &file)?;
    let shipped = include_str!("../../../rootfs-overlay/etc/clawgress/dns.toml");
    let config = shipped
        .replace(clawgress_link::pins::SOCKET, &socket.display().to_string())
        .replace(
            "/var/lib/clawgress/dns",
            &scratch.join("dns").display().to_string(),
        );
    let file = scratch.join("dns.toml");
    write(&file, &config)?;
    start(Command::new(&arguments.resolver).arg("--config").arg(&file))
}

/// An enforcer that agrees to everything at once.
fn serve_pins(path: &Path, revision: &Path) -> Result<()> {
    let listener = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .context("making the socket for pins")?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)
        .with_context(|| format!("binding {}", path.display()))?;
    listen(&listener, Backlog::new(1)?).context("listening for the resolver")?;
    let load = FromEnforcer::Load {
        revision: 1,
        file: revision.display().to_string(),
    };
    std::thread::spawn(move || {
        let listener = UnixListener::from(listener);
        while let Ok((connection, _)) = listener.accept() {
            let connection = OwnedFd::from(connection);
            tell(&connection, &load);
            let mut buffer = vec![0; LONGEST_MESSAGE];
            while let Ok(length @ 1..) =
                recv(connection.as_raw_fd(), &mut buffer, MsgFlags::empty())
            {
                let message = buffer.get(..length).unwrap_or_default();
                if let Ok(FromResolver::Pin(pin)) = serde_json::from_slice(message) {
                    let (id, error) = (pin.id, None);
                    tell(&connection, &FromEnforcer::Pinned { id, error });
                }
            }
        }
    });
    Ok(())
}

fn tell(connection: &OwnedFd, message: &FromEnforcer) {
    let bytes = serde_json::to_vec(message).unwrap_or_default();
    // The resolver may have ended; then so does this measurement.
    let _ = send(connection.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL);
}

fn question(id: u16, number: u16) -> Result<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(format!("n{}.bench.test.", number % NAMES))?;
    message.add_query(Query::query(name, RecordType::A));
    Ok(message.to_vec()?)
}

/// Milliseconds until the answer, or none.
fn ask(asker: &UdpSocket, number: u16) -> Result<Option<f64>> {
    let bytes = question(number, number)?;
    let mut buffer = [0; 2048];
    let began = Instant::now();
    asker.send(&bytes).context("asking")?;
    loop {
        let Ok(length) = asker.recv(&mut buffer) else {
            return Ok(None);
        };
        let answer = Message::from_vec(buffer.get(..length).unwrap_or_default())?;
        if answer.metadata.id == number {
            let passed = began.elapsed().as_secs_f64() * 1e3;
            return Ok((!answer.answers.is_empty()).then_some(passed));
        }
    }
}

fn asker(port: u16) -> Result<UdpSocket> {
    let asker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("making a socket to ask from")?;
    asker.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    asker.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(asker)
}

fn wait_for(port: u16) -> Result<()> {
    let asker = asker(port)?;
    for _ in 0..100 {
        // An error is a port that nobody listens on yet.
        if let Ok(Some(_)) = ask(&asker, 1) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("nobody answers on port {port}")
}

/// The answers that a second of many brings, asked one by one of both in turn, so that both meet the same machine.
fn latencies(seconds: u32) -> Result<(Vec<f64>, Vec<f64>)> {
    let askers = [asker(BARE)?, asker(AGENTS)?];
    let mut latencies = [Vec::new(), Vec::new()];
    let pause = Duration::from_secs(1) / A_SECOND;
    let began = Instant::now();
    for round in 0..seconds * A_SECOND {
        let due = began + pause * round;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for (asker, latencies) in askers.iter().zip(&mut latencies) {
            match ask(asker, (round % 60_000) as u16)? {
                Some(latency) => latencies.push(latency),
                None => bail!("a question was not answered"),
            }
        }
    }
    let [named, resolver] = latencies;
    Ok((named, resolver))
}

/// Asks as fast as answers come; returns how many came.
fn flood(arguments: &Arguments, questions: &Path, port: u16, seconds: u32) -> Result<f64> {
    let output = Command::new(&arguments.dnsperf)
        .args([
            "-s",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-q",
            "50",
            "-c",
            "4",
        ])
        .args(["-l", &seconds.to_string(), "-d"])
        .arg(questions)
        .output()
        .with_context(|| format!("running {}", arguments.dnsperf.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let completed = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Queries completed:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<f64>().ok());
    ensure!(
        text.contains("NOERROR") && text.contains("(100.00%)"),
        "not every question was answered: {text}"
    );
    completed.with_context(|| format!("dnsperf did not say how many were answered: {text}"))
}

/// Seconds of processor time that a process has used.
fn cpu(daemon: &Daemon) -> Result<f64> {
    let path = format!("/proc/{}/stat", daemon.0.id());
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks: f64 = [11, 12]
        .iter()
        .filter_map(|at| fields.get(*at)?.parse::<f64>().ok())
        .sum();
    Ok(ticks / 100.0)
}

fn middle(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn start(command: &mut Command) -> Result<Daemon> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    Ok(Daemon(child))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
