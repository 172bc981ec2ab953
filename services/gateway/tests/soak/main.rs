//! The gateway as it is shipped, with the real services around it, at four fifths of what it can do, for a quarter of an
//! hour: what it holds in the end is what it held when it was warm. `CLAWGRESS_SOAK_SECONDS` makes it another time.

#![cfg(feature = "soak")]

#[allow(dead_code)] // Shared with the tests of the services, which use all of it.
#[path = "../daemons/manager.rs"]
mod manager;
#[allow(dead_code)]
#[path = "../gateway/origin.rs"]
mod origin;
#[allow(dead_code)]
#[path = "../daemons/stack.rs"]
mod stack;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stack::{GATEWAY, HOST, Stack};

const QUARTER_OF_AN_HOUR: u64 = 900;
const AGENTS: u64 = 8;
/// What may be more in the end than in the middle: allocators keep what they were given once.
const MORE_MEMORY: u64 = 4 * 1024;
const MORE_DESCRIPTORS: u64 = 16;

/// One agent that does a bit of everything.
struct Agent<'k> {
    key: &'k str,
    kept: Option<TcpStream>,
}

impl Agent<'_> {
    fn turn(&mut self, turn: u64) {
        match turn % 16 {
            0..10 => assert_eq!(self.get(HOST), 200),
            10 | 11 => assert_eq!(self.get("denied.lab.test"), 403),
            12 => assert_eq!(stack::asked("cgk_nobody", "stranger").0, 407),
            13 => {
                // Half a head, and away.
                let mut stream = TcpStream::connect(GATEWAY).unwrap();
                stream.write_all(b"GET http://origin").unwrap();
            }
            _ => {
                let mut tunnel = stack::tunnel(self.key);
                tunnel.write_all(&[7; 4096]).unwrap();
                let mut back = vec![0; 4096];
                tunnel.read_exact(&mut back).unwrap();
            }
        }
    }

    fn get(&mut self, host: &str) -> u16 {
        let mut stream = self.kept.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(GATEWAY).unwrap();
            stream.set_nodelay(true).unwrap();
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
            stream
        });
        let request = format!(
            "GET http://{host}/soak HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Bearer {}\r\n\r\n",
            self.key
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        let end = loop {
            let length = stream.read(&mut buffer).unwrap();
            assert!(length > 0, "the gateway went away");
            answer.extend_from_slice(&buffer[..length]);
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let number = |prefix: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| line.strip_prefix(prefix)?.parse::<usize>().ok())
        };
        let left = number("Content-Length: ").unwrap_or(0) + end - answer.len();
        stream.read_exact(&mut vec![0; left]).unwrap();
        if !head.contains("Connection: close") {
            self.kept = Some(stream);
        }
        head[9..12].parse().unwrap()
    }
}

/// Kilobytes in memory and open descriptors.
fn held(process: i32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    (memory.unwrap(), descriptors.count() as u64)
}

/// Runs the agents until the time is over; how many turns they had, and what the process held each second.
fn run(key: &str, process: i32, time: Duration, rate: Option<f64>) -> (u64, Vec<(u64, u64)>) {
    let turns = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    let begun = Instant::now();
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        for number in 0..AGENTS {
            let (turns, over) = (&turns, &over);
            scope.spawn(move || {
                let mut agent = Agent { key, kept: None };
                for own in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    if let Some(rate) = rate {
                        let due = (own * AGENTS + number) as f64 / rate;
                        let due = begun + Duration::from_secs_f64(due);
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    }
                    agent.turn(own + number);
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while begun.elapsed() < time {
            std::thread::sleep(Duration::from_secs(1));
            samples.push(held(process));
        }
        over.store(true, Ordering::Relaxed);
    });
    (turns.into_inner(), samples)
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

#[test]
fn a_quarter_of_an_hour_at_four_fifths_leaves_memory_and_descriptors_flat() {
    let seconds = std::env::var("CLAWGRESS_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(QUARTER_OF_AN_HOUR, |text| text.parse().unwrap());
    let keep_little =
        |revision: &mut clawgress_policy::Revision| revision.access.audit.retain_bytes = 64 << 20;
    Stack::run(keep_little, |stack| {
        // Best effort: a fast machine uses up the ports of one address otherwise.
        let _ = std::fs::write("/proc/sys/net/ipv4/tcp_tw_reuse", "1");
        let key = stack.key("agent-1");
        let process = stack.worker("gateway").unwrap().as_raw();
        let calibration = Duration::from_secs(10);
        let (most, _) = run(&key, process, calibration, None);
        let rate = most as f64 / calibration.as_secs_f64() * 0.8;
        let (turns, samples) = run(&key, process, Duration::from_secs(seconds), Some(rate));
        let wanted = rate * seconds as f64;
        let kept_up = turns as f64 / wanted;
        let third = samples.len() / 3;
        let of = |from: usize, to: usize, what: fn(&(u64, u64)) -> u64| {
            median(samples[from..to].iter().map(what).collect())
        };
        let [memory, descriptors] = [(|held| held.0) as fn(&(u64, u64)) -> u64, |held| held.1]
            .map(|what| (of(third, 2 * third, what), of(2 * third, 3 * third, what)));
        println!(
            "{turns} turns in {seconds} s, {rate:.0} a second wanted; memory {} -> {} KiB, descriptors {} -> {}",
            memory.0, memory.1, descriptors.0, descriptors.1
        );
        assert!(kept_up > 0.95, "the load was not kept up: {kept_up:.2}");
        assert!(
            memory.1 <= memory.0 + MORE_MEMORY.max(memory.0 / 20),
            "memory grows from {} to {} KiB: {samples:?}",
            memory.0,
            memory.1
        );
        assert!(
            descriptors.1 <= descriptors.0 + MORE_DESCRIPTORS,
            "descriptors grow: {samples:?}"
        );
        assert_eq!(stack.worker("gateway").unwrap().as_raw(), process);
        stack.waits_for("all connections end", |_| held(process).1 < 128);
    });
}
