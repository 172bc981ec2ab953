//! What a policy.json may not say, field by field, and the words with which it is refused.

use clawgress_config::policy::Policy;

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

/// Complains of the one line that has `field`.
fn complains_of(field: &str, expected: &str) {
    complains(&format!("{{\"version\": 1,\n {field}}}"), expected);
}

/// Complains of a field of a host that is sound without it.
fn host_complains(field: &str, expected: &str) {
    complains_of(
        &format!(r#""hosts": {{"agent-1": {{"sources": ["192.0.2.1/32"], {field}}}}}"#),
        expected,
    );
}

#[test]
fn wrong_fields_and_types() {
    complains("{}", "version: the version is missing; add \"version\": 1");
    complains(
        r#"{"version": 3}"#,
        "this image knows policies up to version 2, not version 3",
    );
    complains(
        r#"{"version": "1"}"#,
        "a number is needed, this is a text; write 1 or 2",
    );
    complains(
        r#"{"version": 1.0}"#,
        "1.0 is not a whole number in plain digits",
    );
    complains_of(
        r#""version": 1"#,
        "this field is there twice; keep one of them",
    );
    complains_of(
        r#""allow": {"domain": []}"#,
        "allow.domain: this field is not known here; did you mean domains?",
    );
    complains_of(
        r#""time_window": null"#,
        "an object is needed, this is null; write {\"days\"",
    );
    complains_of(r#""time_window": null"#, "or leave the field out");
    complains_of(
        r#""allow": {"domains": "a.example"}"#,
        "a list is needed, this is a text",
    );
    complains_of(
        r#""allow": []"#,
        "allow: an object is needed, this is a list",
    );
    complains_of(r#""zzz": [[[[{}]]]]"#, "known here: version, allow, labels");
    complains_of(r#""a b\n": 1"#, "[\"a b\u{fffd}\"]: this field");
    host_complains(
        r#""label": {}"#,
        "hosts.agent-1.label: this field is not known here",
    );
    host_complains(r#""exfil": {"domain": {}}"#, "did you mean domains?");
}

#[test]
fn wrong_domains() {
    let domain = |domain: &str, expected: &str| {
        complains_of(
            &format!(r#""allow": {{"domains": ["{domain}"]}}"#),
            expected,
        )
    };
    domain(
        &format!("{}.com", "a".repeat(300)),
        "304 characters; a domain has at most 253",
    );
    domain("a..b", "an empty part");
    domain("192.0.2.1", "write it under ips: 192.0.2.1/32");
    domain("*", "every domain there is");
    domain("", "the domain is empty");
    domain("a.example:443", "and its port under ports: 443");
    complains_of(
        r#""allow": {"domains": ["a.example", "b.example", "A.Example."]}"#,
        "allow.domains[2]: this is in the list already, at [0]",
    );
    complains_of(
        r#""labels": {"a.example": "x", "A.example": "y"}"#,
        "labels[\"a.example\"]: this domain is there twice",
    );
    complains_of(
        r#""labels": {"a.example": "x", "a.example": "x"}"#,
        "there twice",
    );
    complains_of(r#""labels": {"a.example": ""}"#, "the label is empty");
    complains_of(r#""labels": {"a.example": "a\u0007"}"#, "control character");
    complains_of(
        r#""labels": {"a example": "x"}"#,
        "labels[\"a example\"]: `a example` has a space",
    );
    complains_of(
        r#""labels": {"a.example": null}"#,
        "labels[\"a.example\"]: a text is needed",
    );
}

#[test]
fn wrong_windows() {
    let window = |window: &str, expected: &str| {
        complains_of(&format!(r#""time_window": {{{window}}}"#), expected)
    };
    window(
        r#""days": [], "start": "09:00", "end": "17:00""#,
        "time_window: the window has no day",
    );
    window(
        r#""days": ["mon"], "start": "09:00", "end": "09:00""#,
        "no length: it starts and ends at 09:00",
    );
    window(
        r#""days": ["mon"], "start": "24:00", "end": "09:00""#,
        "24:00 is an end only",
    );
    window(
        r#""start": "09:00", "end": "17:00""#,
        "time_window.days: this field is missing",
    );
    window(
        r#""days": ["mon"], "start": "09:00""#,
        "time_window.end: this field is missing",
    );
    window(
        r#""days": ["Monday"], "start": "09:00", "end": "17:00""#,
        "time_window.days[0]: `Monday` is not a day",
    );
    window(
        r#""days": ["mon", "mon"], "start": "09:00", "end": "17:00""#,
        "in the list already",
    );
    window(
        r#""days": ["mon"], "start": "9:00", "end": "17:00""#,
        "two digits each",
    );
    window(
        r#""days": ["mon"], "start": 9, "end": "17:00""#,
        "time_window.start: a text is needed",
    );
    complains_of(
        r#""domain_time_windows": {"a.example": {"days": ["mon"], "start": "09:00", "end": "17:00"}}"#,
        "domain_time_windows[\"a.example\"]: the window is for a.example, which is not allowed",
    );
    // The operator relies on it, and it would restrict nothing.
    complains_of(
        r#""allow": {"domains": ["*.example"]},
           "domain_time_windows": {"a.example": {"days": ["mon"], "start": "09:00", "end": "17:00"}}"#,
        "line 3, column 36: domain_time_windows[\"a.example\"]: the window would hold for nothing: a.example is not \
         allowed by that name, only *.example is",
    );
}

#[test]
fn wrong_hosts() {
    complains_of(
        r#""hosts": {"agent-1": {}}"#,
        "hosts.agent-1.sources: the host has no source",
    );
    complains_of(
        r#""hosts": {"agent-1": {"sources": []}}"#,
        "the host has no source",
    );
    complains_of(
        r#""hosts": {"lan/eth1": {"sources": ["192.0.2.1/32"]}}"#,
        "is not the name of a host",
    );
    let sources = |a: &str, b: &str| {
        format!(
            "{{\"version\": 1, \"hosts\": {{\n \"a\": {{\"sources\": [\"{a}\"]}},\n \"b\": {{\"sources\": [\"{b}\"]}}}}}}"
        )
    };
    complains(
        &sources("192.0.2.0/24", "192.0.2.0/24"),
        "line 3, column 20: hosts.b.sources[0]: 192.0.2.0/24 is a source of a and of b",
    );
    assert!(Policy::from_json(sources("192.0.2.0/24", "192.0.2.0/25").as_bytes()).is_ok());
    complains(
        &sources("192.0.2.1/24", "192.0.3.0/24"),
        "hosts.a.sources[0]: `192.0.2.1/24` has host bits set",
    );
    complains(
        &sources("127.0.0.0/8", "192.0.3.0/24"),
        "no network that a host's packets come from",
    );
    complains(
        r#"{"version": 1, "hosts": {"a": {"sources": ["192.0.2.1/32"]}, "a": {"sources": ["192.0.2.2/32"]}}}"#,
        "hosts.a: this host is there twice",
    );
}

#[test]
fn wrong_caps_and_limits() {
    let cap = |cap: &str, expected: &str| {
        host_complains(
            &format!(
                r#""allow": {{"domains": ["a.example"]}}, "exfil": {{"domains": {{"a.example": {{{cap}}}}}}}"#
            ),
            expected,
        );
    };
    let path = "hosts.agent-1.exfil.domains[\"a.example\"]";
    cap(
        r#""bytes": -1, "period": "hour""#,
        &format!("{path}.bytes: -1 is negative"),
    );
    cap(
        r#""bytes": 1e9, "period": "hour""#,
        "1e9 is not a whole number in plain digits",
    );
    cap(
        r#""bytes": 99999999999999999999, "period": "hour""#,
        "larger than any number here",
    );
    cap(
        r#""bytes": 9999999999999999999, "period": "hour""#,
        "more than can be counted",
    );
    cap(r#""bytes": NaN, "period": "hour""#, "JSON has no NaN");
    cap(
        r#""bytes": 0, "period": "hour""#,
        "0 bytes would let nothing through",
    );
    cap(r#""bytes": "1MB", "period": "hour""#, "a number is needed");
    cap(
        r#""bytes": 1, "period": "week""#,
        "write one of: second, minute, hour, day",
    );
    cap(
        r#""bytes": 1"#,
        &format!("{path}.period: this field is missing"),
    );
    host_complains(
        r#""allow": {"domains": ["*.example"]}, "exfil": {"domains": {"a.example": {"bytes": 1, "period": "hour"}}}"#,
        "the cap would hold for nothing: a.example is not allowed by that name, only *.example is",
    );
    complains_of(
        r#""limits": {"egress_kbps": 0}"#,
        "limits.egress_kbps: 0 kbit/s",
    );
    complains_of(r#""limits": {"egress_kbps": -5}"#, "negative");
    complains_of(
        r#""limits": {"egress_kbps": 1000000001}"#,
        "at most 1000000000",
    );
    complains_of(
        r#""limits": {"egress_kpbs": 5}"#,
        "did you mean egress_kbps?",
    );
}

#[test]
fn wrong_proxies() {
    let proxy =
        |proxy: &str, expected: &str| complains_of(&format!(r#""proxy": {{{proxy}}}"#), expected);
    proxy(r#""mode": "sni""#, "did you mean sni-allowlist?");
    proxy(
        r#""backend": "gw""#,
        "proxy.backend: `gw` is not a gateway with its port",
    );
    proxy(
        r#""mtls": {"ca": "/config/a.pem", "key": "/etc/shadow"}"#,
        "proxy.mtls.certificate: this field is missing",
    );
    proxy(
        r#""mtls": {"ca": "/config/a.pem", "key": "/etc/shadow"}"#,
        "proxy.mtls.key: `/etc/shadow` is not a file below /config",
    );
}
