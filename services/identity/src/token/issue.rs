//! The appliance's own issuer: short-lived tokens for one agent, signed with Ed25519.
//!
//! Its private keys stay with the identity service; everybody else has the key set alone.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Map, Value, json};

use crate::api_key::{NoRandomness, random};
use crate::text;

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is no Ed25519 key in PKCS #8")]
pub struct SigningKeyError;

pub struct SigningKey {
    /// Digest of the public half, in base64url.
    pub id: String,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Grant<'g> {
    pub issuer: &'g str,
    pub audience: &'g str,
    /// Claims that say who the agent is, under the names that the issuer's configuration gives them.
    pub who: Vec<(&'g str, &'g str)>,
    pub workload_fingerprint: Option<&'g str>,
    /// Seconds since 1970.
    pub issued: i64,
    pub lifetime: i64,
}

impl SigningKey {
    pub fn make() -> Result<(Self, Vec<u8>), NoRandomness> {
        let pair = Ed25519KeyPair::generate().map_err(|_| NoRandomness)?;
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| NoRandomness)?;
        Ok((Self::of(pair), pkcs8.as_ref().to_vec()))
    }

    pub fn of_pkcs8(pkcs8: &[u8]) -> Result<Self, SigningKeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map(Self::of)
            .map_err(|_| SigningKeyError)
    }

    fn of(pair: Ed25519KeyPair) -> Self {
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pair.public_key().as_ref());
        Self {
            id: text::base64url(digest.as_ref().get(..12).unwrap_or_default()),
            pair,
        }
    }

    /// The public half, as a member of a JWK set.
    pub fn jwk(&self) -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": self.id,
            "x": text::base64url(self.pair.public_key().as_ref()),
        })
    }

    /// The token's text, and its `jti`.
    pub fn issue(&self, grant: &Grant<'_>) -> Result<(String, String), NoRandomness> {
        let id = text::base64url(&random::<16>()?);
        let mut claims = Map::new();
        for (name, value) in &grant.who {
            claims.insert((*name).to_owned(), (*value).into());
        }
        if let Some(fingerprint) = grant.workload_fingerprint {
            claims.insert("workload_fingerprint".to_owned(), fingerprint.into());
        }
        // Last, so that no mapped name can take the place of one of these.
        for (name, value) in [
            ("iss", json!(grant.issuer)),
            ("aud", json!(grant.audience)),
            ("iat", json!(grant.issued)),
            ("nbf", json!(grant.issued)),
            ("exp", json!(grant.issued.saturating_add(grant.lifetime))),
            ("jti", json!(id)),
        ] {
            claims.insert(name.to_owned(), value);
        }
        let header = json!({ "alg": "EdDSA", "kid": self.id, "typ": "JWT" });
        let part = |value: &Value| text::base64url(value.to_string().as_bytes());
        let signed = format!("{}.{}", part(&header), part(&Value::Object(claims)));
        let signature = text::base64url(self.pair.sign(signed.as_bytes()).as_ref());
        Ok((format!("{signed}.{signature}"), id))
    }
}
