//! The program as a process against the policy API as a process: what is printed where, and how it ends.

mod agents;
mod explain;
mod health;
mod trail;
mod world;

use std::fs;

use serde_json::Value;
use world::Console;

#[test]
fn a_policy_is_imported_shown_and_applied_again() {
    let console = Console::new();
    let (code, out, _) = console.run(&["show", "--policy"]);
    assert!(code == 0 && out.contains("boot.example"), "{out}");

    let path = console.policy("{\"version\": 1,\n \"allow\": {\"domains\": [\"api.openai.com\"]}}");
    let (code, out, error) = console.run(&["policy", "check", &path]);
    assert!(code == 0 && out.contains("only checked"), "{out}{error}");
    let (code, out, error) = console.run(&["import", "--policy", &path]);
    assert!(
        code == 0 && out.contains("compile") && out.contains("revision 2 is enforced"),
        "{out}{error}"
    );
    assert!(!out.contains('\u{1b}'), "colours without a terminal: {out}");
    let (code, out, _) = console.run(&["policy", "import", "file", &path, "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, answer["revision"].as_u64()), (0, Some(3)), "{out}");
    let (code, out, _) = console.run(&["show", "clawgress", "policy", "show"]);
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &shown["allow"]["domains"][0]),
        (0, &Value::from("api.openai.com"))
    );
    let (code, out, _) = console.run(&["policy", "apply"]);
    assert!(code == 0 && out.contains("revision 4 is enforced"), "{out}");
    let (code, out, _) = console.run(&["show", "--policy", &path]);
    assert!(code == 0 && out.contains("api.openai.com"), "{out}");
}

#[test]
fn a_bad_file_is_refused_with_every_place_and_changes_nothing() {
    let console = Console::new();
    let before = fs::read(console.path("policy.json")).unwrap();
    let path =
        console.policy("{\"version\": 1,\n \"alow\": {},\n \"allow\": {\"ports\": [0, 70000]}}");
    let (code, out, error) = console.run(&["import", "--policy", &path]);
    assert_eq!((code, out.as_str()), (1, ""), "{error}");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 4, "{error}");
    assert!(
        lines[0].starts_with(&format!("{path}:2:")) && lines[0].contains("alow"),
        "{error}"
    );
    assert!(
        lines[1].contains(&format!("{path}:3:22: allow.ports[0]: ")),
        "{error}"
    );
    assert!(lines[2].contains("allow.ports[1]"), "{error}");
    assert_eq!(lines[3], "clawgress: 3 problems; nothing was changed");
    let path = console.policy("{\"version\": 1,\n \"allow\": }");
    let (code, _, error) = console.run(&["import", "--policy", &path]);
    assert!(
        code == 1 && error.starts_with(&format!("{path}:2:")),
        "{error}"
    );
    let (code, out, _) = console.run(&["import", "--policy", &path, "--json"]);
    let refused: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &refused["error"]),
        (1, &Value::from("malformed JSON")),
        "{out}"
    );
    assert_eq!(fs::read(console.path("policy.json")).unwrap(), before);
    let (code, _, error) = console.run(&["import", "--policy", "/nonexistent/p.json"]);
    assert!(
        code == 1 && error.contains("reading /nonexistent/p.json: No such file"),
        "{error}"
    );
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let console = Console::new();
    let (code, out, _) = console.run(&["key", "list"]);
    assert!(code == 0 && out.contains("no key yet"), "{out}");
    let (_, out, _) = console.run(&[
        "key", "create", "--name", "ci", "--role", "viewer", "--json",
    ]);
    let new: Value = serde_json::from_str(&out).unwrap();
    let id = new["id"].as_str().unwrap();
    assert!(
        new["key"]
            .as_str()
            .unwrap()
            .starts_with(&format!("cg_{id}_"))
    );
    let (code, out, _) = console.run(&["key", "list"]);
    assert!(
        code == 0 && out.contains(id) && out.contains("viewer") && out.contains("never"),
        "{out}"
    );
    assert_eq!(console.run(&["key", "revoke", id]).0, 0);
    let (code, _, error) = console.run(&["key", "revoke", id]);
    assert!(code == 1 && error.contains("clawgress key list"), "{error}");
    assert!(console.run(&["key", "list"]).1.contains("revoked"));
}

#[test]
fn what_the_gateway_holds_is_shown() {
    let console = Console::new();
    let (code, out, _) = console.run(&["firewall"]);
    assert_eq!((code, out.as_str()), (0, "table inet clawgress {\n}\n"));
    let (code, out, _) = console.run(&["rpz"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "a.example\n1 of 2,001 names; --limit shows more\n")
    );
    let (code, out, _) = console.run(&["status"]);
    assert!(
        code == 0 && out.contains("NOT as it should be") && out.contains("FAIL"),
        "{out}"
    );
    let (code, out, _) = console.run(&["status", "--json"]);
    let status: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &status["boot_revision"]), (0, &Value::from(1)));
    let (code, _, error) = console.run(&["telemetry", "--window", "1m"]);
    assert!(code == 1 && error.contains("not in this test"), "{error}");
}

#[test]
fn wrong_usage_and_silence_have_codes_of_their_own() {
    let console = Console::without_daemon();
    for words in [
        &["nonsense"][..],
        &["import"],
        &["telemetry", "--window", "2h"],
        &["key", "create", "--role", "root"],
    ] {
        let (code, _, error) = console.run(words);
        assert!(code == 2 && !error.is_empty(), "{words:?}: {code} {error}");
    }
    let (code, out, error) = console.run(&["status"]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(
        error.contains("admin.sock") && error.contains("systemctl status clawgress-policy"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
    let (code, out, _) = console.run(&["status", "--json"]);
    let failure: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &failure["error"]), (3, &Value::from("unreachable")));
    let (code, out, _) = console.run(&["--version"]);
    assert!(code == 0 && out.starts_with("clawgress "), "{out}");
}
