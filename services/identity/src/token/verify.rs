//! One token, from its text to claims that may be believed.
//!
//! Reads strictly: one spelling, no member twice, nothing critical that it does not know, no key brought along.

use clawgress_policy::Moment;
use serde_json::{Map, Value};

use super::keys::{Algorithm, KeySet, PublicKey};
use super::strict;
use crate::refusal::Refusal;
use crate::text;

const LONGEST: usize = 8 * 1024;
const LONGEST_HEADER: usize = 2 * 1024;
const LONGEST_WORD: usize = 256;

/// Something signed, of the right form, of which nothing is proved yet: what a token is before anybody asks what it says.
#[derive(Debug)]
pub struct Signed<'t> {
    /// What the signature is over.
    message: &'t str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key_id: Option<String>,
    payload: Vec<u8>,
}

/// A token of the right form, of which nothing is proved yet.
#[derive(Debug)]
pub struct Token<'t> {
    signed: Signed<'t>,
    claims: Map<String, Value>,
}

/// What a verifier expects, out of the configuration.
#[derive(Debug)]
pub struct Expected<'e> {
    pub audience: &'e str,
    pub algorithms: &'e [Algorithm],
    pub keys: &'e KeySet,
    pub leeway: i64,
}

/// Claims whose signature, audience and times hold.
#[derive(Debug, Clone)]
pub struct Claims {
    pub expires: i64,
    pub not_before: Option<i64>,
    pub issued: Option<i64>,
    pub id: Option<String>,
    /// Digest of the key that signed.
    pub key: [u8; 32],
    all: Map<String, Value>,
}

impl<'t> Signed<'t> {
    /// The form alone. `alg` has to be one that we know: `none` and shared secrets are not.
    pub fn parse(token: &'t str) -> Result<Self, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Refusal::Malformed)?;
        if payload.contains('.') || signature.is_empty() || header.len() > LONGEST_HEADER {
            return Err(Refusal::Malformed);
        }
        let decode = |part| text::from_base64url(part).ok_or(Refusal::Malformed);
        let header = strict::object(&decode(header)?).ok_or(Refusal::Malformed)?;
        let algorithm = algorithm_of(&header)?;
        Ok(Self {
            message,
            signature: decode(signature)?,
            algorithm,
            key_id: word(&header, "kid")?.map(str::to_owned),
            payload: decode(payload)?,
        })
    }

    /// By one of these keys and algorithms, and no other. The key that did it.
    pub fn verify<'k>(
        &self,
        keys: &'k KeySet,
        algorithms: &[Algorithm],
    ) -> Result<&'k PublicKey, Refusal> {
        if !algorithms.contains(&self.algorithm) {
            return Err(Refusal::WrongAlgorithm);
        }
        let key = keys
            .find(self.key_id.as_deref(), self.algorithm)
            .ok_or(Refusal::UnknownKey)?;
        if !key.verify(self.message.as_bytes(), &self.signature) {
            return Err(Refusal::BadSignature);
        }
        Ok(key)
    }
}

impl<'t> Token<'t> {
    /// The form alone.
    pub fn parse(token: &'t str) -> Result<Self, Refusal> {
        let signed = Signed::parse(token)?;
        let claims = strict::object(&signed.payload).ok_or(Refusal::Malformed)?;
        Ok(Self { signed, claims })
    }

    /// Who claims to have signed it.
    pub fn issuer(&self) -> Result<&str, Refusal> {
        word(&self.claims, "iss")?.ok_or(Refusal::WrongIssuer)
    }

    /// Whose tokens it claims to be meant for.
    pub fn is_meant_for(&self, audience: &str) -> bool {
        match self.claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(list)) => {
                list.iter().all(Value::is_string) && list.iter().any(|one| one == audience)
            }
            _ => false,
        }
    }

    /// First the signature, then what it is over.
    pub fn verify(self, expected: &Expected<'_>, moment: Moment) -> Result<Claims, Refusal> {
        let key = self.signed.verify(expected.keys, expected.algorithms)?;
        if !self.is_meant_for(expected.audience) {
            return Err(Refusal::WrongAudience);
        }
        let claims = Claims {
            expires: time(&self.claims, "exp")?.ok_or(Refusal::WrongClaims)?,
            not_before: time(&self.claims, "nbf")?,
            issued: time(&self.claims, "iat")?,
            id: word(&self.claims, "jti")?.map(str::to_owned),
            key: key.digest,
            all: self.claims,
        };
        claims.hold_at(moment, expected.leeway)?;
        Ok(claims)
    }
}

impl Claims {
    /// Whether they hold at this moment; looked at anew whenever a token that was verified before is shown again.
    pub fn hold_at(&self, moment: Moment, leeway: i64) -> Result<(), Refusal> {
        if !moment.trusted {
            return Err(Refusal::ClockUntrusted);
        }
        if moment.now >= self.expires.saturating_add(leeway) {
            return Err(Refusal::Expired);
        }
        let begins = self.not_before.max(self.issued);
        if begins.is_some_and(|begins| moment.now < begins.saturating_sub(leeway)) {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }

    pub fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        word(&self.all, name)
    }
}

fn algorithm_of(header: &Map<String, Value>) -> Result<Algorithm, Refusal> {
    // Extensions that must be understood, keys that the token brings along or sends us to fetch, and encryption.
    for name in ["crit", "b64", "jku", "jwk", "x5u", "x5c", "enc", "zip"] {
        if header.contains_key(name) {
            return Err(Refusal::Malformed);
        }
    }
    if let Some(kind) = word(header, "typ")? {
        let kind = kind.to_ascii_lowercase();
        if !matches!(
            kind.strip_prefix("application/").unwrap_or(&kind),
            "jwt" | "at+jwt"
        ) {
            return Err(Refusal::Malformed);
        }
    }
    let named = word(header, "alg")?.ok_or(Refusal::Malformed)?;
    Algorithm::of_word(named).ok_or(Refusal::WrongAlgorithm)
}

fn word<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>, Refusal> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= LONGEST_WORD => {
            Ok(Some(text))
        }
        Some(_) => Err(Refusal::WrongClaims),
    }
}

/// Seconds since 1970; fractions are cut off.
fn time(members: &Map<String, Value>, name: &str) -> Result<Option<i64>, Refusal> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_i64().or_else(|| {
                let value = number.as_f64()?;
                // Beyond this a float no longer counts seconds.
                (0.0..=9e15).contains(&value).then_some(value as i64)
            });
            whole
                .filter(|time| *time >= 0)
                .map(Some)
                .ok_or(Refusal::WrongClaims)
        }
        Some(_) => Err(Refusal::WrongClaims),
    }
}
