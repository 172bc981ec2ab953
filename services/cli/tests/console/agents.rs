//! Agents, keys, the kill switch and flows, with the real daemons behind the policy API.

use serde_json::{Value, json};

use crate::world::{AGENTS, Console};

/// The change events so far, oldest first, once there are so many.
pub(crate) fn changes(console: &Console, number: usize) -> Vec<Value> {
    let mut events = Vec::new();
    console.eventually("the changes are in the trail", || {
        let found = console.json(&[
            "audit",
            "query",
            "--source",
            "admin",
            "--where",
            "gateway=policy",
        ]);
        events.clone_from(found["events"].as_array().unwrap());
        events.retain(|event| event["credential"] != "boot");
        events.len() >= number
    });
    events
}

#[test]
fn a_key_is_made_used_rotated_and_revoked_and_each_change_is_one_event() {
    let console = Console::with_everybody();
    let (code, out, error) = console.run(&[
        "agent",
        "agent-1",
        "key",
        "create",
        "--expires",
        "90d",
        "--source",
        "192.168.10.0/24",
        "--source",
        "192.0.2.7",
    ]);
    assert_eq!(code, 0, "{out}{error}");
    let key = out.lines().next().unwrap();
    let prefix = key.split('_').nth(1).unwrap().to_owned();
    assert!(
        out.contains(&format!(
            "\nHTTPS_PROXY=http://agent-1:{key}@192.168.10.1:3128\n"
        )),
        "{out}"
    );
    assert!(
        out.contains("only time") && out.contains("192.168.10.0/24, 192.0.2.7/32 alone"),
        "{out}"
    );

    let (_, out, _) = console.run(&["agent", "agent-1", "key", "list"]);
    assert!(
        out.contains(&prefix) && out.contains("until ") && !out.contains(key),
        "{out}"
    );
    let new = console.json(&["agent", "agent-1", "key", "rotate", &prefix, "--keep", "1h"]);
    let second = new["prefix"].as_str().unwrap();
    assert!(new["old_ends"].as_i64() > new["created"].as_i64(), "{new}");
    assert_ne!(second, prefix);
    assert_eq!(new["sources"], json!(["192.168.10.0/24", "192.0.2.7/32"]));

    // Somebody else's key is none.
    let (code, _, error) = console.run(&["agent", "agent-2", "key", "revoke", second]);
    assert!(
        code == 1 && error.contains("agent-2 has no key") && error.contains("key list"),
        "{error}"
    );
    let (code, out, _) = console.run(&["agent", "agent-1", "key", "revoke", second]);
    assert!(code == 0 && out.contains("is revoked"), "{out}");
    let (code, _, error) = console.run(&["agent", "agent-1", "key", "rotate", second]);
    assert!(
        code == 1 && error.contains("revoked or has expired"),
        "{error}"
    );
    let view = console.json(&["agent", "agent-1", "show"]);
    assert_eq!(
        (
            &view["agent"]["keys"],
            view["keys"].as_array().unwrap().len()
        ),
        (&json!(1), 2)
    );

    let told = changes(&console, 5);
    let what: Vec<(&str, &str, &str)> = told
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or_default();
            (text("http_method"), text("agent_id"), text("decision"))
        })
        .collect();
    assert_eq!(
        what,
        [
            ("agent key create", "agent-1", "allow"),
            ("agent key rotate", "agent-1", "allow"),
            ("agent key revoke", "agent-2", "deny"),
            ("agent key revoke", "agent-1", "allow"),
            ("agent key rotate", "agent-1", "deny"),
        ]
    );
    for event in &told {
        assert!(
            event["credential"]
                .as_str()
                .unwrap()
                .starts_with("console:uid-"),
            "{event}"
        );
        assert!(!event.to_string().contains(key), "{event}");
    }
    assert!(
        told[0]["path"]
            .as_str()
            .unwrap()
            .contains("192.168.10.0/24"),
        "{}",
        told[0]
    );
}

#[test]
fn tokens_come_from_the_own_issuer_and_mistakes_say_what_to_do() {
    let console = Console::with_everybody();
    let token = console.json(&["agent", "robot", "token", "--for", "10m"]);
    assert_eq!(token["token"].as_str().unwrap().split('.').count(), 3);
    assert!(
        token["proxy"]
            .as_str()
            .unwrap()
            .starts_with("http://robot:")
    );
    assert_eq!(token["warnings"], Value::Null, "{token}");
    console.distrust_the_clock();
    let token = console.json(&["agent", "robot", "token"]);
    assert!(
        token["warnings"]
            .to_string()
            .contains("clock of this box is not trusted"),
        "{token}"
    );
    for (words, code, says) in [
        (
            &["agent", "robot", "key", "create"][..],
            1,
            "does not prove itself by API keys",
        ),
        (
            &["agent", "agent-1", "token"],
            1,
            "does not prove itself by tokens",
        ),
        (
            &["agent", "nobody", "key", "create"],
            1,
            "clawgress agent list",
        ),
        (&["agent", "nobody", "show"], 1, "clawgress agent list"),
        (
            &["agent", "nobody", "key", "list"],
            1,
            "clawgress agent list",
        ),
        (
            &["agent", "agent-1", "key", "create", "--source", "lan"],
            1,
            "write one like 10.0.0.0/8",
        ),
        (
            &[
                "agent",
                "agent-1",
                "key",
                "create",
                "--expires",
                "2020-01-01",
            ],
            2,
            "over already",
        ),
        (
            &["agent", "agent-1", "key", "create", "--expires", "soon"],
            2,
            "such as 90d",
        ),
        (
            &["agent", "robot", "token", "--for", "10"],
            2,
            "such as 30m",
        ),
        (&["agent", "agent-1"], 2, "show, key, token, block, unblock"),
        (&["agent", "all", "show"], 2, "name one agent"),
        (&["agent", "a b", "show"], 1, "no agent's id"),
        (&["agent"], 2, "clawgress agent <ID|all> block|unblock"),
    ] {
        let (found, out, error) = console.run(words);
        assert!(
            found == code && error.contains(says),
            "{words:?}: {found} {out}{error}"
        );
    }
    let (code, out, _) = console.run(&["agent", "agent-2", "key", "create"]);
    assert!(
        code == 0 && out.contains("agent agent-2 is disabled"),
        "{out}"
    );
    let (_, out, _) = console.run(&["agent", "list"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("AGENT") && lines[2].ends_with("1  disabled"),
        "{out}"
    );
}

#[test]
fn a_block_holds_at_once_and_is_lifted_by_the_same_word() {
    let console = Console::with_everybody();
    let blocked = console.json(&["agent", "agent-1", "block"]);
    assert_eq!(
        (&blocked["all"], &blocked["agents"]),
        (&json!(false), &json!(["agent-1"]))
    );
    let (_, out, _) = console.run(&["agent", "agent-1", "show"]);
    assert!(out.contains("Blocked     yes\n"), "{out}");
    let (_, out, _) = console.run(&["agent", "list"]);
    assert!(out.contains("active, BLOCKED"), "{out}");
    let (_, out, _) = console.run(&[
        "explain",
        "--agent",
        "agent-1",
        "--url",
        "https://boot.example/",
    ]);
    assert!(out.contains("kill switch blocks agent-1 now"), "{out}");
    let (code, out, _) = console.run(&["agent", "all", "block"]);
    assert!(code == 0 && out.contains("everybody is blocked"), "{out}");
    let (_, out, _) = console.run(&["agent", "agent-1", "unblock"]);
    assert!(
        out.contains("not blocked any more") && out.contains("clawgress agent all unblock"),
        "{out}"
    );
    assert_eq!(console.run(&["agent", "all", "unblock"]).0, 0);
    let (_, out, _) = console.run(&["agent", "agent-x", "block"]);
    assert!(out.contains("has no agent agent-x"), "{out}");
    assert_eq!(console.run(&["flows"]).1, "nothing is open\n");
    assert_eq!(console.json(&["flows", "--agent", "agent-1"])["total"], 0);
    let words: Vec<Value> = changes(&console, 5)
        .iter()
        .map(|event| event["http_method"].clone())
        .collect();
    assert_eq!(
        words,
        [
            "agent block",
            "agent block",
            "agent unblock",
            "agent unblock",
            "agent block"
        ]
    );
}

/// Nothing can be written down: then nothing is done, but for the one thing that must never wait.
#[test]
fn what_cannot_be_recorded_is_not_done_and_a_block_goes_through() {
    let mut console = Console::with(AGENTS);
    console.identity();
    console.quota_and_gateway();
    console.kill("policy");
    std::fs::remove_dir_all(console.path("state/queue")).unwrap();
    std::fs::write(console.path("state/queue"), "in the way").unwrap();
    console.start("policy", "admin.sock");
    let policy = console.policy("{\"version\": 1, \"allow\": {\"domains\": [\"a.example\"]}}");
    for words in [
        &["agent", "agent-1", "key", "create"][..],
        &["agent", "robot", "token"],
        &["agent", "agent-1", "unblock"],
        &["key", "create"],
        &["import", "--policy", &policy],
        &["audit", "export"],
    ] {
        let (code, out, error) = console.run(words);
        assert!(
            code == 1
                && out.is_empty()
                && error.contains("state/queue")
                && error.contains("nothing was changed"),
            "{words:?}: {out}{error}"
        );
    }
    assert_eq!(
        console.json(&["agent", "agent-1", "key", "list"])["keys"],
        json!([])
    );
    assert_eq!(console.json(&["key", "list"])["keys"], json!([]));
    let (code, out, error) = console.run(&["agent", "agent-1", "block"]);
    assert!(
        code == 0 && out.contains("agent-1 is blocked"),
        "{out}{error}"
    );
    // With the queue back, so is everything else, without a restart.
    std::fs::remove_file(console.path("state/queue")).unwrap();
    assert_eq!(console.run(&["agent", "agent-1", "unblock"]).0, 0);
}
