//! Agents, rules and quotas as operators type them, and what is said of wrong lines.

use clawgress_config::access::{Access, Action, AuthType, KeySource, QuotaMode, RuleMode, Status};
use clawgress_config::load;

const TYPED: &str = "set service clawgress enable
set service clawgress gateway enable
set service clawgress gateway contact \"the platform team\"
set service clawgress identity issuer login issuer https://login.example.com/
set service clawgress identity issuer login audience clawgress
set service clawgress identity issuer login algorithm EdDSA
set service clawgress identity issuer login key-file /config/keys/login.jwks
set service clawgress agent agent-1 team research
set service clawgress agent agent-1 project crawler
set service clawgress agent agent-1 environment production
set service clawgress agent agent-1 auth-type api-key
set service clawgress agent agent-1 source 192.168.10.10/32
set service clawgress agent agent-1 source-bound
set service clawgress rule llm action allow
set service clawgress rule llm identity team research
set service clawgress rule llm domain *.openai.com
set service clawgress rule llm port 443
set service clawgress rule no-uploads action deny
set service clawgress rule no-uploads priority 10
set service clawgress rule no-uploads mode report
set service clawgress rule no-uploads method POST
set service clawgress rule no-uploads path-prefix /upload
set service clawgress rule no-uploads port 80
set service clawgress quota agent agent-1 rps 5
set service clawgress quota agent agent-1 mode soft-stop
set service clawgress quota team research bytes 1000000
set service clawgress quota team research period day
";

fn access(text: &str) -> Access {
    load(text.as_bytes())
        .expect(text)
        .document
        .clawgress
        .expect(text)
        .access
}

fn below(lines: &str) -> String {
    lines.lines().fold(String::new(), |text, line| {
        text + "set service clawgress " + line + "\n"
    })
}

#[test]
fn lines_as_typed() {
    let access = access(TYPED);
    let agent = &access.agents["agent-1"];
    assert_eq!(agent.team_id, "research");
    assert_eq!(
        (agent.auth_type, agent.status),
        (AuthType::ApiKey, Status::Active)
    );
    assert!(agent.bound && agent.sources.len() == 1);
    let rule = &access.rules["llm"];
    assert_eq!((rule.priority, rule.version, rule.enabled), (1000, 1, true));
    assert_eq!((rule.action, rule.mode), (Action::Allow, RuleMode::Enforce));
    assert_eq!(access.rules["no-uploads"].mode, RuleMode::Report);
    assert_eq!(access.quotas.agents["agent-1"].mode, QuotaMode::SoftStop);
    let issuer = &access.issuers["login"];
    assert_eq!(issuer.leeway_seconds, 30);
    let keys = KeySource::File("/config/keys/login.jwks".to_owned());
    assert_eq!(issuer.keys, keys);
    assert_eq!(access.gateway.contact.as_deref(), Some("the platform team"));
    assert!(access.gateway.enabled && access.gateway.port == 3128);
    assert_eq!(
        load(b"set service clawgress enable")
            .unwrap()
            .document
            .clawgress
            .unwrap()
            .access,
        Access::default()
    );
}

/// The object that the data contracts name, field by field.
#[test]
fn a_rule_as_json() {
    let json = serde_json::to_string(&access(TYPED).rules["no-uploads"]).unwrap();
    assert_eq!(
        json,
        r#"{"version":1,"priority":10,"enabled":true,"mode":"report","match":{"destination":{"ports":[80]},"method":["POST"],"path_prefix":["/upload"]},"action":"deny"}"#
    );
}

/// Complains of these lines below `service clawgress`.
fn complains(lines: &str, expected: &str) {
    let text = below(lines);
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

fn warns(lines: &str, expected: &str) {
    let text = below(lines);
    let said: Vec<_> = load(text.as_bytes())
        .expect(&text)
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        said.iter().any(|line| line.contains(expected)),
        "{expected:?} not in {said:#?}"
    );
}

const AGENT: &str =
    "agent a team t\nagent a project p\nagent a environment e\nagent a auth-type api-key\n";

#[test]
fn wrong_lines() {
    for (lines, expected) in [
        (
            "agent a team t",
            "agent a: project is missing; add service clawgress agent a project",
        ),
        ("agent a/b team t", "`a/b` is not an id"),
        ("agent a auth-type apikey", "did you mean api-key?"),
        ("agent a status off", "write one of: active, disabled"),
        ("rule r priority 5", "rule r: action is missing"),
        ("rule policy.json action deny", "choose another name"),
        ("rule r action permit", "write one of: allow, deny"),
        ("rule r priority -1", "not a whole number"),
        (
            "rule r priority 1000001",
            "write a number from 0 to 1000000",
        ),
        ("rule r version 0", "write a number from 1 to"),
        ("rule r identity agent a!", "agent-*"),
        ("rule r identity agnet a", "did you mean agent?"),
        ("rule r domain *", "every domain there is"),
        ("rule r network 10.1.2.3/8", "write 10.0.0.0/8"),
        ("rule r method get", "methods are written in capitals: GET"),
        ("rule r path-prefix v1", "begins with /"),
        ("rule r path-prefix /a/../b", "write /b"),
        (
            "rule r action allow\nrule r time-window day mon",
            "start is missing",
        ),
        ("quota agent a rps 0", "write a number from 1 to"),
        ("quota agent a bytes 5", "quota agent a: period is missing"),
        ("quota agent a mode hard_stop", "did you mean hard-stop?"),
        ("quota fail-mode soft", "did you mean soft-fail?"),
        (
            "identity issuer i issuer x",
            "nothing says where its keys are",
        ),
        (
            "identity issuer i issuer x\nidentity issuer i own\nidentity issuer i key-url https://a.example/",
            "its keys are given in 2 ways: key-url, own",
        ),
        ("identity issuer i algorithm HS256", "did you mean ES256?"),
        (
            "identity issuer i key-url https://u@a.example/",
            "not a URL",
        ),
        ("identity client-ca agents.pem", "not a file below /config"),
        ("gateway port 0", "not a port"),
        ("gateway contact a b", "double quotes"),
        ("gateway idle-timeout 0", "write a number from 1 to 86400"),
        ("audit durability strikt", "did you mean strict?"),
        (
            "audit syslog ca /config/a.pem",
            "audit syslog: to is missing",
        ),
        ("audit otlp to collector:4318", "not a URL"),
        ("environment e policy-fail-mode opne", "did you mean open?"),
    ] {
        complains(lines, expected);
    }
}

#[test]
fn what_is_wrong_together() {
    complains(
        &format!("{AGENT}agent a source-bound"),
        "agent a source-bound: the agent is bound to its sources, and has none",
    );
    complains(
        &format!("{AGENT}agent a source 192.0.2.1/32\npolicy host h source 192.0.2.1/32"),
        "192.0.2.1/32 is a source of h, too",
    );
    complains(
        &format!(
            "{AGENT}agent a source 192.0.2.1/32\nagent a source 198.51.100.1/32\npolicy host h source 192.0.2.0/24"
        ),
        "198.51.100.1/32 lies in no host, and 192.0.2.1/32 in host h",
    );
    complains(
        "gateway port 3128\ngateway tls-port 3128",
        "write two different ports",
    );
    complains("gateway port 53", "this machine's resolver");
    complains("identity client-crl /config/a.crl", "none is trusted");
    let issuer = |name: &str, keys: &str| {
        format!(
            "identity issuer {name} issuer same\nidentity issuer {name} audience x\n\
             identity issuer {name} algorithm ES256\nidentity issuer {name} {keys}\n"
        )
    };
    complains(
        &[issuer("a", "own"), issuer("b", "own")].concat(),
        "`same` is the issuer of a, too",
    );
    complains(
        &issuer("a", "key-url http://a.example/k"),
        "begins with https://",
    );
    complains(
        &issuer("a", "key-url https://127.0.0.1/k"),
        "this machine serves nobody's keys",
    );
    complains(
        &issuer("a", "own\nidentity issuer a key-ca /config/a.pem"),
        "authorities are given for keys that nobody fetches",
    );
}

#[test]
fn what_tls_hides_is_refused_and_not_skipped() {
    for lines in [
        "rule r action deny\nrule r path-prefix /admin",
        "rule r action deny\nrule r method DELETE\nrule r domain a.example",
        "rule r action allow\nrule r method GET\nrule r domain a.example\nrule r port 443\nrule r port 80",
        "rule r action deny\nrule r path-prefix /admin\nrule r disable",
    ] {
        complains(lines, "cannot be enforced without inspection");
    }
    complains(
        "rule r action allow\nrule r method CONNECT\nrule r path-prefix /a\nrule r port 80",
        "a tunnel has no path",
    );
    access(&below(
        "rule r action deny\nrule r method DELETE\nrule r path-prefix /admin\nrule r port 80",
    ));
    access(&below("rule r action deny\nrule r method CONNECT"));
    warns(
        "rule r action deny\nrule r path-prefix /admin\nrule r port 8080",
        "rule r port 8080: path-prefix of what runs in a tunnel to port 8080 cannot be seen; the rule denies every tunnel",
    );
}

#[test]
fn what_is_hardly_meant() {
    warns("rule r action allow", "allows every destination");
    warns(
        "rule r action allow\nrule r domain *.com",
        "every name below .com",
    );
    warns(
        "rule r action allow\nrule r mode report",
        "only denials are softened",
    );
    warns(
        "rule r action deny\nrule r upgrade",
        "upgrade is a permission",
    );
    warns("quota agent a rps 1", "there is no agent and no host a");
    warns("quota team t mode alert-only", "the quota limits nothing");
    warns("gateway enable", "the proxy has no agents");
    warns("audit otlp to http://192.0.2.7/", "without TLS");
    let jwt = AGENT.replace("api-key", "jwt");
    warns(&jwt, "agent a auth-type: no issuer of tokens is trusted");
    warns(
        &format!("{AGENT}rule r action deny\nrule r identity team x"),
        "rule r identity team x: no agent has the team x",
    );
}

#[test]
fn json_takes_nothing_that_the_configuration_would_not() {
    for (json, expected) in [
        ("{\"agnets\":{}}", "unknown field `agnets`"),
        (
            "{\"agents\":{\"a b\":{\"team_id\":\"t\",\"project_id\":\"p\",\"environment\":\"e\",\"auth_type\":\"jwt\",\"status\":\"active\"}}}",
            "agents.a b: `a b` is not an id",
        ),
        (
            "{\"rules\":{\"r\":{\"version\":1,\"priority\":1,\"enabled\":true,\"mode\":\"enforce\",\"match\":{\"path_prefix\":[\"/a\"]},\"action\":\"deny\"}}}",
            "cannot be enforced without inspection",
        ),
        (
            "{\"rules\":{\"r\":{\"version\":1,\"priority\":1,\"enabled\":true,\"mode\":\"enforce\",\"match\":{\"destination\":{\"domains\":[\"*\"]}},\"action\":\"deny\"}}}",
            "every domain there is",
        ),
    ] {
        let error = Access::from_json(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
