//! What each change leaves in the service's own audit queue, and what of the console the front never offers.

use std::io::{BufRead, BufReader};

use clawgress_audit::{
    event::Event,
    queue::{Queue, Settings},
};
use serde_json::json;

use crate::service::{ENABLED, Service};

/// Every event that the service has recorded; it is stopped for that.
fn recorded(service: &mut Service) -> Vec<Event> {
    service.stop();
    let queue = Queue::open(&service.path("state/queue"), Settings::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(queue.flush()).unwrap();
    let mut events = Vec::new();
    for queued in queue.reader().read(0, 1 << 20).unwrap() {
        let text = String::from_utf8(queued.text).unwrap();
        let origin = "{\"gateway\":\"policy\",\"queue\":\"q\",\"sequence\":1,";
        events.push(Event::parse(text.replacen('{', origin, 1).as_bytes()).unwrap());
    }
    events
}

/// Who, what, with which outcome.
fn told(event: &Event) -> (String, String, &'static str) {
    let text = |text: &Option<std::borrow::Cow<'static, str>>| {
        text.as_deref().unwrap_or_default().to_owned()
    };
    (
        text(&event.begun.credential),
        text(&event.begun.http_method),
        event.outcome.decision.word(),
    )
}

#[test]
fn each_policy_that_is_applied_is_one_event_and_a_check_is_none() {
    let mut service = Service::new(ENABLED).booted();
    let key = service.key("operator");
    let id = key.split('_').nth(1).unwrap().to_owned();
    let good = json!({"version": 1, "allow": {"domains": ["a.example"]}});
    let call = |policy: &serde_json::Value, apply: bool| {
        service
            .front(
                "/clawgress/policy",
                &json!({"key": key, "policy": policy, "apply": apply}),
            )
            .0
    };
    assert_eq!(call(&good, true), 200);
    assert_eq!(call(&good, false), 200);
    assert_eq!(call(&json!({"version": 1, "alow": 1}), true), 422);
    let (status, _) = service.console("/clawgress/console/policy/apply", &json!({}));
    assert_eq!(status, 200);
    let (status, _) = service.console("/clawgress/console/keys/revoke", &json!({"id": id}));
    assert_eq!(status, 200);

    let events = recorded(&mut service);
    let by_key = format!("key:{id}");
    let console = told(&events[1]).0;
    assert!(console.starts_with("console:uid-"), "{console}");
    let expected = [
        ("boot", "policy apply", "allow"),
        (console.as_str(), "key create", "allow"),
        (by_key.as_str(), "policy apply", "allow"),
        (by_key.as_str(), "policy apply", "deny"),
        (console.as_str(), "policy apply", "allow"),
        (console.as_str(), "key revoke", "allow"),
    ];
    let found: Vec<_> = events.iter().map(told).collect();
    let found: Vec<_> = found
        .iter()
        .map(|(who, what, outcome)| (who.as_str(), what.as_str(), *outcome))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(events[2].outcome.reason.as_deref(), Some("revision 2"));
    assert_eq!(events[2].begun.client_address.as_deref(), Some("127.0.0.1"));
    assert_eq!(events[3].outcome.status, Some(422));
    let secret = key.rsplit('_').next().unwrap();
    assert!(!format!("{events:?}").contains(secret));
}

/// The keys of the front's callers were made for the documents' endpoints.
#[test]
fn the_front_offers_nothing_of_agents_and_the_trail() {
    let service = Service::new(ENABLED).booted();
    let key = service.key("operator");
    for path in [
        "agents",
        "agents/show",
        "agents/keys",
        "agents/keys/create",
        "agents/keys/rotate",
        "agents/keys/revoke",
        "agents/token",
        "agents/block",
        "agents/unblock",
        "flows",
        "explain",
        "audit/query",
        "audit/tail",
        "audit/export",
        "audit/verify",
    ] {
        for prefix in ["/clawgress", "/api/clawgress"] {
            let path = format!("{prefix}/{path}");
            for body in [
                json!({}),
                json!({"key": key}),
                json!({"key": key, "all": true}),
            ] {
                let (status, answer) = service.front(&path, &body);
                assert_eq!(
                    (status, &answer["error"]),
                    (404, &json!("not found")),
                    "{path}"
                );
            }
        }
        let (status, _) = service.console(&format!("/clawgress/{path}"), &json!({"key": key}));
        assert_ne!(status, 404, "{path} is not on the console, either");
    }
}

#[test]
fn bodies_of_the_console_are_bounded_and_told_by_their_place() {
    let service = Service::new(ENABLED).booted();
    for (path, body, says) in [
        (
            "agents/show",
            json!({"agnet": "a"}),
            "there is no such field",
        ),
        ("agents/show", json!({}), "write the agent's id"),
        ("agents/show", json!({"agent": "a\nb"}), "no agent's id"),
        (
            "agents/show",
            json!({"agent": "x".repeat(64)}),
            "no agent's id",
        ),
        ("agents/block", json!({}), "either an agent or"),
        (
            "agents/block",
            json!({"all": true, "agent": "a"}),
            "either an agent or",
        ),
        (
            "agents/keys/create",
            json!({"agent": "a", "sources": "lan"}),
            "write a list of networks",
        ),
        (
            "agents/keys/create",
            json!({"agent": "a", "lifetime_seconds": -1}),
            "whole seconds",
        ),
        (
            "agents/keys/rotate",
            json!({"agent": "a"}),
            "write the key's prefix",
        ),
        ("explain", json!({"agent": "a"}), "needs an agent and a url"),
        ("audit/query", json!({"from": "noon"}), "is no time"),
        (
            "audit/query",
            json!({"where": {"colour": "red"}}),
            "no field colour",
        ),
        ("audit/export", json!({"where": ["a"]}), "fields and texts"),
        ("audit/verify", json!({"anchors": "a"}), "checkpoint lines"),
    ] {
        let (status, answer) = service.console(&format!("/clawgress/{path}"), &body);
        let reason = answer["reason"].as_str().unwrap();
        assert!(
            status == 400 && reason.contains(says),
            "{path} {body}: {status} {answer}"
        );
    }
    let large = json!({"agent": "x".repeat(70_000)});
    assert_eq!(service.console("/clawgress/agents/show", &large).0, 413);
}

/// One that takes what it is asked and says nothing: nobody knows what it did.
#[test]
fn a_change_without_an_answer_is_told_as_unknown() {
    let service = Service::new(ENABLED).booted();
    let listener = std::os::unix::net::UnixListener::bind(service.path("gateway.sock")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut line = String::new();
            BufReader::new(stream.unwrap())
                .read_line(&mut line)
                .unwrap();
        }
    });
    let (status, answer) = service.console("/clawgress/agents/block", &json!({"all": true}));
    let reason = answer["reason"].as_str().unwrap();
    assert!(
        status == 503
            && reason.starts_with("NOT IN FORCE through the gateway")
            && reason.contains("sent again"),
        "{answer}"
    );
    // The packet path has it all the same.
    assert_eq!(service.enforcer.lock().unwrap().blocked, (Vec::new(), true));
    let (_, answer) = service.console("/clawgress/agents/unblock", &json!({"all": true}));
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.starts_with("still blocked"), "{answer}");
    assert_eq!(
        service.enforcer.lock().unwrap().blocked,
        (Vec::new(), true),
        "half lifted"
    );
}
