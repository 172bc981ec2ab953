//! What people see, held against files that are reviewed like code. `BLESS=1` writes them anew.

use std::{collections::BTreeMap, path::Path, time::Duration};

use clawgress_link::{
    admin::{Health, Key, NewKey, Overview, PolicyReply, Refused, Role, Trouble},
    control::{CapUse, DomainTelemetry, PrincipalTelemetry, Report, Stage, Status, Telemetry},
    health::{self, Check},
};

use crate::{ask::Failure, show, style::Style, telemetry};

pub(crate) fn golden(name: &str, shown: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    let shown = format!("{shown}\n");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(shown, expected, "{name}");
}

fn overview(enforcing: bool) -> Overview {
    let check = |name: &str, took, word: Result<&str, &str>| {
        let word = word.map(str::to_owned).map_err(str::to_owned);
        Check::of(name, Duration::from_millis(took), word)
    };
    let mut checks = vec![
        check(
            "ruleset",
            3,
            Ok("generation 12, sets and chains as compiled"),
        ),
        check("named", 120, Ok("denies by the policy zone, serial 7")),
    ];
    if !enforcing {
        checks.push(check("dns", 3000, Err("no answer within 3000 ms\u{1b}[2J")));
    }
    Overview {
        health: Health {
            report: health::Report::of(checks),
            revision: Some(7),
            generation: Some(12),
            clock_trusted: Some(enforcing),
            dns: enforcing,
            services_wanted: false,
            services: if enforcing {
                vec![
                    check("gateway", 1, Ok("answers, and admits nobody")),
                    check("audit", 0, Err("asking clawgress-audit: refused")),
                ]
            } else {
                Vec::new()
            },
        },
        enforcer: Some(Status {
            revision: Some(7),
            generation: 12,
            enforcing,
            detail: String::new(),
            principals: 3,
            domains: 100_004,
            pins: 51,
            clock_trusted: enforcing,
            next_change: Some(1_764_000_000),
            warnings: vec!["host agent-2 has no allow: it reaches nothing".to_owned()],
        }),
        boot_revision: Some(if enforcing { 7 } else { 6 }),
    }
}

fn told() -> Telemetry {
    let openai = DomainTelemetry {
        queries: 1200,
        cache_hits: 1100,
        denied: 0,
        flows: 37,
        bytes_out: 1_572_864,
        bytes_in: 52_428_800,
    };
    let agent = PrincipalTelemetry {
        queries: 1234,
        cache_hits: 1100,
        flows: 37,
        bytes_out: 1_572_864,
        bytes_in: 52_428_800,
        denied: BTreeMap::from([("not-allowlisted".to_owned(), 31), ("no-sni".to_owned(), 3)]),
        domains: BTreeMap::from([("api.openai.com".to_owned(), openai)]),
        caps: vec![CapUse {
            domain: "api.openai.com".to_owned(),
            period: "hour".to_owned(),
            limit: 2_097_152,
            used: 1_572_864,
            resets_at: 1_764_000_000,
        }],
    };
    Telemetry {
        window: "24h".to_owned(),
        principals: BTreeMap::from([
            ("agent-1".to_owned(), agent),
            ("lan/eth1".to_owned(), PrincipalTelemetry::default()),
        ]),
        top_denied: vec![
            ("evil.example".to_owned(), 28),
            ("198.51.100.7".to_owned(), 3),
        ],
    }
}

fn reply(applied: bool) -> PolicyReply {
    let stage = |name: &str, took_ms, detail: &str| Stage {
        name: name.to_owned(),
        ok: true,
        took_ms,
        detail: detail.to_owned(),
    };
    PolicyReply {
        ok: true,
        applied,
        revision: applied.then_some(8),
        report: Report {
            revision: 8,
            ok: true,
            applied,
            stages: vec![
                stage("compile", 4, "3 principals, 12 domains"),
                stage("nft", 31, "checked by the kernel"),
            ],
        },
        warnings: vec!["allow: other sites at the same addresses are reachable".to_owned()],
        note: "revision 8 is enforced".to_owned(),
    }
}

#[test]
fn status() {
    golden("status.txt", &show::status(&overview(true), Style::plain()));
    golden(
        "status-broken.txt",
        &show::status(&overview(false), Style::plain()),
    );
}

#[test]
fn telemetry_and_stats() {
    golden("telemetry.txt", &telemetry::whole(&told(), Style::plain()));
    golden("stats.txt", &telemetry::denials(&told(), Style::plain()));
    let nothing = Telemetry {
        window: "24h".to_owned(),
        ..Telemetry::default()
    };
    golden(
        "stats-nothing.txt",
        &telemetry::denials(&nothing, Style::plain()),
    );
}

#[test]
fn an_applied_policy() {
    golden("applied.txt", &show::applied(&reply(true), Style::plain()));
}

#[test]
fn a_refused_policy() {
    let trouble = |path: &str, line, column, what: &str, fix: &str| Trouble {
        path: path.to_owned(),
        line: Some(line),
        column: Some(column),
        what: what.to_owned(),
        fix: fix.to_owned(),
    };
    let failure = Failure::Refused {
        file: Some("/tmp/policy.json".into()),
        refused: Box::new(Refused {
            error: "invalid policy".to_owned(),
            reason: "2 problems; nothing was changed".to_owned(),
            problems: vec![
                trouble(
                    "alow",
                    3,
                    3,
                    "there is no such field",
                    "did you mean allow?",
                ),
                trouble(
                    "hosts.agent-1.allow.ports[2]",
                    9,
                    17,
                    "70000 is no port",
                    "1 to 65535",
                ),
            ],
            report: None,
        }),
    };
    golden("refused.txt", &show::complaint(&failure));
}

#[test]
fn keys() {
    let key = |id: &str, last_used, revoked| Key {
        id: id.to_owned(),
        name: "ci".to_owned(),
        role: Role::Operator,
        created: 1_764_000_000,
        last_used,
        revoked,
    };
    let keys = [
        key("abcdefgh", Some(1_764_000_100), None),
        key("ijklmnop", None, Some(1_764_000_200)),
    ];
    golden("keys.txt", &show::keys(&keys, Style::plain()));
    let new = NewKey {
        key: "cg_abcdefgh_secret".to_owned(),
        about: key("abcdefgh", None, None),
    };
    golden("new-key.txt", &show::new_key(&new, Style::plain()));
}
