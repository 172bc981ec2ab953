//! Who is answered at the front, and who is not.

use serde_json::json;

use crate::service::{ENABLED, Service};

const CALL: &str = "/clawgress/policy";

#[test]
fn a_key_opens_until_it_is_revoked() {
    let service = Service::new(ENABLED).booted();
    let policy = json!({"version": 1});
    let (status, health) = service.front("/clawgress/health", &json!({}));
    assert_eq!(
        status, 503,
        "no key yet and loopback: health answers: {health}"
    );
    assert!(health["checks"].is_array());
    let (status, answer) = service.front(CALL, &json!({"policy": policy}));
    assert_eq!(
        (status, &answer["error"]),
        (401, &json!("unauthorized")),
        "{answer}"
    );

    let key = service.key("operator");
    for path in ["/clawgress/health", "/api/clawgress/health"] {
        assert_eq!(service.front(path, &json!({})).0, 401);
        let (status, health) = service.front(path, &json!({"key": key}));
        assert_eq!(status, 503);
        assert_eq!(
            (&health["revision"], &health["dns"]),
            (&json!(1), &json!(false))
        );
    }
    let (status, answer) =
        service.front(CALL, &json!({"key": key, "policy": policy, "apply": true}));
    assert_eq!(status, 200, "{answer}");

    let (_, list) = service.console("/clawgress/console/keys", &json!({}));
    let id = list["keys"][0]["id"].clone();
    assert!(list["keys"][0]["last_used"].is_number());
    assert!(!list.to_string().contains(key.rsplit('_').next().unwrap()));
    let (status, _) = service.console("/clawgress/console/keys/revoke", &json!({"id": id}));
    assert_eq!(status, 200);
    assert_eq!(
        service
            .front(CALL, &json!({"key": key, "policy": policy}))
            .0,
        401
    );
    let (status, answer) = service.console("/clawgress/console/keys/revoke", &json!({"id": id}));
    assert_eq!(status, 404, "{answer}");
}

#[test]
fn a_viewer_looks_and_checks_and_changes_nothing() {
    let service = Service::new(ENABLED).booted();
    let key = service.key("viewer");
    let policy = json!({"version": 1});
    assert_eq!(
        service
            .front(CALL, &json!({"key": key, "policy": policy}))
            .0,
        200
    );
    let before = service.footprint();
    let (status, answer) =
        service.front(CALL, &json!({"key": key, "policy": policy, "apply": true}));
    assert_eq!(
        (status, &answer["error"]),
        (403, &json!("forbidden")),
        "{answer}"
    );
    assert_eq!(service.footprint(), before);
    let (status, answer) = service.console(
        "/clawgress/console/keys/create",
        &json!({"name": "x", "role": "root"}),
    );
    assert_eq!(status, 400, "{answer}");
}

#[test]
fn a_guesser_is_stopped_and_his_neighbour_is_not() {
    let service = Service::new(ENABLED).booted();
    let key = service.key("operator");
    let from = |source: &str, key: &str| {
        let body = json!({"key": key, "policy": {"version": 1}}).to_string();
        let headers = format!("x-forwarded-for: {source}\r\n");
        service.front_raw(CALL, body.as_bytes(), &headers).0
    };
    let answers: Vec<u16> = (0..9)
        .map(|guess| from("10.0.0.66", &format!("cg_{guess}")))
        .collect();
    assert_eq!(answers[..8], [401; 8]);
    assert_eq!(answers[8], 429);
    // Not even the right one, now.
    assert_eq!(from("10.0.0.66", &key), 429);
    assert_eq!(from("10.0.0.67", &key), 200);
    let log = service.log();
    assert!(log.contains("10.0.0.66") && !log.contains("cg_1"), "{log}");
}
