//! From a call to a revision: what is checked, what is applied, what is kept, and what a failure leaves behind.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use serde_json::json;

use crate::service::{ENABLED, Service};

const PATH: &str = "/clawgress/policy";

#[test]
fn a_boot_configuration_becomes_the_first_revision_and_stays_it() {
    let mut service = Service::new(ENABLED).booted();
    assert_eq!(service.boot_revision(), Some(1));
    assert_eq!(
        service.policy_json()["allow"]["domains"],
        json!(["boot.example"])
    );
    let held = service.enforcer.lock().unwrap().held.clone().unwrap();
    assert_eq!(held.network.lan[0].name, "eth1");
    assert!(held.enabled);

    // The same configuration again makes no second one.
    service.start();
    service.eventually("a look at the configuration", || {
        service.log().contains("revision 1 holds all of it")
    });
    assert_eq!(service.enforcer.lock().unwrap().applications, 1);

    // One that no longer enables the service seals.
    service.configure("interfaces { ethernet eth1 { address 192.168.10.1/24 role lan } }");
    service.start();
    service.eventually("revision 2", || service.boot_revision() == Some(2));
    assert_eq!(service.enforcer.lock().unwrap().revision, None);
}

#[test]
fn without_the_service_enabled_nothing_is_published_and_nothing_can_be_applied() {
    let service = Service::new("system { host-name gw }");
    let key = service.key("operator");
    let policy = json!({"version": 1, "allow": {"domains": ["a.example"]}});
    let (status, answer) =
        service.front(PATH, &json!({"key": key, "policy": policy, "apply": true}));
    assert_eq!(
        (status, &answer["error"]),
        (409, &json!("not enabled")),
        "{answer}"
    );
    assert!(
        answer["reason"]
            .as_str()
            .unwrap()
            .contains("set service clawgress enable")
    );
    let (status, answer) = service.front(PATH, &json!({"key": key, "policy": policy}));
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer["warnings"][0]
            .as_str()
            .unwrap()
            .contains("stays sealed")
    );
    assert_eq!(service.footprint().3, Vec::<String>::new());
}

#[test]
fn a_policy_is_checked_then_applied_and_outlives_a_restart() {
    let mut service = Service::new(ENABLED).booted();
    let key = service.key("operator");
    let policy = json!({
        "version": 1,
        "allow": {"domains": ["API.example."], "ports": [443]},
        "labels": {"api.example": "llm-provider"},
        "limits": {"egress_kbps": 4000}
    });
    let before = service.footprint();
    for apply in [json!(false), json!(null)] {
        let (status, answer) =
            service.front(PATH, &json!({"key": key, "policy": policy, "apply": apply}));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            (&answer["ok"], &answer["applied"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(answer["report"]["stages"][0]["name"], "compile");
        assert!(answer["note"].as_str().unwrap().contains("only checked"));
        assert_eq!(service.footprint(), before);
    }
    for (path, revision) in [(PATH, 2), ("/api/clawgress/policy", 3)] {
        let (status, answer) =
            service.front(path, &json!({"key": key, "policy": policy, "apply": true}));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["revision"], revision);
        assert_eq!(service.boot_revision(), Some(revision));
        assert_eq!(service.enforcer.lock().unwrap().revision, Some(revision));
    }
    let written = service.policy_json();
    assert_eq!(written["version"], 1);
    assert_eq!(written["allow"]["domains"], json!(["api.example"]));
    let mode = |name: &str| {
        let file = std::fs::metadata(service.path(name)).unwrap();
        file.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("revisions/3.json"), mode("policy.json")),
        (0o640, 0o644)
    );
    let log = service.log();
    assert!(
        log.contains("audit: policy") && log.contains("revision=3"),
        "{log}"
    );
    assert!(!log.contains(&key), "the key is in the journal");

    service.start();
    service.eventually("a look at the configuration", || {
        service.log().contains("revision 3 holds all of it")
    });
    let (_, shown) = service.console("/clawgress/console/policy", &json!({}));
    assert_eq!(
        (&shown["revision"], &shown["policy"]),
        (&json!(3), &written)
    );
    // A policy that only version 2 can express.
    let udp = json!({"version": 2, "allow": {"ports": [{"port": 123, "protocol": "udp"}]}});
    let (status, answer) = service.console(PATH, &json!({"policy": udp, "apply": true}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(service.policy_json()["version"], 2);
}

#[test]
fn what_the_enforcer_refuses_or_takes_back_leaves_everything_as_it_was() {
    let service = Service::new(ENABLED).booted();
    let call = json!({"policy": {"version": 1}, "apply": true});
    let before = service.footprint();
    for (fails, expected) in [
        (vec![("nft", "too many rules")], 422),
        (
            vec![("verify", "named is silent"), ("rollback", "done")],
            409,
        ),
    ] {
        service.enforcer.lock().unwrap().fails = fails;
        let (status, answer) = service.console(PATH, &call);
        assert_eq!(
            (status, &answer["error"]),
            (expected, &json!("policy refused")),
            "{answer}"
        );
        assert_eq!(answer["report"]["stages"][1]["ok"], false);
        assert!(
            answer["reason"]
                .as_str()
                .unwrap()
                .contains("nothing was changed")
        );
        assert_eq!(service.footprint(), before);
    }
    // Their numbers are used up.
    service.enforcer.lock().unwrap().fails.clear();
    let (_, answer) = service.console(PATH, &call);
    assert_eq!(answer["revision"], 4, "{answer}");
}

#[test]
fn an_enforcer_that_dies_after_its_work_is_asked_what_it_did() {
    let service = Service::new(ENABLED).booted();
    service.enforcer.lock().unwrap().dies_when_done = true;
    let (status, answer) = service.console(PATH, &json!({"policy": {"version": 1}, "apply": true}));
    assert_eq!((status, &answer["revision"]), (200, &json!(2)), "{answer}");
    assert_eq!(service.boot_revision(), Some(2));
}

#[test]
fn a_crash_before_the_boot_mark_is_made_good_at_the_next_start() {
    let mut service = Service::new(ENABLED).booted();
    service.console(
        PATH,
        &json!({"policy": {"version": 1, "allow": {"domains": ["b.example"]}}, "apply": true}),
    );
    service.stop();
    // As a crash would have left it: enforced, and not yet marked.
    let link = service.path("revisions/boot.json");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("1.json", &link).unwrap();
    std::fs::write(service.path("policy.json"), "{}").unwrap();
    service.start();
    service.eventually("the mark", || service.boot_revision() == Some(2));
    service.eventually("policy.json", || {
        service.policy_json()["allow"]["domains"] == json!(["b.example"])
    });
    assert_eq!(service.enforcer.lock().unwrap().applications, 2);
}

#[test]
fn one_policy_is_applied_at_a_time_and_who_hangs_up_stops_none() {
    let service = Service::new(ENABLED).booted();
    service.enforcer.lock().unwrap().takes = Duration::from_millis(600);
    let call = json!({"policy": {"version": 1}, "apply": true});
    std::thread::scope(|scope| {
        let first = scope.spawn(|| service.console(PATH, &call));
        std::thread::sleep(Duration::from_millis(250));
        let (status, answer) = service.console(PATH, &call);
        assert_eq!(
            (status, &answer["error"]),
            (409, &json!("busy")),
            "{answer}"
        );
        assert_eq!(first.join().unwrap().0, 200);
    });
    let body = call.to_string();
    let mut hasty = std::os::unix::net::UnixStream::connect(service.path("admin.sock")).unwrap();
    std::io::Write::write_all(
        &mut hasty,
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: b\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(250));
    drop(hasty);
    service.eventually("revision 3", || service.boot_revision() == Some(3));
}

#[test]
fn an_edited_policy_json_is_applied_by_word_or_refused_with_its_places() {
    let service = Service::new(ENABLED).booted();
    let apply = || service.console("/clawgress/console/policy/apply", &json!({}));
    std::fs::write(
        service.path("policy.json"),
        "{\"version\": 1,\n \"alow\": {}}",
    )
    .unwrap();
    let (status, answer) = apply();
    assert_eq!(status, 422, "{answer}");
    assert_eq!(
        (
            &answer["problems"][0]["path"],
            &answer["problems"][0]["line"]
        ),
        (&json!("alow"), &json!(2))
    );
    assert!(answer["reason"].as_str().unwrap().contains("policy.json"));
    std::fs::write(
        service.path("policy.json"),
        "{\"version\": 1, \"allow\": {\"domains\": [\"c.example\"]}}",
    )
    .unwrap();
    let (status, answer) = apply();
    assert_eq!((status, &answer["revision"]), (200, &json!(2)), "{answer}");
}

#[test]
fn a_silent_enforcer_is_told_and_met_again() {
    let service = Service::new(ENABLED).booted();
    std::fs::remove_file(service.path("control.sock")).unwrap();
    let (status, answer) = service.console(PATH, &json!({"policy": {"version": 1}, "apply": true}));
    assert_eq!(
        (status, &answer["error"]),
        (503, &json!("enforcer unavailable")),
        "{answer}"
    );
    assert_eq!(service.boot_revision(), Some(1));
    let (status, health) = service.console("/clawgress/health", &json!({}));
    assert_eq!((status, &health["enforcing"]), (503, &json!(false)));
    assert_eq!(health["revision"], json!(null));
}

#[test]
fn what_the_enforcer_knows_is_told_on() {
    let service = Service::new(ENABLED).booted();
    let key = service.key("viewer");
    let (status, answer) = service.front(
        "/clawgress/telemetry",
        &json!({"key": key, "window": "24h"}),
    );
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        (&answer["window"], &answer["top_denied"][0][0]),
        (&json!("24h"), &json!("evil.example"))
    );
    let (_, answer) = service.front("/clawgress/telemetry", &json!({"key": key}));
    assert_eq!(answer["window"], "1h");
    let (status, answer) =
        service.front("/clawgress/telemetry", &json!({"key": key, "window": "2h"}));
    assert_eq!(status, 400);
    assert!(
        answer["reason"]
            .as_str()
            .unwrap()
            .contains("\"1m\", \"1h\" or \"24h\"")
    );
    let (_, answer) = service.console("/clawgress/console/firewall", &json!({}));
    assert_eq!(answer["text"], "table inet clawgress {}");
    let (_, answer) = service.console("/clawgress/console/zone", &json!({"limit": 1}));
    assert_eq!(answer, json!({"names": ["a.example"], "total": 2}));
    let (_, answer) = service.console("/clawgress/console/overview", &json!({}));
    assert_eq!(
        (&answer["boot_revision"], &answer["enforcer"]["revision"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(answer["health"]["clock_trusted"], true);
    let (status, answer) = service.front("/clawgress/console/overview", &json!({"key": key}));
    assert_eq!(
        status, 404,
        "the console's paths are at the front: {answer}"
    );
}
