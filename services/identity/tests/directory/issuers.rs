//! Issuers and their keys: weak ones, several, and the appliance's own.

use aws_lc_rs::signature::KeyPair;
use clawgress_config::access::KeySource;
use clawgress_identity::Refusal;
use clawgress_identity::text::base64url;
use clawgress_identity::token::{Grant, SigningKey};
use serde_json::json;

use crate::outside::{Outside, claims, world};
use crate::world::{NOW, World, bearer, refused};

#[test]
fn weak_and_wrong_keys_are_no_keys_and_their_issuer_alone_is_denied() {
    let outside = Outside::new();
    let small = base64url(&[0xff; 255]);
    let good_modulus = base64url(&[0xff; 256]);
    for (keys, why) in [
        (
            format!(r#"{{"keys":[{{"kty":"RSA","n":"{small}","e":"AQAB"}}]}}"#),
            "RSA key of 2040 bits",
        ),
        (
            format!(r#"{{"keys":[{{"kty":"RSA","n":"{good_modulus}","e":"Aw"}}]}}"#),
            "exponent",
        ),
        (
            format!(r#"{{"keys":[{{"kty":"RSA","n":"{good_modulus}","e":"AQAA"}}]}}"#),
            "exponent",
        ),
        (
            format!(
                r#"{{"keys":[{{"kty":"RSA","n":"{}","e":"AQAB"}}]}}"#,
                base64url(&[&[0], [0xff; 256].as_slice()].concat())
            ),
            "begins with zero",
        ),
        (
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}"#.to_owned(),
            "not 32 bytes",
        ),
        (
            format!(
                r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}]}}"#,
                base64url(&[1; 32])
            ),
            "no key for ES256",
        ),
        (
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#.to_owned(),
            "no key for EdDSA",
        ),
        (r#"{"keys":[]}"#.to_owned(), "no key for"),
        (r#"{"keys":[],"keys":[]}"#.to_owned(), "stands twice"),
        ("{}".to_owned(), "no list `keys`"),
        (
            outside.jwks().replace("\"ec\"", "\"ed\""),
            "two keys have the id",
        ),
    ] {
        let mut world = world(&outside);
        let issuer = world.issuer("bad", &["EdDSA", "ES256", "RS256"], &keys);
        issuer.issuer = "https://bad.example".to_owned();
        let directory = world.directory();
        assert!(
            directory.faults()[0].contains(why),
            "{:?} for {keys:.100}",
            directory.faults()
        );
        bearer(&directory, &outside.with(|_| {})).unwrap();
        refused(
            bearer(
                &directory,
                &outside.with(|claims| claims["iss"] = json!("https://bad.example")),
            ),
            Refusal::UnknownKey,
        );
    }
}

#[test]
fn two_keys_of_one_algorithm_have_to_be_named() {
    let (one, other) = (Outside::new(), Outside::new());
    let mut world = World::new();
    let key = |outside: &Outside, id: &str| json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64url(outside.ed.public_key().as_ref()) });
    world.issuer(
        "out",
        &["EdDSA"],
        &json!({ "keys": [key(&one, "a"), key(&other, "b")] }).to_string(),
    );
    let directory = world.directory();
    let token = |header: &str| one.token("EdDSA", header, &claims().to_string());
    bearer(&directory, &token(r#"{"alg":"EdDSA","kid":"a"}"#)).unwrap();
    refused(
        bearer(&directory, &token(r#"{"alg":"EdDSA","kid":"b"}"#)),
        Refusal::BadSignature,
    );
    refused(
        bearer(&directory, &token(r#"{"alg":"EdDSA"}"#)),
        Refusal::UnknownKey,
    );
}

#[test]
fn two_issuers_of_one_name_differ_by_audience() {
    let (one, other) = (Outside::new(), Outside::new());
    let mut world = world(&one);
    let second = world.issuer("second", &["EdDSA"], &other.jwks());
    second.issuer = "https://out.example".to_owned();
    second.audience = "elsewhere".to_owned();
    let directory = world.directory();
    bearer(&directory, &one.with(|_| {})).unwrap();
    bearer(
        &directory,
        &other.with(|claims| claims["aud"] = json!("elsewhere")),
    )
    .unwrap();
    refused(
        bearer(&directory, &other.with(|_| {})),
        Refusal::BadSignature,
    );
    refused(
        bearer(&directory, &one.with(|claims| claims["aud"] = json!("x"))),
        Refusal::WrongAudience,
    );
}

#[test]
fn the_own_issuers_tokens_are_believed_and_say_nothing_that_is_mapped_away() {
    let (key, pkcs8) = SigningKey::make().unwrap();
    assert_eq!(SigningKey::of_pkcs8(&pkcs8).unwrap().id, key.id);
    let mut world = World::new();
    world.issuer("own", &["EdDSA"], "").keys = KeySource::Own;
    world.snapshot.key_sets.clear();
    world.snapshot.own_keys = Some(json!({ "keys": [key.jwk()] }).to_string());
    let directory = world.directory();
    let grant = Grant {
        issuer: "https://own.example",
        audience: "clawgress",
        who: vec![
            ("agent_id", "token-2"),
            ("team_id", "blue"),
            ("exp", "99999999999"),
        ],
        workload_fingerprint: Some("sha256:1"),
        issued: NOW,
        lifetime: 60,
    };
    let (token, id) = key.issue(&grant).unwrap();
    let identity = bearer(&directory, &token).unwrap();
    assert_eq!(&*identity.agent_id, "token-2");
    assert_eq!(identity.credential.to_string(), id);
    assert_eq!(identity.expires, Some(NOW + 60));
    assert_ne!(key.issue(&grant).unwrap().1, id);
}

#[test]
fn a_key_that_a_fetched_set_does_not_have_is_missed_once() {
    let (outside, stranger) = (Outside::new(), Outside::new());
    let mut world = world(&outside);
    let older = outside.jwks().replace("\"ed\"", "\"older\"");
    let token = outside.with(|_| {});
    let missed = |world: &World| {
        let directory = world.directory();
        for _ in 0..3 {
            refused(bearer(&directory, &token), Refusal::UnknownKey);
        }
        let missed: Vec<String> = directory.take_missed().into_iter().collect();
        assert!(directory.take_missed().is_empty());
        missed
    };
    let issuer = world.access.issuers.get_mut("out").unwrap();
    issuer.keys = KeySource::Url("https://login.example.com/keys".to_owned());
    let directory = world.directory();
    bearer(&directory, &token).unwrap();
    refused(
        bearer(&directory, &stranger.with(|_| {})),
        Refusal::BadSignature,
    );
    assert!(directory.take_missed().is_empty(), "its key is known");

    world.snapshot.key_sets.insert("out".to_owned(), older);
    assert_eq!(missed(&world), ["out"]);
    let issuer = world.access.issuers.get_mut("out").unwrap();
    issuer.keys = KeySource::File("out.json".to_owned());
    assert!(missed(&world).is_empty(), "a file is read when it changes");
}
