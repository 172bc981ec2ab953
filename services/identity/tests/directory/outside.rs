//! An issuer outside: its keys, and whatever it may put its signature under.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use clawgress_identity::text::base64url;
use clawgress_identity::{Directory, Presented, Refusal};
use clawgress_policy::Moment;
use serde_json::{Value, json};

use crate::world::{NOW, World, source};

/// Keys of the outside issuer, one for each algorithm.
pub(crate) struct Outside {
    pub(crate) ed: Ed25519KeyPair,
    pub(crate) ec: EcdsaKeyPair,
    pub(crate) ec_pkcs8: Vec<u8>,
    pub(crate) rsa: RsaKeyPair,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let ec_pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap()
                .as_ref()
                .to_vec();
        Self {
            ed: Ed25519KeyPair::generate().unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &ec_pkcs8).unwrap(),
            ec_pkcs8,
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    pub(crate) fn jwks(&self) -> String {
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64url(self.ed.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig",
              "x": base64url(&point[1..33]), "y": base64url(&point[33..]) },
            rsa_jwk(&self.rsa, "rsa"),
            { "kty": "EC", "crv": "P-384", "kid": "other", "x": "AA", "y": "AA" },
            { "kty": "RSA", "use": "enc", "kid": "enc", "n": "AA", "e": "AQAB" },
        ]})
        .to_string()
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match algorithm {
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "ES256" => self
                .ec
                .sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec(),
            "RS256" => {
                let mut bytes = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut bytes)
                    .unwrap();
                bytes
            }
            other => panic!("{other}"),
        }
    }

    /// A token of any header and claims, signed as `algorithm` says.
    pub(crate) fn token(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let signed = format!(
            "{}.{}",
            base64url(header.as_bytes()),
            base64url(claims.as_bytes())
        );
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }

    /// A good one but for what the test changes in its claims.
    pub(crate) fn with(&self, change: impl Fn(&mut Value)) -> String {
        let mut claims = claims();
        change(&mut claims);
        self.token(
            "EdDSA",
            r#"{"alg":"EdDSA","kid":"ed"}"#,
            &claims.to_string(),
        )
    }
}

pub(crate) fn rsa_jwk(key: &RsaKeyPair, id: &str) -> Value {
    // PKCS #1: a sequence of the modulus, 256 bytes after nine of headers and sign, and the exponent 65537.
    let der = key.public_key().as_ref();
    assert_eq!(der.len(), 270);
    json!({ "kty": "RSA", "alg": "RS256", "kid": id, "n": base64url(&der[9..265]), "e": "AQAB" })
}

pub(crate) fn claims() -> Value {
    json!({
        "iss": "https://out.example", "aud": "clawgress", "exp": NOW + 300, "nbf": NOW - 5, "iat": NOW - 5,
        "jti": "t-1", "agent_id": "token-1", "team_id": "red", "workload_fingerprint": "spiffe://a/b",
    })
}

pub(crate) fn world(outside: &Outside) -> World {
    let mut world = World::new();
    world.issuer("out", &["EdDSA", "ES256", "RS256"], &outside.jwks());
    world
}

pub(crate) fn at(directory: &Directory, token: &str, moment: Moment) -> Result<(), Refusal> {
    directory
        .resolve(&Presented::Bearer(token), source(), moment)
        .map(drop)
}
