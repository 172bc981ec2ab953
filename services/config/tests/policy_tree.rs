//! The policy as operators type it: the manual's lines as they stand there, and what is said of wrong ones.

use clawgress_config::policy::{Policy, Protocol};
use clawgress_config::{Clawgress, Tree, load, validate};

const BASELINE: &str = "set service clawgress enable
set service clawgress policy domain api.openai.com label llm-provider
set service clawgress policy domain api.anthropic.com label llm-provider
set service clawgress policy ip 1.2.3.0/24
set service clawgress policy port 443
";
const WINDOWS: &str = "set service clawgress enable
set service clawgress policy domain api.openai.com label llm-provider
set service clawgress policy time-window day mon
set service clawgress policy time-window day tue
set service clawgress policy time-window start 09:00
set service clawgress policy time-window end 17:00
set service clawgress policy domain api.openai.com time-window day fri
set service clawgress policy domain api.openai.com time-window start 10:00
set service clawgress policy domain api.openai.com time-window end 11:00
set service clawgress policy rate-limit-kbps 8000
";
const HOST: &str = "set service clawgress enable
set service clawgress policy host agent-1 source 192.168.10.10/32
set service clawgress policy host agent-1 exfil domain api.openai.com bytes 1048576
set service clawgress policy host agent-1 exfil domain api.openai.com period hour
";
const SHORTEST: &str = "set service clawgress enable
set service clawgress policy domain api.openai.com label llm-provider
set service clawgress policy domain api.anthropic.com label llm-provider
set service clawgress policy port 443
";

fn clawgress(text: &str) -> Clawgress {
    load(text.as_bytes())
        .expect(text)
        .document
        .clawgress
        .expect(text)
}

fn json(text: &str) -> Policy {
    Policy::from_json(text.as_bytes()).expect(text)
}

#[test]
fn the_lines_of_the_manual_as_typed() {
    let baseline = clawgress(BASELINE);
    assert!(baseline.enabled && baseline.deny_log);
    assert_eq!(baseline.facility, "local0");
    assert_eq!(
        baseline.policy,
        json(
            r#"{"version": 1, "allow": {"domains": ["api.openai.com", "api.anthropic.com"], "ips": ["1.2.3.0/24"],
                "ports": [443]}, "labels": {"api.openai.com": "llm-provider", "api.anthropic.com": "llm-provider"}}"#
        )
    );
    assert_eq!(
        clawgress(WINDOWS).policy,
        json(
            r#"{"version": 1, "allow": {"domains": ["api.openai.com"]}, "labels": {"api.openai.com": "llm-provider"},
                "time_window": {"days": ["mon", "tue"], "start": "09:00", "end": "17:00"},
                "domain_time_windows": {"api.openai.com": {"days": ["fri"], "start": "10:00", "end": "11:00"}},
                "limits": {"egress_kbps": 8000}}"#
        )
    );
    assert_eq!(
        clawgress(HOST).policy,
        json(
            r#"{"version": 1, "hosts": {"agent-1": {"sources": ["192.168.10.10/32"],
                "exfil": {"domains": {"api.openai.com": {"bytes": 1048576, "period": "hour"}}}}}}"#
        )
    );
    assert_eq!(clawgress(SHORTEST).policy.global.allow.domains.len(), 2);
    // All of them one after the other, as somebody works through the manual.
    let all = clawgress(&[BASELINE, WINDOWS, HOST, SHORTEST].concat());
    assert_eq!(all.policy.hosts.len(), 1);
    assert_eq!(all.policy.global.allow.domains.len(), 2);
    // Each line can be typed at the console, one at a time.
    let mut tree = Tree::default();
    for line in [BASELINE, WINDOWS, HOST, SHORTEST].concat().lines() {
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        tree.set(&words).unwrap();
    }
    let verdict = validate(&tree);
    assert_eq!(verdict.problems, []);
    assert_eq!(verdict.document.clawgress, Some(all));
}

#[test]
fn a_host_without_allow_reaches_nothing_and_is_told_so() {
    let warnings: Vec<_> = load(HOST.as_bytes())
        .unwrap()
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        warnings.iter().any(|line| line.starts_with(
            "line 2, column 35: service clawgress policy host agent-1: the host reaches nothing"
        )),
        "{warnings:#?}"
    );
}

#[test]
fn ports_and_their_protocols() {
    let rules = |text: &str| -> Vec<(u16, Protocol)> {
        let lines: String = text.lines().fold(String::new(), |text, line| {
            text + "set service clawgress policy "
                + line
                + "
"
        });
        let ports = clawgress(&lines).policy.global.allow.ports;
        ports
            .into_iter()
            .map(|rule| (rule.port, rule.protocol))
            .collect()
    };
    assert_eq!(rules("port 443"), [(443, Protocol::Tcp)]);
    assert_eq!(rules("port 123 protocol udp"), [(123, Protocol::Udp)]);
    assert_eq!(
        rules("port 443 protocol udp\nport 443 protocol tcp"),
        [(443, Protocol::Tcp), (443, Protocol::Udp)]
    );
}

#[test]
fn a_flag_takes_no_value() {
    let one_line = "service { clawgress { enable  logging { facility local3 deny-log disable } } }";
    let read = clawgress(one_line);
    assert!(read.enabled && !read.deny_log);
    assert_eq!(read.facility, "local3");
    let said = load(b"set service clawgress enable true")
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("service clawgress enable: enable takes no value, found `true`"),
        "{said}"
    );
    assert!(!clawgress("set service clawgress policy port 443").enabled);
    assert!(
        load(b"set system ntp trust-hardware-clock")
            .unwrap()
            .document
            .trust_hardware_clock
    );
    let mut tree = load(BASELINE.as_bytes()).unwrap().tree;
    tree.delete(&["service", "clawgress", "enable"]).unwrap();
    assert!(!validate(&tree).document.clawgress.unwrap().enabled);
}

/// Complains of these lines below `service clawgress policy`.
fn complains(lines: &str, expected: &str) {
    let text: String = lines.lines().fold(String::new(), |text, line| {
        text + "set service clawgress policy "
            + line
            + "
"
    });
    let said: Vec<_> = load(text.as_bytes())
        .expect_err(&text)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        said.iter().any(|line| line.contains(expected)),
        "{expected:?} not in {said:#?}"
    );
}

#[test]
fn wrong_lines() {
    complains(
        "domain http://a.example/x",
        "policy domain http://a.example/x: `http://a.example/x` is a URL",
    );
    complains(
        "domain",
        "a name is missing; write domain <domain> | *.<domain>",
    );
    complains("domain a.example lable x", "did you mean label?");
    complains(
        "domain a.example label the first",
        "put a text with spaces in double quotes",
    );
    complains(
        "domain a.example\ndomain A.example",
        "the domain a.example is there twice, in two writings",
    );
    complains(
        "ip 1.2.3.4/24",
        "policy ip: `1.2.3.4/24` has host bits set; write 1.2.3.0/24",
    );
    complains(
        "ip 2001:db8::/32\nip 2001:DB8::/32",
        "the network 2001:db8::/32 is there twice",
    );
    complains("port 0", "`0` is not a port");
    complains("port 70000", "`70000` is not a port");
    complains("port 443 protocol sctp", "write one of: tcp, udp");
    complains(
        "time-window day mon",
        "policy time-window: start is missing; add service clawgress policy time-window start",
    );
    complains(
        "time-window start 09:00\ntime-window end 10:00",
        "day is missing",
    );
    complains(
        "time-window day mon\ntime-window start 9:00\ntime-window end 10:00",
        "hours and minutes in two digits",
    );
    complains(
        "time-window day mon\ntime-window start 09:00\ntime-window end 09:00",
        "the window has no length: it starts and ends at 09:00",
    );
    complains("rate-limit-kbps 0", "0 kbit/s would let nothing through");
    complains("rate-limit-kbps -8", "not a whole number");
    complains("proxy mode snii-allowlist", "did you mean sni-allowlist?");
    complains(
        "proxy mtls ca /config/a.pem",
        "policy proxy mtls: certificate is missing",
    );
    complains("host a b", "`b` is not known here");
    complains(
        "host lan/eth1 source 192.0.2.1/32",
        "is not the name of a host",
    );
    complains(
        "host a port 443",
        "policy host a source: the host has no source",
    );
    complains(
        "host a source 192.0.2.0/24\nhost b source 192.0.2.0/24",
        "line 2, column 44: service clawgress policy host b source 192.0.2.0/24: 192.0.2.0/24 is a source of a and of b",
    );
    complains(
        "host a source 192.0.2.0/24\nhost a exfil domain a.example bytes 5",
        "exfil domain a.example: period is missing",
    );
    complains(
        "domain a.example label x\nlabel a.example text y",
        "the label is `x` at service clawgress policy domain a.example: a domain has one label everywhere",
    );
    complains("label a.example", "policy label a.example: text is missing");
    complains(
        "domain *.example\nhost a source 192.0.2.1/32\nhost a domain *.b.example\nhost a exfil domain x.b.example bytes 1\n\
         host a exfil domain x.b.example period day",
        "only *.b.example is; add x.b.example",
    );
    let said = load(b"set service clawgress listen-address 192.0.2.1")
        .unwrap_err()
        .to_string();
    assert!(said.contains("not an address of a lan card"), "{said}");
}
