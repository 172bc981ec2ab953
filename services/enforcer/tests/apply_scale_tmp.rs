//! temporary figures
#[path = "support/appliance.rs"]
mod appliance;
mod support;
use appliance::{Appliance, Resolver, revision};
use support::inside;
#[test]
fn figures() {
    if !inside("figures") {
        return;
    }

    let policy = |n: usize, extra: &str| {
        let domains: Vec<String> = (0..n)
            .map(|i| format!("\"host{i}.zone{}.example\"", i % 997))
            .collect();
        let ips: Vec<String> = (0..1000)
            .map(|i| format!("\"198.{}.{}.0/24\"", 20 + i / 256, i % 256))
            .collect();
        let hosts: Vec<String> = (0..200).map(|i| format!("\"agent-{i}\": {{\"sources\": [\"192.168.10.{}/32\"], \"allow\": {{\"domains\": [\"a{i}.example\"]}}}}", i + 20)).collect();
        format!(
            "{{\"version\": 2, \"allow\": {{\"domains\": [{}{extra}], \"ips\": [{}]}}, \"hosts\": {{{}}} }}",
            domains.join(","),
            ips.join(","),
            hosts.join(",")
        )
    };
    let mut out = String::new();
    let mut appliance = Appliance::sealed();
    appliance.start();
    let mut resolver = Resolver::connect();
    for (number, n, extra) in [
        (1, 100_000, ""),
        (2, 100_000, ",\"new.example\""),
        (3, 100_000, ""),
        (4, 1_000_000, ""),
        (5, 1_000_000, ",\"new.example\""),
    ] {
        let revision = revision(number, &policy(n, extra));
        let begun = std::time::Instant::now();
        let report = appliance.apply(&revision);
        out += &format!(
            "{n} {extra}: {:?} {:?} {:#?}\n",
            begun.elapsed(),
            report.ok,
            report
                .stages
                .iter()
                .map(|s| format!("{} {} ms {}", s.name, s.took_ms, s.detail))
                .collect::<Vec<_>>()
        );
        let pid = std::fs::read_to_string(appliance.path("enforcer.pid")).unwrap_or_default();
        let _ = pid;
        std::fs::write("/var/tmp/enf-figures.txt", out.clone() + &appliance.log()).unwrap();
        assert_eq!(
            resolver.pin(
                number,
                "lan/lan0",
                "host1.zone1.example",
                &["192.0.2.1"],
                60
            ),
            None
        );
        std::fs::write("/var/tmp/enf-figures.txt", &out).unwrap();
    }
    std::fs::write("/var/tmp/enf-figures.txt", out + &appliance.log()).unwrap();
}
