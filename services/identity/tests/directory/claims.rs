//! What a signed token says: needed, typed, held against the configuration and the clock, and taken back.

use clawgress_identity::Refusal;
use clawgress_identity::snapshot::RevokedToken;
use clawgress_policy::Moment;
use serde_json::{Value, json};

use crate::outside::{Outside, at, claims, world};
use crate::world::{NOW, World, bearer, refused, source};

#[test]
fn the_claims_of_every_token_are_needed_and_typed() {
    let outside = Outside::new();
    let mut world = world(&outside);
    world
        .access
        .issuers
        .get_mut("out")
        .unwrap()
        .claims
        .insert("project_id".to_owned(), "proj".to_owned());
    let directory = world.directory();
    let set = |name: &'static str, value: Value| {
        move |claims: &mut Value| {
            claims["proj"] = json!("search");
            claims[name] = value.clone();
        }
    };
    let unset = |name: &'static str| {
        move |claims: &mut Value| {
            claims["proj"] = json!("search");
            claims.as_object_mut().unwrap().remove(name);
        }
    };
    bearer(
        &directory,
        &outside.with(set("aud", json!(["other", "clawgress"]))),
    )
    .unwrap();
    bearer(
        &directory,
        &outside.with(set("exp", json!(NOW as f64 + 10.5))),
    )
    .unwrap();
    bearer(&directory, &outside.with(unset("nbf"))).unwrap();
    bearer(&directory, &outside.with(unset("team_id"))).unwrap();
    let no_id = bearer(&directory, &outside.with(unset("jti"))).unwrap();
    assert!(no_id.credential.to_string().starts_with("sha256:"));
    for (token, expected) in [
        (outside.with(unset("iss")), Refusal::WrongIssuer),
        (
            outside.with(set("iss", json!("https://evil.example"))),
            Refusal::WrongIssuer,
        ),
        (
            outside.with(set("iss", json!("https://out.example/"))),
            Refusal::WrongIssuer,
        ),
        (
            outside.with(set("iss", json!(["https://out.example"]))),
            Refusal::WrongClaims,
        ),
        (outside.with(unset("aud")), Refusal::WrongAudience),
        (
            outside.with(set("aud", json!("clawgress2"))),
            Refusal::WrongAudience,
        ),
        (outside.with(set("aud", json!([]))), Refusal::WrongAudience),
        (
            outside.with(set("aud", json!(["clawgress", 1]))),
            Refusal::WrongAudience,
        ),
        (outside.with(unset("exp")), Refusal::WrongClaims),
        (
            outside.with(set("exp", json!("9999999999"))),
            Refusal::WrongClaims,
        ),
        (outside.with(set("exp", json!(null))), Refusal::WrongClaims),
        (outside.with(set("exp", json!(-1))), Refusal::WrongClaims),
        (outside.with(set("exp", json!(1e300))), Refusal::WrongClaims),
        (
            outside.with(set("nbf", json!("soon"))),
            Refusal::WrongClaims,
        ),
    ] {
        let claims = token.split('.').nth(1).unwrap();
        let outcome = bearer(&directory, &token).err();
        assert_eq!(outcome, Some(expected), "{claims}");
    }
}

#[test]
fn whose_a_token_is_is_held_against_the_configuration() {
    let outside = Outside::new();
    let mut world = world(&outside);
    world
        .access
        .issuers
        .get_mut("out")
        .unwrap()
        .claims
        .insert("project_id".to_owned(), "proj".to_owned());
    let directory = world.directory();
    let set = |name: &'static str, value: Value| {
        move |claims: &mut Value| {
            claims["proj"] = json!("search");
            claims[name] = value.clone();
        }
    };
    let unset = |name: &'static str| {
        move |claims: &mut Value| {
            claims["proj"] = json!("search");
            claims.as_object_mut().unwrap().remove(name);
        }
    };
    bearer(
        &directory,
        &outside.with(set("aud", json!(["other", "clawgress"]))),
    )
    .unwrap();
    bearer(
        &directory,
        &outside.with(set("exp", json!(NOW as f64 + 10.5))),
    )
    .unwrap();
    for (token, expected) in [
        (outside.with(unset("agent_id")), Refusal::WrongClaims),
        (
            outside.with(set("agent_id", json!(["token-1"]))),
            Refusal::WrongClaims,
        ),
        (
            outside.with(set("agent_id", json!("nobody"))),
            Refusal::UnknownAgent,
        ),
        (
            outside.with(set("agent_id", json!("token-2"))),
            Refusal::WrongTenant,
        ),
        (
            outside.with(set("agent_id", json!("key-1"))),
            Refusal::WrongAuthType,
        ),
        (
            outside.with(set("team_id", json!("blue"))),
            Refusal::WrongTenant,
        ),
        (
            outside.with(set("environment", json!("test"))),
            Refusal::WrongTenant,
        ),
        (
            outside.with(set("proj", json!("other"))),
            Refusal::WrongTenant,
        ),
        // What the configuration maps must be there.
        (outside.with(unset("proj")), Refusal::WrongClaims),
        (outside.with(set("jti", json!(7))), Refusal::WrongClaims),
    ] {
        let claims = token.split('.').nth(1).unwrap();
        let outcome = bearer(&directory, &token).err();
        assert_eq!(outcome, Some(expected), "{claims}");
    }
    let twice = claims()
        .to_string()
        .replacen('{', r#"{"agent_id":"token-2","#, 1);
    let token = outside.token("EdDSA", r#"{"alg":"EdDSA","kid":"ed"}"#, &twice);
    refused(bearer(&directory, &token), Refusal::Malformed);
}

#[test]
fn times_have_the_issuers_leeway_also_for_what_was_verified_before() {
    let outside = Outside::new();
    let directory = world(&outside).directory();
    let token = outside.with(|_| {});
    for (now, expected) in [
        (NOW, Ok(())),
        (NOW + 329, Ok(())),
        (NOW + 330, Err(Refusal::Expired)),
        (NOW + 100_000, Err(Refusal::Expired)),
        (NOW - 35, Ok(())),
        (NOW - 36, Err(Refusal::NotYetValid)),
        (0, Err(Refusal::NotYetValid)),
    ] {
        assert_eq!(
            at(&directory, &token, Moment::trusted(now)),
            expected,
            "{}",
            now - NOW
        );
    }
    assert_eq!(
        at(&directory, &token, Moment::untrusted(NOW)),
        Err(Refusal::ClockUntrusted)
    );
    let future = outside.with(|claims| {
        claims["nbf"] = json!(NOW - 5);
        claims["iat"] = json!(NOW + 31);
    });
    refused(bearer(&directory, &future), Refusal::NotYetValid);
    let endless = outside.with(|claims| claims["exp"] = json!(i64::MAX));
    bearer(&directory, &endless).unwrap();
}

#[test]
fn what_was_taken_back_is_refused_in_the_next_directory() {
    let outside = Outside::new();
    let token = outside.with(|_| {});
    let fresh = world(&outside);
    let identity = bearer(&fresh.directory(), &token).unwrap();
    let denied = |world: &World| {
        let directory = world.directory();
        refused(
            directory.renew(&identity, source(), Moment::trusted(NOW)),
            Refusal::Revoked,
        );
        bearer(&directory, &token).unwrap_err()
    };
    let taken_back = |issuer: &str, id: &str| RevokedToken {
        issuer: issuer.to_owned(),
        id: id.to_owned(),
        until: NOW,
    };

    let mut one = world(&outside);
    one.snapshot
        .revoked_tokens
        .push(taken_back("elsewhere", "t-1"));
    one.snapshot.revoked_tokens.push(taken_back("out", "t-2"));
    one.snapshot
        .tokens_before
        .insert("token-1".to_owned(), NOW - 5);
    assert!(bearer(&one.directory(), &token).is_ok());
    assert!(
        one.directory()
            .renew(&identity, source(), Moment::trusted(NOW + 100_000))
            .is_ok()
    );
    one.snapshot.revoked_tokens.push(taken_back("out", "t-1"));
    assert_eq!(denied(&one), Refusal::Revoked);

    let mut all = world(&outside);
    all.snapshot
        .tokens_before
        .insert("token-1".to_owned(), NOW - 4);
    assert_eq!(denied(&all), Refusal::Revoked);
    // A token that does not say when it was issued.
    let undated = outside.with(|claims| drop(claims.as_object_mut().unwrap().remove("iat")));
    refused(bearer(&all.directory(), &undated), Refusal::Revoked);

    let mut other_keys = world(&outside);
    other_keys.issuer("out", &["EdDSA"], &Outside::new().jwks());
    assert_eq!(denied(&other_keys), Refusal::BadSignature);
}
