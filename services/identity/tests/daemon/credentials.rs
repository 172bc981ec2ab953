//! Keys and tokens from their making to their revocation at a gateway.

use std::time::{Duration, Instant};

use clawgress_config::access::{Access, AuthType, Issuer, KeySource};
use clawgress_identity::admin::{Missed, Reply, Request, Wish};
use clawgress_identity::{Presented, Refusal, missed};
use clawgress_policy::Moment;

use crate::world::{World, agent, directory, is_private, until};

fn access() -> Access {
    let mut access = Access::default();
    access
        .agents
        .insert("agent-1".to_owned(), agent(AuthType::ApiKey));
    access
        .agents
        .insert("agent-2".to_owned(), agent(AuthType::Jwt));
    access.issuers.insert(
        "own".to_owned(),
        Issuer {
            issuer: "clawgress".to_owned(),
            audience: "gateway".to_owned(),
            algorithms: ["EdDSA".to_owned()].into(),
            keys: KeySource::Own,
            key_ca: None,
            leeway_seconds: 5,
            claims: std::collections::BTreeMap::new(),
        },
    );
    access
}

fn now() -> Moment {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Moment::trusted(since.as_secs().cast_signed())
}

#[tokio::test]
async fn a_revocation_is_at_the_gateway_within_a_second() {
    let world = World::start(access()).await;
    let own = world.place().credentials().await.unwrap();
    let mut watched = world.watch(&own);
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        let (key, prefix) = world.new_key("agent-1").await;
        until(&mut watched, |snapshot| {
            snapshot.keys.iter().any(|key| key.prefix == prefix)
        })
        .await;
        let at_gateway = |snapshot: &_| {
            directory(&own, snapshot, &world.access)
                .resolve(&Presented::Bearer(&key), [192, 0, 2, 1].into(), now())
                .map(|identity| identity.agent_id.to_string())
        };
        let known = watched.current.borrow().clone().unwrap();
        assert_eq!(at_gateway(&known.content).unwrap(), "agent-1");

        let begun = Instant::now();
        world
            .ask(Request::RevokeKey {
                prefix: prefix.clone(),
            })
            .await;
        until(&mut watched, |snapshot| {
            at_gateway(snapshot) == Err(Refusal::Revoked)
        })
        .await;
        slowest = slowest.max(begun.elapsed());
    }
    println!(
        "a revocation was in force at the gateway after at most {} ms",
        slowest.as_millis()
    );
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[tokio::test]
async fn nothing_is_lost_by_a_crash_and_what_is_known_goes_on_without_the_service() {
    let mut world = World::start(access()).await;
    let own = world.place().credentials().await.unwrap();
    let mut watched = world.watch(&own);
    let (key, prefix) = world.new_key("agent-1").await;
    until(&mut watched, |snapshot| snapshot.keys.len() == 1).await;
    let mark = watched.current.borrow().as_ref().unwrap().mark;
    world.kill();
    watched
        .reachable
        .wait_for(|reachable| !reachable)
        .await
        .unwrap();
    assert!(watched.current.borrow().is_some());
    drop(watched);

    // The gateway, too, has restarted meanwhile; its last good snapshot is on disk.
    let own = world.place().credentials().await.unwrap();
    let mut watched = world.watch(&own);
    let last = watched.current.borrow().clone().unwrap();
    assert_eq!(last.mark, mark);
    let directory = directory(&own, &last.content, &world.access);
    assert!(
        directory
            .resolve(&Presented::Bearer(&key), [192, 0, 2, 1].into(), now())
            .is_ok()
    );

    world.run().await;
    world.ask(Request::RevokeKey { prefix }).await;
    until(&mut watched, |snapshot| snapshot.keys[0].revoked).await;
    assert!(watched.current.borrow().as_ref().unwrap().mark > mark);
    assert!(*watched.reachable.borrow());
}

#[tokio::test]
async fn keys_are_listed_rotated_and_never_shown_again() {
    let world = World::start(access()).await;
    let (key, prefix) = world.new_key("agent-1").await;
    let Reply::NewKey { about, .. } = world
        .ask(Request::RotateKey {
            prefix: prefix.clone(),
            grace_seconds: 60,
        })
        .await
    else {
        panic!()
    };
    let Reply::Keys { keys } = world
        .ask(Request::ListKeys {
            agent: Some("agent-1".to_owned()),
        })
        .await
    else {
        panic!()
    };
    assert_eq!(keys.len(), 2);
    let old = keys.iter().find(|key| key.prefix == prefix).unwrap();
    assert!((now().now + 50..=now().now + 60).contains(&old.expires.unwrap()));
    assert_eq!(
        keys.iter()
            .find(|key| key.prefix == about.prefix)
            .unwrap()
            .expires,
        None
    );
    let secret = key.get(12..).unwrap();
    for entry in std::fs::read_dir(world.path("state")).unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read(&path).unwrap();
        assert!(
            !String::from_utf8_lossy(&content).contains(secret),
            "{}",
            path.display()
        );
        assert!(is_private(&path), "{}", path.display());
    }
    for (request, expected) in [
        (
            Request::CreateKey(Wish {
                agent: "nobody".to_owned(),
                ..Wish::default()
            }),
            "no agent nobody",
        ),
        (
            Request::CreateKey(Wish {
                agent: "agent-2".to_owned(),
                ..Wish::default()
            }),
            "does not prove itself by API keys",
        ),
        (
            Request::CreateKey(Wish {
                agent: "agent-1".to_owned(),
                sources: vec!["10.0.0.1/8".to_owned()],
                ..Wish::default()
            }),
            "'10.0.0.1/8', which is no network",
        ),
        (
            Request::RevokeKey {
                prefix: "aaaaaaaa".to_owned(),
            },
            "no key in use has the prefix 'aaaaaaaa'",
        ),
        (
            Request::RevokeCertificate {
                serial: "xyz".to_owned(),
            },
            "no hex number",
        ),
    ] {
        let error = world.try_ask(&request).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn own_tokens_are_good_at_the_gateway_until_they_are_taken_back() {
    let world = World::start(access()).await;
    let own = world.place().credentials().await.unwrap();
    let mut watched = world.watch(&own);
    let issue = || async {
        let request = Request::IssueToken {
            agent: "agent-2".to_owned(),
            issuer: None,
            lifetime_seconds: 300,
            workload_fingerprint: None,
        };
        match world.ask(request).await {
            Reply::Token { token, id, expires } => (token, id, expires),
            other => panic!("{other:?}"),
        }
    };
    let (token, id, expires) = issue().await;
    let (other, ..) = issue().await;
    world.ask(Request::RotateSigningKey).await;
    let (by_new_key, ..) = issue().await;
    until(&mut watched, |snapshot| {
        snapshot
            .own_keys
            .as_ref()
            .is_some_and(|keys| keys.matches("Ed25519").count() == 2)
    })
    .await;
    let resolve = |watched: &clawgress_link::bundle::Watched<clawgress_identity::Snapshot>,
                   token: &str| {
        let bundle = watched.current.borrow().clone().unwrap();
        directory(&own, &bundle.content, &world.access)
            .resolve(
                &Presented::Basic {
                    user: "agent-2",
                    secret: token,
                },
                [192, 0, 2, 1].into(),
                now(),
            )
            .map(|identity| identity.credential.to_string())
    };
    assert_eq!(resolve(&watched, &token).unwrap(), id);
    assert!(resolve(&watched, &other).is_ok());
    assert!(resolve(&watched, &by_new_key).is_ok());
    world
        .ask(Request::RevokeToken {
            issuer: "own".to_owned(),
            id,
            until: expires,
        })
        .await;
    until(&mut watched, |snapshot| !snapshot.revoked_tokens.is_empty()).await;
    assert_eq!(resolve(&watched, &token), Err(Refusal::Revoked));
    assert!(resolve(&watched, &other).is_ok());
    world
        .ask(Request::RevokeTokens {
            agent: "agent-2".to_owned(),
        })
        .await;
    until(&mut watched, |snapshot| !snapshot.tokens_before.is_empty()).await;
    assert_eq!(resolve(&watched, &other), Err(Refusal::Revoked));
}

#[tokio::test]
async fn files_and_revisions_are_followed_within_a_second_and_what_is_broken_changes_nothing() {
    let mut world = World::start(access()).await;
    let own = world.place().credentials().await.unwrap();
    let mut watched = world.watch(&own);
    until(&mut watched, |snapshot| snapshot.own_keys.is_some()).await;
    let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    std::fs::write(world.path("files/out.json"), jwks).unwrap();
    let mut out = world.access.issuers["own"].clone();
    out.issuer = "https://out.example".to_owned();
    out.keys = KeySource::File("out.json".to_owned());
    world.access.issuers.insert("out".to_owned(), out);
    world.commit();
    let took = until(&mut watched, |snapshot| {
        snapshot
            .key_sets
            .get("out")
            .is_some_and(|text| text == jwks)
    })
    .await;
    assert!(took < Duration::from_secs(1), "{took:?}");

    std::fs::write(world.path("files/out.json"), "{").unwrap();
    let faults = loop {
        let Reply::Status(status) = world.ask(Request::Status).await else {
            panic!()
        };
        if !status.faults.is_empty() {
            break status.faults;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(
        faults[0].contains("out.json") && faults[0].contains("the last good one stays in force"),
        "{faults:?}"
    );
    assert_eq!(
        watched.current.borrow().as_ref().unwrap().content.key_sets["out"],
        jwks
    );

    let next = jwks.replace("\"a\"", "\"b\"");
    std::fs::write(world.path("files/out.json"), &next).unwrap();
    let took = until(&mut watched, |snapshot| snapshot.key_sets["out"] == next).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.access.issuers.remove("out");
    world.commit();
    until(&mut watched, |snapshot| snapshot.key_sets.is_empty()).await;
}

#[tokio::test]
async fn a_set_that_cannot_be_fetched_is_told_and_a_gateway_may_say_what_it_misses() {
    let mut access = access();
    let mut issuer = access.issuers["own"].clone();
    issuer.issuer = "https://login.example.com/".to_owned();
    issuer.keys = KeySource::Url("https://login.example.com/keys".to_owned());
    access.issuers.insert("login".to_owned(), issuer);
    let world = World::start(access).await;
    let begun = Instant::now();
    loop {
        let Reply::Status(status) = world.ask(Request::Status).await else {
            panic!("no status");
        };
        let told = status.faults.join("\n");
        if told.contains("fetching https://login.example.com/keys: identity.toml names no resolver")
            && told.contains("whoever depends on it is denied")
        {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{told}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let own = world.place().credentials().await.unwrap();
    let missed = Missed {
        issuers: ["login".to_owned(), "nobody".to_owned()].into(),
    };
    missed::tell(&own, world.address, &missed).await.unwrap();
}
