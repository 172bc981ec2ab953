//! Signed tokens: three algorithms, one form, and a wide table of headers that must never be believed.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use clawgress_identity::Refusal;
use clawgress_identity::text::base64url;
use serde_json::json;

use crate::outside::{Outside, claims, rsa_jwk, world};
use crate::world::{NOW, World, basic, bearer, refused};

#[test]
fn each_algorithm_proves_who_asks() {
    let outside = Outside::new();
    let directory = world(&outside).directory();
    assert!(directory.faults().is_empty(), "{:?}", directory.faults());
    for (algorithm, id) in [("EdDSA", "ed"), ("ES256", "ec"), ("RS256", "rsa")] {
        let header = json!({ "alg": algorithm, "kid": id, "typ": "JWT" }).to_string();
        let token = outside.token(algorithm, &header, &claims().to_string());
        // The second time it is one that was verified before.
        for _ in 0..2 {
            let identity = bearer(&directory, &token).unwrap();
            assert_eq!(&*identity.agent_id, "token-1");
            assert_eq!(identity.credential.to_string(), "t-1");
            assert_eq!(identity.expires, Some(NOW + 300));
            assert_eq!(
                identity.workload_fingerprint.as_deref(),
                Some("spiffe://a/b")
            );
        }
        basic(&directory, "token-1", &token).unwrap();
        refused(basic(&directory, "token-2", &token), Refusal::WrongAgent);
        let without_id = json!({ "alg": algorithm }).to_string();
        bearer(
            &directory,
            &outside.token(algorithm, &without_id, &claims().to_string()),
        )
        .unwrap();
    }
}

#[test]
fn a_header_is_believed_in_nothing_but_the_name_of_a_key() {
    let outside = Outside::new();
    let directory = world(&outside).directory();
    let claims = claims().to_string();
    let own_key = json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519",
        "x": base64url(outside.ed.public_key().as_ref()) } });
    let own_key = own_key.to_string();
    let huge = json!({ "alg": "EdDSA", "kid": "ed", "x": "a".repeat(4000) }).to_string();
    for (header, expected) in [
        (r#"{"alg":"none"}"#, Refusal::WrongAlgorithm),
        (r#"{"alg":"None","kid":"ed"}"#, Refusal::WrongAlgorithm),
        (r#"{"alg":"nOnE","kid":"ed"}"#, Refusal::WrongAlgorithm),
        (r#"{"alg":"","kid":"ed"}"#, Refusal::WrongClaims),
        (r#"{"alg":"HS256","kid":"ed"}"#, Refusal::WrongAlgorithm),
        (r#"{"alg":"eddsa","kid":"ed"}"#, Refusal::WrongAlgorithm),
        (r#"{"alg":"Ed25519","kid":"ed"}"#, Refusal::WrongAlgorithm),
        (r#"{"alg":"RS512","kid":"ed"}"#, Refusal::WrongAlgorithm),
        (r#"{"alg":["EdDSA"],"kid":"ed"}"#, Refusal::WrongClaims),
        (r#"{"kid":"ed"}"#, Refusal::Malformed),
        (
            r#"{"alg":"EdDSA","alg":"none","kid":"ed"}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"ed","kid":"ed"}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","\u0061lg":"EdDSA","kid":"ed"}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"ed","crit":["exp"]}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"ed","crit":[]}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"ed","b64":false}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"ed","zip":"DEF"}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"ed","jku":"https://evil.example/keys"}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"ed","x5u":"https://evil.example/x"}"#,
            Refusal::Malformed,
        ),
        (&own_key, Refusal::Malformed),
        (
            r#"{"alg":"EdDSA","kid":"ed","typ":"JWE"}"#,
            Refusal::Malformed,
        ),
        (
            r#"{"alg":"EdDSA","kid":"../../../../dev/null"}"#,
            Refusal::UnknownKey,
        ),
        (r#"{"alg":"EdDSA","kid":"ed\u0000"}"#, Refusal::UnknownKey),
        (r#"{"alg":"EdDSA","kid":"ED"}"#, Refusal::UnknownKey),
        (
            r#"{"alg":"EdDSA","kid":"' OR 1=1 --"}"#,
            Refusal::UnknownKey,
        ),
        (r#"{"alg":"EdDSA","kid":["ed"]}"#, Refusal::WrongClaims),
        (r#"{"alg":"EdDSA","kid":""}"#, Refusal::WrongClaims),
        // The key of another algorithm.
        (r#"{"alg":"EdDSA","kid":"ec"}"#, Refusal::UnknownKey),
        (r#"{"alg":"ES256","kid":"ed"}"#, Refusal::UnknownKey),
        (r#"{"alg":"ES256","kid":"ec"}"#, Refusal::BadSignature),
        (&huge, Refusal::Malformed),
        (r#"[{"alg":"EdDSA"}]"#, Refusal::Malformed),
        (r#"{"alg":"EdDSA","kid":"ed"} x"#, Refusal::Malformed),
        ("", Refusal::Malformed),
    ] {
        let outcome = bearer(&directory, &outside.token("EdDSA", header, &claims));
        assert_eq!(outcome.err(), Some(expected), "{header}");
    }
    for header in [
        r#"{"alg":"EdDSA","kid":"ed","typ":"at+JWT"}"#,
        r#"{"typ":"application/jwt","alg":"EdDSA","kid":"ed","cty":"x"}"#,
    ] {
        bearer(&directory, &outside.token("EdDSA", header, &claims)).unwrap();
    }
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let outside = Outside::new();
    let directory = world(&outside).directory();
    let jwk = rsa_jwk(&outside.rsa, "rsa").to_string();
    let der = outside.rsa.public_key().as_ref().to_vec();
    for secret in [
        der.as_slice(),
        outside.jwks().as_bytes(),
        jwk.as_bytes(),
        outside.ed.public_key().as_ref(),
        b"",
    ] {
        for algorithm in ["HS256", "RS256", "EdDSA"] {
            let header = json!({ "alg": algorithm, "kid": "rsa" }).to_string();
            let signed = format!(
                "{}.{}",
                base64url(header.as_bytes()),
                base64url(claims().to_string().as_bytes())
            );
            let tag = hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, secret),
                signed.as_bytes(),
            );
            let token = format!("{signed}.{}", base64url(tag.as_ref()));
            assert!(bearer(&directory, &token).is_err(), "{algorithm}");
        }
    }
    // Nor is a shared secret taken as a key.
    for keys in [
        r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}"#,
    ] {
        let mut world = World::new();
        world.issuer("out", &["EdDSA"], keys);
        let directory = world.directory();
        assert!(
            directory.faults()[0].contains("it holds a secret"),
            "{:?}",
            directory.faults()
        );
    }
}

#[test]
fn an_algorithm_that_is_not_pinned_is_refused_though_the_key_is_there() {
    let outside = Outside::new();
    let mut world = World::new();
    world.issuer("out", &["ES256"], &outside.jwks());
    let directory = world.directory();
    refused(
        bearer(&directory, &outside.with(|_| {})),
        Refusal::WrongAlgorithm,
    );
}

#[test]
fn there_is_one_spelling_of_a_token() {
    let outside = Outside::new();
    let directory = world(&outside).directory();
    let good = outside.with(|_| {});
    bearer(&directory, &good).unwrap();
    let (rest, signature) = good.rsplit_once('.').unwrap();
    // 64 bytes end in a letter with four bits to spare.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet
        .chars()
        .nth(alphabet.find(last).unwrap() + 1)
        .unwrap();
    let stray = format!("{rest}.{}{next}", &signature[..signature.len() - 1]);
    let claims = base64url(claims().to_string().as_bytes());
    for wrong in [
        stray,
        format!("{good}="),
        format!("{good}=="),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}\n"),
        format!("{good} "),
        format!("{rest}."),
        rest.to_owned(),
        good.replace('.', ".."),
        format!("{rest}.{signature}.{signature}"),
        format!("{rest}.{signature}.{signature}.{signature}.{signature}"),
        format!("{}.{claims}.{signature}", base64url(br#"{"alg":"none"}"#)),
        format!("{good}{}", "A".repeat(9000)),
        "..".to_owned(),
        ".".to_owned(),
        "a.b.c".to_owned(),
        "é.é.é".to_owned(),
    ] {
        let outcome = bearer(&directory, &wrong).err().unwrap();
        assert!(
            matches!(outcome, Refusal::Malformed | Refusal::WrongAlgorithm),
            "{outcome} of {wrong:.80}"
        );
    }
    // Empty signature under a pinned algorithm, and bytes after a signature.
    refused(
        bearer(&directory, &format!("{rest}.{}", base64url(&[0; 65]))),
        Refusal::BadSignature,
    );
    refused(
        bearer(&directory, &format!("{rest}.{}", base64url(&[0; 64]))),
        Refusal::BadSignature,
    );
}

#[test]
fn signatures_of_es256_have_the_one_form_and_numbers_above_zero() {
    let outside = Outside::new();
    let directory = world(&outside).directory();
    let signed = format!(
        "{}.{}",
        base64url(br#"{"alg":"ES256","kid":"ec"}"#),
        base64url(claims().to_string().as_bytes())
    );
    let good = outside.sign("ES256", signed.as_bytes());
    bearer(&directory, &format!("{signed}.{}", base64url(&good))).unwrap();
    let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &outside.ec_pkcs8)
        .unwrap()
        .sign(&SystemRandom::new(), signed.as_bytes())
        .unwrap();
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let wrong: [Vec<u8>; 8] = [
        der.as_ref().to_vec(),
        vec![0; 64],
        [&[0; 32], &good[32..]].concat(),
        [&good[..32], &[0; 32]].concat(),
        [order, order].concat(),
        [&good[..32], &order].concat(),
        [good.as_slice(), &[0]].concat(),
        good[..63].to_vec(),
    ];
    for signature in wrong {
        let token = format!("{signed}.{}", base64url(&signature));
        refused(bearer(&directory, &token), Refusal::BadSignature);
    }
}

#[test]
fn every_cut_and_every_flipped_bit_of_a_token_is_refused() {
    let outside = Outside::new();
    let directory = world(&outside).directory();
    let good = outside.with(|_| {});
    for length in 0..good.len() {
        assert!(bearer(&directory, &good[..length]).is_err(), "{length}");
    }
    for place in 0..good.len() {
        for bit in [1, 2, 32] {
            let mut bytes = good.clone().into_bytes();
            bytes[place] ^= bit;
            let Ok(text) = String::from_utf8(bytes) else {
                continue;
            };
            assert!(bearer(&directory, &text).is_err(), "{place}");
        }
    }
}
