//! What a request's identity costs: 10,000 agents with two keys each, one issuer. Prints one JSON line a figure.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Instant;

use clawgress_config::access::{Access, Agent, AuthType, Issuer, KeySource, Status};
use clawgress_identity::api_key::Fresh;
use clawgress_identity::snapshot::{KIND, KeyRecord, Snapshot};
use clawgress_identity::token::{Grant, SigningKey};
use clawgress_identity::{CredentialKey, Directory, Presented, text};
use clawgress_link::bundle::{self, Publisher, Signed};
use clawgress_policy::Moment;
use serde_json::json;

const AGENTS: usize = 10_000;
const NOW: i64 = 1_795_000_000;

fn figure(name: &str, value: f64, unit: &str) {
    println!(
        "{}",
        json!({ "figure": name, "value": value, "unit": unit })
    );
}

/// Median of nine runs, in nanoseconds a call.
fn each(name: &str, calls: usize, mut call: impl FnMut(usize)) {
    let mut runs: Vec<f64> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            (0..calls).for_each(&mut call);
            begun.elapsed().as_secs_f64() * 1e9 / calls as f64
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    figure(name, runs[4].round(), "ns");
}

/// Agents, what is known of their credentials, and 20,000 keys.
fn agents(credential_key: &CredentialKey) -> (Access, Snapshot, Vec<String>) {
    let (mut access, mut snapshot, mut keys) = (Access::default(), Snapshot::default(), Vec::new());
    for number in 0..AGENTS {
        let id = format!("agent-{number}");
        let agent = |auth_type| Agent {
            team_id: format!("team-{}", number % 100),
            project_id: "search".to_owned(),
            environment: "prod".to_owned(),
            auth_type,
            status: Status::Active,
            sources: BTreeSet::new(),
            bound: false,
        };
        for _ in 0..2 {
            let fresh = Fresh::make().expect("random numbers");
            snapshot.keys.push(KeyRecord {
                prefix: fresh.prefix,
                agent: id.clone(),
                hash: text::base64url(&credential_key.hash(&fresh.text)),
                sources: Vec::new(),
                expires: None,
                revoked: false,
                workload_fingerprint: None,
            });
            keys.push(fresh.text);
        }
        access.agents.insert(id, agent(AuthType::ApiKey));
        access
            .agents
            .insert(format!("token-{number}"), agent(AuthType::Jwt));
    }
    (access, snapshot, keys)
}

fn main() {
    let credential_key = CredentialKey::of(&[7; 32]);
    let (mut access, mut snapshot, keys) = agents(&credential_key);
    let (signing, _) = SigningKey::make().expect("random numbers");
    let issuer = Issuer {
        issuer: "i".to_owned(),
        audience: "a".to_owned(),
        algorithms: ["EdDSA".to_owned()].into(),
        keys: KeySource::Own,
        key_ca: None,
        leeway_seconds: 5,
        claims: BTreeMap::new(),
    };
    access.issuers.insert("own".to_owned(), issuer);
    snapshot.own_keys = Some(json!({ "keys": [signing.jwk()] }).to_string());
    let tokens: Vec<String> = (0..1000)
        .map(|number| {
            let agent = format!("token-{number}");
            let grant = Grant {
                issuer: "i",
                audience: "a",
                who: vec![("agent_id", &agent)],
                workload_fingerprint: None,
                issued: NOW,
                lifetime: 300,
            };
            signing.issue(&grant).expect("random numbers").0
        })
        .collect();

    let state = std::env::temp_dir().join(format!("identity-bench-{}", std::process::id()));
    std::fs::create_dir(&state).expect("a directory for the bundle");
    let publisher = Publisher::open(&state, KIND).expect("a publisher");
    let begun = Instant::now();
    publisher.publish(&snapshot, NOW).expect("publishing");
    figure(
        "publish 20,000 keys",
        begun.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    let bytes = std::fs::read(state.join("identity.bundle")).expect("the bundle");
    let begun = Instant::now();
    let signed: Signed<Snapshot> =
        bundle::open("it", KIND, &[publisher.public_key()], &bytes).expect("its own bundle");
    figure(
        "verify and read 20,000 keys",
        begun.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    std::fs::remove_dir_all(&state).expect("removing the bundle");

    let begun = Instant::now();
    let directory = Directory::build(&signed.content, &access, credential_key);
    figure(
        "compile 20,000 keys and agents",
        begun.elapsed().as_secs_f64() * 1e3,
        "ms",
    );
    let (source, moment) = ([192, 0, 2, 1].into(), Moment::trusted(NOW));
    let good = |text: &str| {
        let identity = directory.resolve(&Presented::Bearer(text), source, moment);
        assert!(black_box(identity).is_ok());
    };
    each("resolve an API key", 20_000, |call| {
        good(&keys[call * 7919 % keys.len()])
    });
    let begun = Instant::now();
    for token in &tokens {
        good(token);
    }
    figure(
        "resolve a token, the first time",
        (begun.elapsed().as_secs_f64() * 1e6).round(),
        "ns",
    );
    each("resolve a token, again", 20_000, |call| {
        good(&tokens[call % tokens.len()])
    });
    each("refuse a wrong key", 20_000, |_| {
        let wrong = "cg_aaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(black_box(directory.resolve(&Presented::Bearer(wrong), source, moment)).is_err());
    });
}
