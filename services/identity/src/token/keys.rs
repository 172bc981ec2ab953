//! The keys of an issuer: a JWK set, read once, each key tied to the one algorithm that it is for.
//!
//! A key never verifies by another algorithm, whatever a token says; secrets have no place in here.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Map, Value};

use super::strict;
use crate::text;

/// Far above any set of keys in use.
const LARGEST: usize = 256 * 1024;
const MOST: usize = 64;
const LONGEST_ID: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

impl Algorithm {
    pub const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// As in `alg`; case matters there.
    pub fn word(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::EdDsa => &ED25519,
            Self::Es256 => &ECDSA_P256_SHA256_FIXED,
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

/// A public key that is on its curve, or long enough.
#[derive(Clone)]
pub struct PublicKey {
    pub algorithm: Algorithm,
    pub id: Option<String>,
    /// SHA-256 of the key itself: which one it is, whatever it is called.
    pub digest: [u8; 32],
    parsed: ParsedPublicKey,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {:?})", self.algorithm.word(), self.id)
    }
}

impl PublicKey {
    /// From the bytes that the algorithm calls a public key: 32 bytes, an uncompressed point, a PKCS #1 structure.
    pub fn of_bytes(algorithm: Algorithm, id: Option<String>, bytes: &[u8]) -> Option<Self> {
        Some(Self {
            algorithm,
            id,
            digest: digest(&SHA256, bytes).as_ref().try_into().ok()?,
            parsed: UnparsedPublicKey::new(algorithm.verification(), bytes)
                .parse()
                .ok()?,
        })
    }

    /// An RSA key by its two numbers, big-endian without leading zeros.
    pub fn of_rsa(id: Option<String>, modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        if modulus.first().is_none_or(|byte| *byte == 0) {
            return Err("its modulus is empty or begins with zero".to_owned());
        }
        let bits = modulus.len() * 8
            - modulus
                .first()
                .map_or(0, |byte| byte.leading_zeros() as usize);
        if !(2048..=8192).contains(&bits) {
            return Err(format!(
                "it is an RSA key of {bits} bits; use one of 2048 to 8192"
            ));
        }
        let small = exponent
            .iter()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        if exponent.len() > 4 || exponent.first() == Some(&0) || small < 65_537 || small % 2 == 0 {
            return Err(
                "its exponent is not 65537 or a larger odd number of up to four bytes".to_owned(),
            );
        }
        let der = sequence(&[integer(modulus), integer(exponent)].concat());
        Self::of_bytes(Algorithm::Rs256, id, &der).ok_or_else(|| "it is no RSA key".to_owned())
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed.verify_sig(message, signature).is_ok()
    }
}

#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

impl KeySet {
    /// Reads a JWK set. Keys for other uses and of other kinds are passed over; a secret, a weak key, two keys of one
    /// id or no usable key at all is an error.
    pub fn of_jwks(text: &str) -> Result<Self, String> {
        if text.len() > LARGEST {
            return Err(format!("it has more than {LARGEST} bytes"));
        }
        let set = strict::object(text.as_bytes())
            .ok_or("it is no JSON object, or a member stands twice in it")?;
        let list = set
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("it has no list `keys`; a set of keys looks like {\"keys\":[…]}")?;
        if list.len() > MOST {
            return Err(format!("it has more than {MOST} keys; leave those in use"));
        }
        let mut keys = Vec::new();
        for (place, value) in list.iter().enumerate() {
            let jwk = value
                .as_object()
                .ok_or(format!("keys[{place}] is no object"))?;
            if let Some(key) = key_of(jwk).map_err(|why| format!("keys[{place}]: {why}"))? {
                keys.push(key);
            }
        }
        Self::of_keys(keys)
    }

    pub fn of_keys(keys: Vec<PublicKey>) -> Result<Self, String> {
        if keys.is_empty() {
            return Err("it has no key for EdDSA, ES256 or RS256".to_owned());
        }
        for (place, key) in keys.iter().enumerate() {
            let same = |other: &PublicKey| other.id.is_some() && other.id == key.id;
            if keys.iter().skip(place + 1).any(same) {
                return Err(format!(
                    "two keys have the id {:?}",
                    key.id.as_deref().unwrap_or("")
                ));
            }
        }
        Ok(Self { keys })
    }

    /// The key that a token names; without a name, the only one of that algorithm.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&PublicKey> {
        let mut fitting = self.keys.iter().filter(|key| {
            key.algorithm == algorithm && id.is_none_or(|id| key.id.as_deref() == Some(id))
        });
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    pub(crate) fn has(&self, digest: &[u8; 32]) -> bool {
        self.keys.iter().any(|key| key.digest == *digest)
    }
}

/// None: a key that is not for us.
fn key_of(jwk: &Map<String, Value>) -> Result<Option<PublicKey>, String> {
    let word = |name: &str| jwk.get(name).and_then(Value::as_str);
    if jwk.contains_key("d") || jwk.contains_key("k") || word("kty") == Some("oct") {
        return Err(
            "it holds a secret; leave public keys alone in here, and replace this one".to_owned(),
        );
    }
    let id = match jwk.get("kid") {
        None => None,
        Some(Value::String(id)) if id.len() <= LONGEST_ID => Some(id.clone()),
        Some(_) => return Err(format!("its kid is no text of up to {LONGEST_ID} bytes")),
    };
    let algorithm = match (word("kty"), word("crv")) {
        (Some("OKP"), Some("Ed25519")) => Algorithm::EdDsa,
        (Some("EC"), Some("P-256")) => Algorithm::Es256,
        (Some("RSA"), _) => Algorithm::Rs256,
        (Some(_), _) => return Ok(None),
        (None, _) => return Err("it has no kty".to_owned()),
    };
    let verifies = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(list)) => list.iter().any(|word| word == "verify"),
        Some(_) => return Err("its key_ops is no list".to_owned()),
    };
    if jwk.get("use").is_some_and(|word| word != "sig")
        || jwk.get("alg").is_some_and(|word| word != algorithm.word())
        || !verifies
    {
        return Ok(None);
    }
    let number = |name: &str| {
        word(name)
            .and_then(text::from_base64url)
            .ok_or_else(|| format!("its {name} is no base64url"))
    };
    let key = match algorithm {
        Algorithm::EdDsa => PublicKey::of_bytes(algorithm, id, &number("x")?),
        Algorithm::Es256 => {
            let (x, y) = (number("x")?, number("y")?);
            if x.len() != 32 || y.len() != 32 {
                return Err("its x and y are not 32 bytes each".to_owned());
            }
            PublicKey::of_bytes(algorithm, id, &[&[4], x.as_slice(), &y].concat())
        }
        Algorithm::Rs256 => return PublicKey::of_rsa(id, &number("n")?, &number("e")?).map(Some),
    };
    key.map(Some)
        .ok_or_else(|| format!("it is no key for {}", algorithm.word()))
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    // A leading bit that is set would make it negative.
    let sign: &[u8] = if bytes.first().is_some_and(|byte| *byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    tagged(2, &[sign, bytes].concat())
}

fn sequence(content: &[u8]) -> Vec<u8> {
    tagged(0x30, content)
}

fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant = length
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(length.len() - 1);
    let significant = length.get(significant..).unwrap_or_default();
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | significant.len() as u8);
    }
    der.extend_from_slice(significant);
    der.extend_from_slice(content);
    der
}
