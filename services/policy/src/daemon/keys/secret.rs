//! What a key looks like, and what is kept of it: `cg_<8 letters>_<256 bits in base 32>`, and a keyed hash.
//!
//! The secret leaves this module once, as text for the console; nothing here writes it anywhere.

use aws_lc_rs::{hmac, rand};

use clawgress_link::hex;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const ID_BYTES: usize = 5;
const SECRET_BYTES: usize = 32;
/// Longer texts are no keys of ours, and not worth hashing.
const LONGEST: usize = 128;

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the random number generator failed; nothing was made")]
pub(crate) struct NoRandomness;

/// A key that was just made.
pub(crate) struct Fresh {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl Fresh {
    pub(crate) fn make() -> Result<Self, NoRandomness> {
        let id = base32(&random::<ID_BYTES>()?);
        let text = format!("cg_{id}_{}", base32(&random::<SECRET_BYTES>()?));
        Ok(Self { id, text })
    }
}

/// The id in a key's text, if the text has the form of a key.
pub(crate) fn id_of(text: &str) -> Option<&str> {
    if text.len() > LONGEST {
        return None;
    }
    let (id, secret) = text.strip_prefix("cg_")?.split_once('_')?;
    let letters = |part: &str| part.bytes().all(|byte| ALPHABET.contains(&byte));
    (id.len() == base32_length(ID_BYTES)
        && secret.len() == base32_length(SECRET_BYTES)
        && letters(id)
        && letters(secret))
    .then_some(id)
}

/// The server's half: without it a stolen table of hashes says nothing.
pub(crate) struct Pepper(hmac::Key);

impl Pepper {
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn of(bytes: &[u8; Self::BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    pub(crate) fn hash(&self, text: &str) -> String {
        hex::encode(hmac::sign(&self.0, text.as_bytes()).as_ref())
    }

    /// In constant time; a hash that is no hash matches nothing.
    pub(crate) fn matches(&self, text: &str, hash: &str) -> bool {
        let Some(hash) = from_hex(hash) else {
            return false;
        };
        hmac::verify(&self.0, text.as_bytes(), &hash).is_ok()
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok())
        .collect()
}

const fn base32_length(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(base32_length(bytes.len()));
    let (mut held, mut bits) = (0_u32, 0_u32);
    let mut push = |value: u32| text.push(char::from(ALPHABET[(value & 31) as usize]));
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xffff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(held >> bits);
        }
    }
    if bits > 0 {
        push(held << (5 - bits));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_32_is_that_of_the_standard() {
        for (bytes, text) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_key_is_known_by_its_hash_alone() {
        let pepper = Pepper::of(&[7; Pepper::BYTES]);
        let key = Fresh::make().unwrap();
        assert_eq!(key.text.len(), "cg_".len() + 8 + 1 + 52);
        assert_eq!(id_of(&key.text), Some(key.id.as_str()));
        let hash = pepper.hash(&key.text);
        assert!(pepper.matches(&key.text, &hash));
        assert!(!pepper.matches(&Fresh::make().unwrap().text, &hash));
        assert!(!Pepper::of(&[8; Pepper::BYTES]).matches(&key.text, &hash));
        assert!(!pepper.matches(&key.text, "zz") && !pepper.matches(&key.text, "abc"));
    }

    #[test]
    fn what_is_no_key_has_no_id() {
        let key = Fresh::make().unwrap().text;
        for wrong in [
            "",
            "cg_",
            "cg__",
            &key[1..],
            &key[..key.len() - 1],
            &key.to_uppercase(),
            &format!("{key}a"),
            &"cg_".repeat(1000),
            "cg_äöü_",
        ] {
            assert_eq!(id_of(wrong), None, "{wrong}");
        }
    }
}
