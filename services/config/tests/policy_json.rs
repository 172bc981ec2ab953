//! policy.json: what is read, what is refused and with which words, and what is written.

use clawgress_config::policy::{Day, Period, Policy, Protocol, ProxyMode};

const EVERYTHING: &str = include_str!("data/mvpv2.json");
const SNI: &str = include_str!("data/sni.json");

/// Everything that reading says, one line per problem.
fn complaints(text: &str) -> Vec<String> {
    Policy::from_json(text.as_bytes())
        .expect_err(text)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn complains(text: &str, expected: &str) {
    let said = complaints(text);
    assert!(
        said.iter().any(|line| line.contains(expected)),
        "{expected:?} not in {said:#?} of {text}"
    );
}

fn warnings(text: &str) -> String {
    let reading = Policy::read_json(text.as_bytes()).expect(text);
    let lines: Vec<_> = reading.warnings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn the_policies_of_the_manual() {
    let policy = Policy::from_json(EVERYTHING.as_bytes()).unwrap();
    assert_eq!(policy.global.allow.domains.len(), 2);
    assert_eq!(policy.global.allow.ports.len(), 3);
    assert_eq!(policy.global.allow.effective_ports().len(), 2);
    assert_eq!(policy.global.limits.egress_kbps, Some(8000));
    assert_eq!(policy.labels.len(), 2);
    let window = policy.global.time_window.as_ref().unwrap();
    assert_eq!((window.start.0, window.end.0), (540, 1020));
    assert!(window.days.contains(&Day::Tue) && window.days.len() == 2);
    let host = &policy.hosts["agent-1"];
    assert_eq!(
        host.sources.first().unwrap().to_string(),
        "192.168.10.10/32"
    );
    let (name, cap) = host.exfil.first_key_value().unwrap();
    assert_eq!(name.as_str(), "api.openai.com");
    assert_eq!((cap.bytes, cap.period), (1_048_576, Period::Hour));
    assert_eq!(host.scope.domain_time_windows.len(), 1);

    let policy = Policy::from_json(SNI.as_bytes()).unwrap();
    let proxy = policy.global.proxy.as_ref().unwrap();
    assert_eq!(proxy.mode, Some(ProxyMode::SniAllowlist));
    assert_eq!(proxy.domains.len(), 2);
    assert_eq!(policy.hosts["agent-1"].scope.limits.egress_kbps, Some(2000));
}

#[test]
fn written_and_read_again_it_is_the_same() {
    for text in [EVERYTHING, SNI, r#"{"version": 1}"#] {
        let policy = Policy::from_json(text.as_bytes()).unwrap();
        for version in [1, 2] {
            let written = policy.to_json(version).unwrap();
            assert!(written.contains(&format!("\"version\": {version}")));
            assert_eq!(Policy::from_json(written.as_bytes()).unwrap(), policy);
            assert_eq!(policy.to_json(version).unwrap(), written);
        }
        let embedded = serde_json::to_vec(&policy).unwrap();
        assert_eq!(Policy::from_json(&embedded).unwrap(), policy);
    }
    assert_eq!(
        Policy::default().to_json(1).unwrap(),
        "{\n  \"version\": 1\n}\n"
    );
    assert!(Policy::default().to_json(3).is_err() && Policy::default().to_json(0).is_err());
}

#[test]
fn udp_is_of_version_2() {
    let ports = r#""allow": {"ports": [443, {"port": 443, "protocol": "udp"}, {"port": 22, "protocol": "tcp"}]}}"#;
    let policy = Policy::from_json(format!(r#"{{"version": 2, {ports}"#).as_bytes()).unwrap();
    let written: Vec<_> = policy
        .global
        .allow
        .ports
        .iter()
        .map(|rule| (rule.port, rule.protocol))
        .collect();
    assert_eq!(
        written,
        [
            (22, Protocol::Tcp),
            (443, Protocol::Tcp),
            (443, Protocol::Udp)
        ]
    );
    let text = policy.to_json(2).unwrap();
    assert_eq!(Policy::from_json(text.as_bytes()).unwrap(), policy);
    let refused = policy.to_json(1).unwrap_err();
    assert_eq!(refused.path, "allow.ports[2]");
    complains(
        &format!(r#"{{"version": 1, {ports}"#),
        "allow.ports[1]: a port with its protocol is of version 2",
    );
    // The version may stand behind the ports.
    complains(
        r#"{"allow": {"ports": [{"port": 1, "protocol": "udp"}]}, "version": 1}"#,
        "column 22: allow.ports[0]",
    );
    let two = |port: &str| format!(r#"{{"version": 2, "allow": {{"ports": [{port}]}}}}"#);
    complains(&two(r#"{"port": 1}"#), "the protocol is missing");
    complains(&two(r#"{"protocol": "udp"}"#), "the port is missing");
    complains(
        &two(r#"{"port": 0, "protocol": "udp"}"#),
        "allow.ports[0].port: 0 is not a port",
    );
    complains(
        &two(r#"{"port": 1, "protocol": "sctp"}"#),
        "write one of: tcp, udp",
    );
    complains(
        &two(r#"443, {"port": 443, "protocol": "tcp"}"#),
        "allow.ports[1]: this is in the list already, at [0]",
    );
    let host = r#"{"version": 2, "hosts": {"a": {"sources": ["192.0.2.1/32"], "allow": {"ports": [{"port": 1, "protocol": "udp"}]}}}}"#;
    let policy = Policy::from_json(host.as_bytes()).unwrap();
    assert_eq!(
        policy.to_json(1).unwrap_err().path,
        "hosts.a.allow.ports[0]"
    );
}

#[test]
fn malformed_text_is_named_by_line_and_column() {
    for (text, expected) in [
        ("", "line 1, column 1: the text ends where a value belongs"),
        (
            "{\n  \"version\": 1,\n  \"allow\": {\n",
            "line 4, column 1: the text ends where a field's name belongs",
        ),
        (
            "{\"version\": 1\n \"allow\": {}}",
            "line 2, column 2: `\\\"` stands inside an object; write a comma",
        ),
        (
            "{\"version\": 1,}",
            "column 15: a comma stands before this }; remove that comma",
        ),
        (
            "{\"version\": NaN}",
            "column 13: `N` stands where a value belongs; write a whole number in digits; JSON has no NaN",
        ),
        ("{\"version\": -Infinity}", "this is not a number"),
        ("{\"version\": 01}", "this is not a number"),
        ("{\"version\": 1} x", "column 16: `x` stands behind the end"),
        ("{'version': 1}", "write the name in double quotes"),
        ("{\"versiön\": 1, \"a\" 1}", "line 1, column 20"),
        (
            "{\"version\": 1, \"labels\": {\"a\": \"x\ny\"}}",
            "line 1, column 34: this line ends inside quotes",
        ),
        ("// comment\n{}", "JSON has no comments"),
        ("[]", "an object is needed, this is a list"),
        ("null", "an object is needed, this is null"),
        (
            "{\"version\": 1}{\"version\": 1}",
            "behind the end of the policy",
        ),
    ] {
        complains(text, expected);
    }
    let said = Policy::from_json(b"{\n \"version\xff\": 1}").unwrap_err()[0].to_string();
    assert!(
        said.contains("line 2, column 10: this byte is not UTF-8"),
        "{said}"
    );
    let said = Policy::from_json(b"\xff\xfe{\0").unwrap_err()[0].to_string();
    assert!(said.contains("UTF-16"), "{said}");
    assert!(Policy::from_json(b"\xef\xbb\xbf{\"version\": 1}").is_ok());
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_text() {
    let said = complaints(
        "{\n  \"version\": 1,\n  \"alow\": {},\n  \"allow\": {\"domains\": [\"api.openai.com\", 7, \"http://x.y/\"], \"ips\": \
         [\"10.0.0.1/8\", \"10.0.0.0/8\"], \"ports\": [0, 70000, \"443\"]},\n  \"hosts\": {\"agent-1\": {\"sources\": \
         [\"192.0.2.0/24\"], \"allow\": {\"ips\": [\"0.0.0.0/1\", \"1.2.3.4\"]}}}\n}",
    );
    assert_eq!(
        said,
        [
            "line 3, column 3: alow: this field is not known here; did you mean allow?",
            "line 4, column 43: allow.domains[1]: a text is needed, this is a number; write a domain in quotes, such as \
             \"api.example.com\"",
            "line 4, column 46: allow.domains[2]: `http://x.y/` is a URL; write its name alone: x.y",
            "line 4, column 70: allow.ips[0]: `10.0.0.1/8` has host bits set; write 10.0.0.0/8 for the network, or \
             10.0.0.1/32 for the one host",
            "line 4, column 109: allow.ports[0]: 0 is not a port; write a number from 1 to 65535",
            "line 4, column 112: allow.ports[1]: 70000 is not a port; write a number from 1 to 65535",
            "line 4, column 119: allow.ports[2]: a number is needed, this is a text; write a number from 1 to 65535",
            "line 5, column 85: hosts.agent-1.allow.ips[1]: `1.2.3.4` has no prefix length; write 1.2.3.4/32 for this one \
             address, or its network",
        ]
    );
}

#[test]
fn unusual_is_only_warned_of() {
    let said = |rest: &str| warnings(&format!(r#"{{"version": 2, {rest}}}"#));
    assert!(
        said(r#""allow": {"domains": ["*.com"]}"#)
            .contains("allow.domains[0]: `*.com` means every name below .com")
    );
    assert!(
        said(r#""allow": {"ips": ["10.0.0.0/8", "0.0.0.0/0"]}"#)
            .contains("allow.ips[1]: 0.0.0.0/0 allows every address")
    );
    assert!(
        said(r#""hosts": {"a": {"sources": ["192.0.2.1/32"]}}"#)
            .contains("hosts.a: the host reaches nothing")
    );
    assert!(
        said(r#""proxy": {"domains": ["a.example"]}"#).contains("proxy: the proxy has no mode")
    );
    assert!(
        said(r#""proxy": {"mode": "sni-allowlist"}, "allow": {"ports": [{"port": 443, "protocol": "udp"}]}"#)
            .contains("allow.ports[0]: UDP 443 stays closed")
    );
    assert!(
        said(r#""labels": {"a.exmaple": "x"}"#)
            .contains("a.exmaple has a label and is allowed to nobody")
    );
    assert!(
        said(r#""allow": {"domains": ["a.example"]}"#)
            .contains("other sites at the same addresses")
    );
    assert!(
        said(r#""hosts": {"a": {"sources": ["192.0.2.1/32"], "exfil": {"domains": {"a.example": {"bytes": 1, "period": "hour"}}}}}"#)
            .contains("hosts.a.exfil.domains[\"a.example\"]: the cap limits nothing")
    );
    assert_eq!(
        said(r#""allow": {"domains": ["a.example"]}, "proxy": {"mode": "sni-allowlist"}"#),
        ""
    );
}
