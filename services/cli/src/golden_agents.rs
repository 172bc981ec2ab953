//! What people see of agents, decisions and the trail, held against files that are reviewed like code.

use clawgress_link::agents::{
    Agent, AgentKey, AgentView, Agents, Blocked, Considered, Explained, Flow, Flows, Led, Limit,
    NewAgentKey, OnPath,
};
use serde_json::{Value, json};

use crate::{
    agents, explain,
    golden::golden,
    style::{Style, table},
    trail,
};

const NOW: i64 = 1_764_000_000;

fn agent(id: &str, status: &str, blocked: Option<bool>) -> Agent {
    Agent {
        agent_id: id.to_owned(),
        team_id: "red".to_owned(),
        project_id: "search".to_owned(),
        environment: "prod".to_owned(),
        auth_type: "api-key".to_owned(),
        status: status.to_owned(),
        sources: Vec::new(),
        bound: false,
        keys: blocked.map(|_| 2),
        blocked,
    }
}

fn key(prefix: &str, expires: Option<i64>, revoked: Option<i64>) -> AgentKey {
    AgentKey {
        prefix: prefix.to_owned(),
        agent: "agent-1".to_owned(),
        name: "ci".to_owned(),
        sources: vec!["192.168.10.0/24".to_owned()],
        workload_fingerprint: None,
        created: NOW,
        expires,
        last_used: revoked,
        revoked,
    }
}

#[test]
fn a_list_and_one_of_it() {
    let list = Agents {
        revision: 7,
        agents: vec![
            agent("agent-1", "active", Some(false)),
            agent("agent-2\u{1b}[2J", "disabled", Some(true)),
        ],
        all_blocked: Some(true),
        notes: Vec::new(),
    };
    golden("agents.txt", &agents::list(&list, Style::plain()));
    let silent = Agents {
        agents: vec![agent("agent-1", "active", None)],
        all_blocked: None,
        notes: vec!["asking clawgress-gateway: nobody is there".to_owned()],
        ..list
    };
    golden("agents-silent.txt", &agents::list(&silent, Style::plain()));
    let view = AgentView {
        revision: 7,
        agent: Agent {
            sources: vec!["192.168.10.10/32".to_owned()],
            bound: true,
            ..agent("agent-1", "active", Some(true))
        },
        all_blocked: Some(false),
        keys: Some(vec![
            key("abcdefgh", Some(NOW + 60), None),
            key("ijklmnop", None, Some(NOW + 5)),
        ]),
        flows: Some(3),
        notes: Vec::new(),
    };
    golden("agent.txt", &agents::one(&view, NOW, Style::plain()));
}

#[test]
fn a_new_key() {
    let new = NewAgentKey {
        key: "cg_abcdefgh_secret".to_owned(),
        about: key("abcdefgh", Some(NOW + 3600), None),
        proxy: Some("http://agent-1:cg_abcdefgh_secret@192.168.10.1:3128".to_owned()),
        old_ends: Some(NOW + 60),
        warnings: vec!["revision 7 does not enable the gateway".to_owned()],
    };
    golden("agent-key.txt", &agents::new_key(&new, NOW, Style::plain()));
}

#[test]
fn flows_and_the_kill_switch() {
    let flow = Flow {
        request_id: "f7ad".to_owned(),
        agent_id: "agent-1".to_owned(),
        source: "192.168.10.7".to_owned(),
        destination: "api.example.com:443".to_owned(),
        tunnel: true,
        bytes_out: 1_572_864,
        bytes_in: 10,
    };
    let flows = Flows {
        flows: vec![flow],
        total: 2000,
    };
    let blocked = Blocked {
        warnings: vec!["revision 7 has no agent agent-l".to_owned()],
        ..Blocked::default()
    };
    let shown = [
        agents::open(&flows, Style::plain()),
        agents::switched(&blocked, "agent-l", true, Style::plain()),
        agents::switched(&Blocked::default(), "all", true, Style::plain()),
    ];
    golden("flows.txt", &shown.join("\n\n"));
}

#[test]
fn an_explanation() {
    let rule = |policy_id: &str, priority, why: &str| Considered {
        policy_id: policy_id.to_owned(),
        version: 1,
        priority,
        action: "deny".to_owned(),
        mode: "enforce".to_owned(),
        why: why.to_owned(),
    };
    let told = Explained {
        revision: 7,
        agent: agent("agent-1", "active", Some(false)),
        destination: "api.example.com".to_owned(),
        port: 443,
        method: "CONNECT".to_owned(),
        path: None,
        tunnel: true,
        at: NOW,
        time_zone: "Europe/Berlin".to_owned(),
        clock_trusted: false,
        allowed: false,
        policy_id: "default-deny".to_owned(),
        version: 7,
        reason: Some("clock-untrusted".to_owned()),
        label: Some("llm".to_owned()),
        enforce_would_deny: Some("try-it".to_owned()),
        alert: true,
        considered: vec![
            rule("night", Some(20), "no match: clock-untrusted"),
            rule("default-deny", None, "denies: clock-untrusted"),
        ],
        unresolved: None,
        addresses: vec![
            led("192.0.2.1", "public", None),
            led("10.0.0.7", "private", Some("private-address")),
        ],
        paths: vec![
            on_path("proxy", Some(false), "by default: clock-untrusted"),
            on_path("name", Some(true), "TLS hello, by *.example.com\u{202e}"),
            on_path(
                "address",
                None,
                "port 443 is judged by the name on the wire",
            ),
        ],
        limits: vec![
            Limit {
                limit: "team-rpm".to_owned(),
                of: "red".to_owned(),
                most: 1200,
                unit: "requests a minute".to_owned(),
                left: None,
                beyond: "soft-stop".to_owned(),
            },
            Limit {
                limit: "cap".to_owned(),
                of: "agent-1 on *.example.com".to_owned(),
                most: 1_048_576,
                unit: "bytes a day".to_owned(),
                left: Some(4096),
                beyond: "denied until the period ends".to_owned(),
            },
        ],
        notes: vec!["the kill switch blocks agent-1 now".to_owned()],
    };
    golden("explain.txt", &explain::explained(&told, Style::plain()));
    let unknown = Explained {
        addresses: Vec::new(),
        unresolved: Some("the resolver at 127.0.0.1:53 has not answered".to_owned()),
        ..told
    };
    let shown = explain::explained(&unknown, Style::plain());
    assert!(
        shown.contains("\nLeads to    not known: the resolver at 127.0.0.1:53 has not answered\n"),
        "{shown}"
    );
}

fn led(address: &str, class: &str, refused: Option<&str>) -> Led {
    Led {
        address: address.to_owned(),
        class: class.to_owned(),
        refused: refused.map(str::to_owned),
    }
}

fn on_path(path: &str, allowed: Option<bool>, why: &str) -> OnPath {
    OnPath {
        path: path.to_owned(),
        allowed,
        why: why.to_owned(),
    }
}

fn events() -> [Value; 3] {
    [
        json!({
            "timestamp": "2026-11-21T21:43:42.229123Z", "source": "proxy", "agent_id": "agent-1",
            "destination_host": "evil.example", "destination_port": 443, "http_method": "CONNECT",
            "policy_id": "default-deny", "decision": "deny", "reason": "not-allowlisted"
        }),
        json!({
            "timestamp": "2026-11-21T21:43:43.000000Z", "source": "admin", "agent_id": "agent-1",
            "http_method": "agent key revoke", "path": "prefix=kef4z3yy", "credential": "console:uid-0",
            "decision": "allow", "interrupted": true
        }),
        json!({
            "timestamp": "2026-11-21T21:43:44.000000Z", "source": "dns", "agent_id": "lan/eth1",
            "destination_host": "a\u{1b}[2J\u{202e}.example", "decision": "deny", "folded": 1200
        }),
    ]
}

#[test]
fn events_of_the_trail() {
    let rows: Vec<Vec<String>> = events().iter().map(trail::cells).collect();
    golden("events.txt", &table(&trail::HEAD, &rows, Style::plain()));
}

#[test]
fn a_proof() {
    let good = json!({
        "good": true, "segments": 3, "pruned": 1, "events": 12345, "checkpoints": 60, "unsigned": 4,
        "faults": []
    });
    let bad = json!({
        "good": false, "segments": 3, "pruned": 1, "events": 12345, "checkpoints": 60, "unsigned": 4,
        "unproven": ["{\"checkpoint\":1}"],
        "faults": [
            {"place": "00000002.audit", "line": 7, "byte": 812, "what": "the line was changed"},
            {"place": "anchor 12", "what": "the store ends before it"}
        ]
    });
    let shown = [
        trail::proof(&good, 0, Style::plain()),
        trail::proof(&good, 1, Style::plain()),
        trail::proof(&bad, 2, Style::plain()),
    ];
    golden("verify.txt", &shown.join("\n\n"));
}
