//! Whole explanations of a small revision: where names lead, what each way says, what binds.

use std::net::IpAddr;

use clawgress_link::agents::{Agent, Explained};
use clawgress_link::control::CapUse;

use super::{Cards, Question, explain};
use crate::daemon::assemble;

const BOX: &str = "
interfaces {
  ethernet eth0 { address 203.0.113.7/24; role wan }
  ethernet eth1 { address 192.168.10.1/24; role lan }
}
service { clawgress {
  enable
  policy {
    domain a.example
    ip 10.77.0.0/16
    port 443
    host desk {
      source 192.168.10.0/28
      domain a.example
      domain *.shop.example
      ip 10.77.0.0/16
      port 443
      proxy { mode sni-allowlist }
      exfil { domain *.shop.example { bytes 1000 period day } }
    }
  }
  gateway { enable }
  agent agent-1 { team red; project search; environment prod; auth-type api-key; source 192.168.10.5/32 }
  agent agent-3 { team red; project search; environment prod; auth-type api-key; source 192.168.10.40/32 }
  agent agent-2 { team blue; project search; environment prod; auth-type api-key }
  rule no-net { action deny; priority 10; network 198.51.100.0/24 }
  quota { agent agent-1 { rps 5 mode soft-stop } team red { rpm 100 bytes 4096 period hour } }
} }";

fn asked(agent: &str, url: &str, resolved: Result<&[&str], &str>) -> Explained {
    let document = clawgress_config::load(BOX.as_bytes()).unwrap().document;
    let revision = assemble::revision(7, 1, &document, assemble::policy(&document));
    let about = &revision.access.agents[agent];
    let agent = Agent {
        agent_id: agent.to_owned(),
        team_id: about.team_id.clone(),
        project_id: about.project_id.clone(),
        environment: about.environment.clone(),
        auth_type: "api-key".to_owned(),
        status: "active".to_owned(),
        sources: Vec::new(),
        bound: false,
        keys: None,
        blocked: None,
    };
    let resolved = resolved
        .map(|all| {
            all.iter()
                .map(|text| text.parse::<IpAddr>().unwrap())
                .collect()
        })
        .map_err(str::to_owned);
    let caps = vec![CapUse {
        domain: "*.shop.example".to_owned(),
        period: "day".to_owned(),
        limit: 1000,
        used: 400,
        resets_at: 0,
    }];
    let question = Question {
        agent,
        url: url.to_owned(),
        method: None,
        at: None,
        now: 1_764_000_000,
        clock_trusted: true,
        resolved,
        cards: Cards::default(),
        caps: Some(vec![("desk".to_owned(), caps)]),
    };
    let told = explain(&revision, question.clone()).unwrap();
    // The same question, the same answer.
    assert_eq!(told, explain(&revision, question).unwrap());
    told
}

fn path<'t>(told: &'t Explained, name: &str) -> (Option<bool>, &'t str) {
    let path = told.paths.iter().find(|path| path.path == name).unwrap();
    (path.allowed, &path.why)
}

#[test]
fn each_address_has_its_class_and_who_would_not_dial_it() {
    let leads = [
        "192.0.2.1",
        "10.1.2.3",
        "10.77.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "192.168.10.1",
        "192.168.10.77",
        "198.51.100.9",
        "203.0.113.7",
    ];
    let told = asked("agent-1", "https://a.example/", Ok(&leads));
    let shown: Vec<(&str, &str, Option<&str>)> = told
        .addresses
        .iter()
        .map(|led| (&*led.address, &*led.class, led.refused.as_deref()))
        .collect();
    let private = Some("private-address");
    assert_eq!(
        shown,
        [
            ("192.0.2.1", "public", None),
            ("10.1.2.3", "private", private),
            ("10.77.0.1", "private", None),
            ("127.0.0.1", "own", private),
            ("169.254.169.254", "metadata", private),
            ("192.168.10.1", "own", private),
            ("192.168.10.77", "agents-network", private),
            ("198.51.100.9", "public", Some("rule: no-net")),
            ("203.0.113.7", "own", private),
        ]
    );
    assert_eq!(path(&told, "proxy"), (Some(true), "by policy.json"));
    let told = asked("agent-1", "https://a.example/", Ok(&["10.1.2.3"]));
    assert!(told.allowed, "the name itself is allowed");
    assert_eq!(
        path(&told, "proxy"),
        (Some(false), "private-address, for all addresses")
    );
}

#[test]
fn each_way_has_its_own_verdict() {
    let told = asked("agent-1", "https://x.shop.example/", Ok(&["192.0.2.1"]));
    // The lists of the host around it are for its packets and for its requests from there.
    assert_eq!(
        path(&told, "name"),
        (Some(true), "TLS hello, by *.shop.example")
    );
    assert_eq!(path(&told, "address").0, None);
    let told = asked("agent-1", "x.shop.example:8443", Ok(&["192.0.2.1"]));
    assert_eq!(
        path(&told, "name"),
        (None, "no name is read from what goes to port 8443")
    );
    assert_eq!(path(&told, "address"), (Some(false), "port"));
    let told = asked("agent-1", "https://10.77.0.9/", Ok(&["10.77.0.9"]));
    assert_eq!(path(&told, "name"), (None, "an address shows no name"));
    assert_eq!(path(&told, "address").0, None, "{:?}", told.paths);
    let told = asked("agent-3", "https://10.77.0.9/", Ok(&["10.77.0.9"]));
    assert_eq!(path(&told, "address").0, Some(true), "{:?}", told.paths);
    let told = asked("agent-3", "https://a.example/", Ok(&["192.0.2.1"]));
    assert_eq!(path(&told, "address"), (Some(true), "by a.example"));
    let told = asked("agent-3", "https://a.example/", Err("named is silent"));
    assert_eq!(
        path(&told, "address"),
        (Some(false), "nothing is pinned: named is silent")
    );
    // Whoever has no address has no packets of its own.
    let told = asked("agent-2", "https://a.example/", Ok(&["192.0.2.1"]));
    assert_eq!(path(&told, "proxy").0, Some(true));
    for name in ["name", "address"] {
        let (allowed, why) = path(&told, name);
        assert!(allowed.is_none() && why.contains("no address is this agent's own"));
    }
}

#[test]
fn a_name_that_leads_nowhere_says_so_and_nothing_else_changes() {
    let known = asked("agent-1", "https://a.example/", Ok(&["192.0.2.1"]));
    let told = asked("agent-1", "https://a.example/", Err("named is silent"));
    assert_eq!(told.unresolved.as_deref(), Some("named is silent"));
    assert!(told.addresses.is_empty() && told.allowed);
    assert_eq!(told.considered, known.considered);
    assert_eq!(
        path(&told, "proxy"),
        (Some(false), "unresolved: named is silent")
    );
    let told = asked("agent-1", "https://denied.example/", Err("named is silent"));
    assert_eq!(
        path(&told, "proxy"),
        (Some(false), "by default: not-allowlisted")
    );
}

#[test]
fn what_binds_is_told_with_what_is_left_where_somebody_knows() {
    let told = asked("agent-1", "https://x.shop.example/", Ok(&["192.0.2.1"]));
    let limits: Vec<(&str, &str, u64, Option<u64>, &str)> = told
        .limits
        .iter()
        .map(|one| (&*one.limit, &*one.of, one.most, one.left, &*one.beyond))
        .collect();
    assert_eq!(limits[0], ("agent-rps", "agent-1", 5, None, "soft-stop"));
    assert_eq!(limits[1], ("team-rpm", "red", 100, None, "hard-stop"));
    assert_eq!(limits[2], ("team-bytes", "red", 4096, None, "hard-stop"));
    assert_eq!(limits[3].0, "connections-per-agent");
    assert_eq!(
        limits[4],
        (
            "cap",
            "desk on *.shop.example",
            1000,
            Some(600),
            "denied until the period ends"
        )
    );
    let told = asked("agent-2", "https://a.example/", Ok(&["192.0.2.1"]));
    assert_eq!(told.limits.len(), 1, "{:?}", told.limits);
}
