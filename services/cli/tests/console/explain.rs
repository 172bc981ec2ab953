//! Explanations of the revision in force.

use serde_json::json;

use crate::world::{AGENTS, Console};

#[test]
fn an_explanation_names_each_rule_and_why() {
    let console = Console::with(AGENTS);
    let explain = |words: &[&str]| console.run(&[&["explain"], words].concat());
    let (code, out, error) = explain(&["--agent", "agent-1", "--url", "http://web.example/v1/x"]);
    assert!(
        code == 0
            && out.contains("allow, by rule red-http (version 1)")
            && out.contains("GET web.example:80 /v1/x"),
        "{out}{error}"
    );
    let line = |out: &str, rule: &str| {
        let found = out
            .lines()
            .find(|line| line.contains(&format!("  {rule}  ")));
        found.unwrap_or_else(|| panic!("{rule}: {out}")).to_owned()
    };
    assert!(
        line(&out, "no-secrets")
            .ends_with("no match: it is for other destinations (*.secret.example)"),
        "{out}"
    );
    assert!(
        line(&out, "red-http").ends_with("match: it decides"),
        "{out}"
    );
    let (_, out, _) = explain(&[
        "--agent",
        "agent-1",
        "--url",
        "http://web.example/v1/x",
        "--method",
        "post",
    ]);
    assert!(
        line(&out, "red-http").ends_with("no match: it is for other methods (GET, /v1)"),
        "{out}"
    );
    assert!(out.contains("deny, by default: not-allowlisted"), "{out}");
    let (_, out, _) = explain(&["--agent", "robot", "--url", "http://web.example/v1"]);
    assert!(
        line(&out, "red-http").ends_with("no match: it is for somebody else (team red)"),
        "{out}"
    );
    let told = console.json(&[
        "explain",
        "--agent",
        "robot",
        "--url",
        "https://a.secret.example",
        "--at",
        "2026-01-31 08:30",
    ]);
    assert_eq!(
        (
            &told["allowed"],
            &told["policy_id"],
            &told["label"],
            &told["at"]
        ),
        (
            &json!(false),
            &json!("no-secrets"),
            &json!("keep-out"),
            &json!(1_769_848_200)
        )
    );
    let (_, out, _) = explain(&["--agent", "agent-2", "--url", "https://boot.example"]);
    assert!(out.contains("agent-disabled"), "{out}");
}

#[test]
fn a_question_that_makes_no_sense_is_one_line() {
    let console = Console::with(AGENTS);
    let explain = |words: &[&str]| console.run(&[&["explain"], words].concat());
    for (words, says) in [
        (
            &["--agent", "nobody", "--url", "https://a.example"][..],
            "clawgress agent list",
        ),
        (
            &["--agent", "agent-1", "--url", "a.example"],
            "write one such as https://",
        ),
        (
            &[
                "--agent",
                "agent-1",
                "--url",
                "https://a.example",
                "--at",
                "noon",
            ],
            "'noon' is no time",
        ),
        (
            &[
                "--agent",
                "agent-1",
                "--url",
                "http://a.example",
                "--method",
                "G T",
            ],
            "'G T' is none",
        ),
    ] {
        let (code, out, error) = explain(words);
        assert!(
            code == 1 && out.is_empty() && error.contains(says),
            "{words:?}: {error}"
        );
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_resolver_that_is_silent_is_said_and_the_rest_stands() {
    let console = Console::with(AGENTS);
    let told = console.json(&[
        "explain",
        "--agent",
        "agent-1",
        "--url",
        "https://boot.example/",
    ]);
    // Nobody is at the resolver's port of this test.
    let why = told["unresolved"].as_str().unwrap();
    assert!(why.contains("127.0.0.1:1"), "{why}");
    assert_eq!(told["allowed"], true);
    let (_, out, _) = console.run(&[
        "explain",
        "--agent",
        "agent-1",
        "--url",
        "http://127.0.0.1:80/x",
    ]);
    assert!(
        out.contains("127.0.0.1  own    refused: private-address"),
        "{out}"
    );
    assert!(
        out.contains("connections-per-agent  agent-1") && out.contains("proxy    deny"),
        "{out}"
    );
}
