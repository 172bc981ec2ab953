//! The audit trail as it is asked for on the console: found, followed, exported, proved.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use serde_json::Value;

use crate::{
    agents::changes,
    world::{AGENTS, Console},
};

fn with_trail() -> Console {
    let mut console = Console::with(AGENTS);
    console.identity();
    console.audit();
    for _ in 0..3 {
        console.json(&["agent", "agent-1", "key", "create"]);
    }
    console.json(&["key", "create", "--name", "ci"]);
    changes(&console, 4);
    console
}

#[test]
fn events_are_found_by_field_and_time() {
    let console = with_trail();
    let (code, out, error) = console.run(&["audit", "query", "--agent", "agent-1"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        code == 0 && lines.len() == 4 && lines[0].starts_with("TIME"),
        "{out}{error}"
    );
    assert!(
        lines[1].contains("admin: agent key create") && lines[1].contains("console:uid-"),
        "{out}"
    );
    let found = |words: &[&str]| {
        let found = console.json(&[&["audit", "query"], words].concat());
        found["events"].as_array().unwrap().len()
    };
    assert_eq!(found(&["--agent", "agent-1", "--limit", "2"]), 2);
    assert_eq!(found(&["--method", "key create"]), 1);
    assert_eq!(
        found(&[
            "--from",
            "1h",
            "--source",
            "admin",
            "--where",
            "status=200",
            "--where",
            "gateway=policy"
        ]),
        5
    );
    assert_eq!(found(&["--to", "1h"]), 0);
    assert_eq!(
        console.run(&["audit", "query", "--agent", "nobody"]).1,
        "no event fits\n"
    );
    for (words, code, says) in [
        (
            &["--where", "colour=red"][..],
            1,
            "events have no field colour",
        ),
        (&["--where", "colour"], 2, "FIELD=VALUE"),
        (&["--from", "monday"], 2, "how long ago"),
        (&["--decision", "maybe"], 2, "allow, deny, notice"),
        (&["--limit", "0"], 2, "1..=100000"),
    ] {
        let (found, _, error) = console.run(&[&["audit", "query"], words].concat());
        assert!(
            found == code && error.contains(says),
            "{words:?}: {found} {error}"
        );
    }
}

#[test]
fn an_export_is_whole_or_none_and_leaves_one_event() {
    let console = with_trail();
    let file = console.path("export.jsonl");
    let name = file.display().to_string();
    let (code, out, error) = console.run(&[
        "audit", "export", "--from", "1h", "--agent", "agent-1", "--output", &name,
    ]);
    assert!(code == 0 && out.starts_with("3 events, "), "{out}{error}");
    let text = fs::read_to_string(&file).unwrap();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["agent_id"], "agent-1");
    }
    assert_eq!(text.lines().count(), 3);
    let (code, _, error) = console.run(&["audit", "export", "--output", &name]);
    assert!(
        code == 1 && error.contains("it is there already"),
        "{error}"
    );
    let (code, out, _) = console.run(&["audit", "export", "--agent", "agent-1"]);
    assert_eq!((code, out.as_str()), (0, text.as_str()));
    let told = changes(&console, 6);
    let exports: Vec<&Value> = told
        .iter()
        .filter(|event| event["http_method"] == "audit export")
        .collect();
    assert_eq!(exports.len(), 2, "{told:?}");
    assert_eq!(
        (&exports[0]["reason"], &exports[0]["decision"]),
        (&"3 events".into(), &"allow".into())
    );
    assert!(
        exports[0]["credential"]
            .as_str()
            .unwrap()
            .starts_with("console:uid-")
    );
    // Nobody else told of it, either.
    let all = console.json(&["audit", "query", "--where", "http_method=export"]);
    assert_eq!(all["events"], Value::Array(Vec::new()));
}

/// More than is held at once.
#[test]
fn a_long_export_has_every_event_once_and_in_order() {
    let mut console = Console::with(AGENTS);
    console.audit();
    // Nobody is there to block anybody, which is an event each time.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for number in 0..1100 {
            let body = format!("{{\"agent\":\"a-{number}\"}}").into_bytes();
            let socket = console.path("admin.sock");
            let wait = std::time::Duration::from_secs(10);
            let asked = clawgress_link::admin::post(&socket, "/clawgress/agents/block", body, wait);
            let (status, text) = asked.await.unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(
                status == 503 && text.contains("NOT IN FORCE through the gateway"),
                "{text}"
            );
        }
    });
    console.eventually("the last of them is in the trail", || {
        console
            .run(&["audit", "query", "--agent", "a-1099"])
            .1
            .contains("agent block")
    });
    let (code, out, error) = console.run(&["audit", "export", "--method", "agent block"]);
    assert_eq!(code, 0, "{error}");
    let exported = out.lines().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["agent_id"].as_str().unwrap().to_owned()
    });
    assert!(exported.eq((0..1100).map(|number| format!("a-{number}"))));
    let found = console.json(&[
        "audit",
        "query",
        "--limit",
        "1050",
        "--method",
        "agent block",
    ]);
    let events = found["events"].as_array().unwrap();
    assert_eq!(
        (events.len(), &events[0]["agent_id"]),
        (1050, &"a-50".into())
    );
    let (_, out, _) = console.run(&["audit", "query", "--limit", "3"]);
    assert!(
        out.ends_with("the newest 3; there may be older ones: --limit and --from show more\n"),
        "{out}"
    );
}

#[test]
fn an_interrupt_ends_a_tail_as_it_should() {
    let console = with_trail();
    let mut child = console
        .command(&["audit", "tail"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    std::thread::sleep(std::time::Duration::from_millis(700));
    console.json(&["key", "create"]);
    let line = lines.next().unwrap().unwrap();
    assert!(
        line.contains("admin: key create") && line.contains("console:uid-"),
        "{line}"
    );
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn events_are_followed_until_somebody_has_seen_enough_or_the_service_goes() {
    let mut console = with_trail();
    let mut child = console
        .command(&["audit", "tail", "--agent", "agent-1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The stream begins some time after the program.
    std::thread::sleep(std::time::Duration::from_millis(700));
    console.json(&["key", "create"]);
    let new = console.json(&["agent", "agent-1", "key", "create"]);
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let prefix = new["prefix"].as_str().unwrap();
    assert!(
        event["reason"].as_str().unwrap().contains(prefix),
        "{event}"
    );
    console.kill("audit");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut error = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert!(
        error.starts_with("clawgress: ") && error.lines().count() == 1,
        "{error}"
    );
    let (code, _, error) = console.run(&["audit", "query"]);
    assert!(
        code == 1 && error.contains("systemctl status clawgress-audit"),
        "{error}"
    );
}

#[test]
fn a_trail_that_was_touched_is_not_whole_and_the_place_is_named() {
    let mut console = with_trail();
    let (code, out, error) = console.run(&["audit", "verify"]);
    assert!(
        code == 0 && out.contains("the trail is whole; without an anchor"),
        "{out}{error}"
    );
    let store = fs::read_dir(console.path("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| {
            if path.is_dir() {
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .collect()
            } else {
                vec![path]
            }
        })
        .find(|path| path.extension().is_some_and(|ending| ending == "audit"))
        .unwrap();
    let read = || fs::read_to_string(&store).unwrap();
    console.eventually("a checkpoint is signed", || {
        read().contains("\"checkpoint\"")
    });
    let text = read();
    let anchor = text
        .lines()
        .rfind(|line| line.contains("\"checkpoint\""))
        .unwrap();
    let anchor = anchor.get(anchor.find('{').unwrap()..).unwrap();
    fs::write(console.path("anchors"), format!("{anchor}\n")).unwrap();
    let anchors = console.path("anchors").display().to_string();
    let (code, out, error) = console.run(&["audit", "verify", "--anchor", &anchors]);
    assert!(
        code == 0 && out.contains("holds against 1 anchor"),
        "{out}{error}"
    );

    console.kill("audit");
    fs::write(&store, text.replacen("agent-1", "agent-7", 1)).unwrap();
    console.start("audit", "audit.sock");
    let (code, out, _) = console.run(&["audit", "verify"]);
    assert!(
        code == 1 && out.contains("NOT whole") && out.contains(", line "),
        "{out}"
    );
    let (code, out, _) = console.run(&["audit", "verify", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["good"]), (1, &Value::Bool(false)));
    let (code, _, error) = console.run(&["audit", "verify", "--anchor", "/nonexistent/a"]);
    assert!(
        code == 1 && error.contains("reading /nonexistent/a"),
        "{error}"
    );
}
