//! Whatever is sent: a refusal in JSON that says where, nothing changed, and the service still there.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::service::{ENABLED, Service};

const PATH: &str = "/clawgress/policy";

fn apply(policy: &str) -> Vec<u8> {
    format!("{{\"apply\": true,\n\"policy\": {policy}}}").into_bytes()
}

fn console(service: &Service, body: &[u8]) -> (u16, Value) {
    // Not JSON as such: what the client would not build.
    let stream = std::os::unix::net::UnixStream::connect(service.path("admin.sock")).unwrap();
    raw(stream, PATH, body)
}

fn raw(mut stream: impl Read + Write, path: &str, body: &[u8]) -> (u16, Value) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: box\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("no answer");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).expect("no JSON"))
}

#[test]
fn every_kind_of_bad_policy_is_refused_at_its_place_and_changes_nothing() {
    let service = Service::new(ENABLED).booted();
    let before = service.footprint();
    let long = "a".repeat(300);
    for (policy, status, path) in [
        ("{", 400, ""),
        ("{\"version\": 1, \"allow\": NaN}", 400, ""),
        ("{\"version\": 1, \"alow\": {}}", 422, "policy.alow"),
        (
            "{\"version\": 1, \"allow\": {\"domains\": 7}}",
            422,
            "policy.allow.domains",
        ),
        (
            "{\"version\": 1, \"allow\": {\"ports\": [0]}}",
            422,
            "policy.allow.ports[0]",
        ),
        (
            "{\"version\": 1, \"allow\": {\"ports\": [443, 70000]}}",
            422,
            "policy.allow.ports[1]",
        ),
        (
            "{\"version\": 1, \"allow\": {\"ips\": [\"1.2.3.4/24\"]}}",
            422,
            "policy.allow.ips[0]",
        ),
        (
            &format!("{{\"version\": 1, \"allow\": {{\"domains\": [\"{long}.example\"]}}}}"),
            422,
            "policy.allow.domains[0]",
        ),
        (
            "{\"version\": 1, \"time_window\": {\"days\": [], \"start\": \"09:00\", \"end\": \"17:00\"}}",
            422,
            "policy.time_window",
        ),
        (
            "{\"version\": 1, \"time_window\": {\"days\": [\"mon\"], \"start\": \"09:00\", \"end\": \"09:00\"}}",
            422,
            "policy.time_window",
        ),
        (
            "{\"version\": 1, \"limits\": {\"egress_kbps\": -1}}",
            422,
            "policy.limits.egress_kbps",
        ),
        (
            "{\"version\": 1, \"labels\": {\"a.example\": \"x\", \"A.example\": \"y\"}}",
            422,
            "policy.labels",
        ),
        (
            "{\"version\": 1, \"hosts\": {\"a\": {\"sources\": [\"10.0.0.1/32\"], \"exfil\": {\"domains\": {\"a.example\": {\"bytes\": -5, \"period\": \"hour\"}}}}}}",
            422,
            "policy.hosts.a.exfil",
        ),
        (
            "{\"version\": 1, \"hosts\": {\"a\": {\"sources\": [\"10.0.0.1/32\"]}, \"b\": {\"sources\": [\"10.0.0.1/32\"]}}}",
            422,
            "policy.hosts.b",
        ),
        ("[]", 422, "policy"),
        (
            &format!("{}1{}", "[".repeat(100), "]".repeat(100)),
            400,
            "policy",
        ),
        (&"[".repeat(1_000_000), 400, ""),
    ] {
        let (answered, answer) = console(&service, &apply(policy));
        let shown: String = policy.chars().take(80).collect();
        assert_eq!(answered, status, "{shown}: {answer}");
        let problems = answer["problems"].as_array().unwrap();
        assert!(
            problems.iter().any(|problem| {
                problem["path"].as_str().unwrap().starts_with(path)
                    && problem["line"].as_u64().is_some_and(|line| line >= 2)
                    && problem["column"].is_u64()
                    && !problem["fix"].as_str().unwrap().is_empty()
            }),
            "{shown}: {answer}"
        );
        assert_eq!(service.footprint(), before, "{shown}");
    }
    let (status, answer) = console(
        &service,
        br#"{"apply": true, "policy": {"version": 1, "allow": {"ports": [0, 70000]}, "x": 1}}"#,
    );
    assert_eq!(status, 422);
    assert_eq!(
        answer["problems"].as_array().unwrap().len(),
        3,
        "not all of them: {answer}"
    );
    assert_eq!(service.enforcer.lock().unwrap().checks, 0);
}

#[test]
fn a_call_that_is_no_call_is_refused() {
    let service = Service::new(ENABLED).booted();
    let key = service.key("operator");
    for (body, status, word) in [
        (json!({"key": key}), 400, "the call has no policy"),
        (
            json!({"key": key, "policy": {}, "apply": "yes"}),
            400,
            "write true or false",
        ),
        (
            json!({"key": key, "polcy": {}}),
            400,
            "did you mean policy?",
        ),
        (json!({"key": 7, "policy": {}}), 400, "a key is a text"),
        (json!([1]), 400, "expected an object"),
    ] {
        let (answered, answer) = service.front(PATH, &body);
        assert_eq!(answered, status, "{body}: {answer}");
        assert!(
            answer["reason"].as_str().unwrap().contains(word),
            "{body}: {answer}"
        );
    }
}

#[test]
fn bodies_beyond_their_limit_are_refused_and_heard_out() {
    let service = Service::new(ENABLED).booted();
    let stream = || TcpStream::connect(("127.0.0.1", service.port())).unwrap();
    let (status, answer) = raw(stream(), "/clawgress/health", &vec![b' '; 65_537]);
    assert_eq!(status, 413);
    assert!(answer["reason"].as_str().unwrap().contains("65536"));
    let (status, answer) = raw(stream(), PATH, &vec![b' '; 200_000_000]);
    assert_eq!(status, 413);
    assert!(answer["reason"].as_str().unwrap().contains("67108864"));
    // As much as is allowed is read; it is just no policy.
    let (status, answer) = raw(stream(), PATH, &vec![b' '; 64 * 1024 * 1024]);
    assert_eq!(status, 400, "{answer}");
}

#[test]
fn a_large_policy_takes_its_time_and_keeps_nobody_waiting() {
    let service = Service::new(ENABLED).booted();
    let domains: Vec<String> = (0..100_000).map(|n| format!("host-{n}.example")).collect();
    let call = json!({"policy": {"version": 1, "allow": {"domains": domains}}, "apply": true});
    std::thread::scope(|scope| {
        let large = scope.spawn(|| service.console(PATH, &call));
        for _ in 0..20 {
            let (status, _) = service.console("/clawgress/console/keys", &json!({}));
            assert_eq!(status, 200);
            std::thread::sleep(Duration::from_millis(10));
        }
        let (status, answer) = large.join().unwrap();
        assert_eq!(status, 200, "{answer}");
    });
    let held = service.enforcer.lock().unwrap().held.clone().unwrap();
    assert_eq!(held.policy.global.allow.domains.len(), 100_000);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[a-z0-9*.-]{1,20}".prop_map(Value::from),
        "[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}/[0-9]{1,2}".prop_map(Value::from),
    ];
    let word = prop_oneof![
        "(version|allow|domains|ips|ports|labels|proxy|mode|time_window|days|start|end)",
        "(domain_time_windows|limits|egress_kbps|hosts|sources|exfil|bytes|period|mtls|backend)",
        "\\PC{0,8}",
    ];
    leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map(word.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn no_body_makes_it_panic_or_fall_silent() {
    let service = Service::new(ENABLED).booted();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        any_json().prop_map(|policy| json!({"policy": policy, "apply": true})
            .to_string()
            .into_bytes()),
        (any_json(), 0_usize..400).prop_map(|(policy, cut)| {
            let mut text = json!({"policy": policy, "apply": true})
                .to_string()
                .into_bytes();
            text.truncate(cut);
            text
        }),
    ];
    runner
        .run(&body, |body| {
            let (status, answer) = console(&service, &body);
            prop_assert!(
                matches!(status, 200 | 400 | 409 | 422),
                "{status}: {answer}"
            );
            prop_assert!(answer.is_object());
            Ok(())
        })
        .unwrap();
    assert!(!service.log().contains("panicked"), "{}", service.log());
}
