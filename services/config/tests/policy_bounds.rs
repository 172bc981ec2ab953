//! policy.json against the clock, the memory and those who send too much.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use clawgress_config::policy::{MAX_POLICY_BYTES, Policy};

fn complaints(text: &str) -> Vec<String> {
    let problems = Policy::from_json(text.as_bytes()).expect_err("must be refused");
    problems.iter().map(ToString::to_string).collect()
}

fn complains(text: &str, expected: &str) {
    let said = complaints(text);
    assert!(said.iter().any(|line| line.contains(expected)), "{said:#?}");
}

#[test]
fn size_depth_and_the_number_of_reports_are_bounded() {
    let large = vec![b' '; 200 << 20];
    let start = Instant::now();
    let said = Policy::from_json(&large).unwrap_err()[0].to_string();
    assert!(
        said.contains(&format!("larger than {MAX_POLICY_BYTES} bytes")),
        "{said}"
    );
    assert!(start.elapsed() < Duration::from_millis(100));
    complains(&"[".repeat(1_000_000), "an object is needed");
    complains(
        &format!("{{\"x\": {}", "[".repeat(1_000_000)),
        "deeper than 32",
    );
    complains(
        &format!("{{\"x\": {}", "{\"a\":".repeat(1_000_000)),
        "deeper than 32",
    );
    let wrong = format!(
        r#"{{"version": 1, "allow": {{"ports": [{}1]}}}}"#,
        "0,".repeat(1_000_000)
    );
    assert_eq!(complaints(&wrong).len(), 50);
    let unknown = format!("{{{}\"version\": 1}}", "\"x\":1,".repeat(1_000_000));
    assert_eq!(complaints(&unknown).len(), 50);
}

fn policy_of(domains: u32) -> String {
    let mut text = String::from(r#"{"version": 1, "allow": {"domains": ["#);
    for number in 0..domains {
        // Neither sorted nor all of one length, as lists of people are.
        let name = number.wrapping_mul(2_654_435_761);
        write!(
            text,
            "{}\"host-{name:x}.example{}.com\"",
            if number == 0 { "" } else { ", " },
            number % 1000
        )
        .unwrap();
    }
    text.push_str("]}}");
    text
}

/// A development build is some twenty times as slow: it reads a fifth in as much more time.
const FEWER: u32 = if cfg!(debug_assertions) { 5 } else { 1 };
const SLOWER: u32 = if cfg!(debug_assertions) { 10 } else { 1 };

/// What this thread has used of a processor: other work on the machine does not count.
fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn many_domains_are_read_in_time() {
    for (domains, most) in [(100_000, 150), (1_000_000, 1_500)] {
        let (domains, most) = (domains / FEWER, Duration::from_millis(most) * SLOWER);
        let text = policy_of(domains);
        let start = used();
        let policy = Policy::from_json(text.as_bytes()).unwrap();
        let took = used().saturating_sub(start);
        assert_eq!(policy.global.allow.domains.len(), domains as usize);
        println!("{domains} domains: {took:?}");
        assert!(took < most, "{domains} domains took {took:?}");
    }
}

/// As much as the process ever had in memory, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

#[test]
fn a_million_domains_fit() {
    // Of its own process, so that other tests do not count.
    if std::env::var_os("MEASURED_ALONE").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_million_domains_fit"])
            .env("MEASURED_ALONE", "1")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    let domains = 1_000_000 / FEWER;
    let text = policy_of(domains);
    let policy = Policy::from_json(text.as_bytes()).unwrap();
    assert_eq!(policy.global.allow.domains.len(), domains as usize);
    let peak = peak();
    println!("{domains} domains: {peak} MiB");
    assert!(peak < 250 / u64::from(FEWER), "{peak} MiB");
}
