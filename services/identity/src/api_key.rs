//! API keys: `cg_<8 letters>_<256 bits in base64url>`, told once, kept as a keyed hash.
//!
//! The prefix is for recognition and is no secret; the hash is over the whole text and compared in constant time.

use aws_lc_rs::{constant_time, hmac, rand};

use crate::text;

pub const PREFIX: usize = 8;
const SECRET_BYTES: usize = 32;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// `cg_`, the prefix, `_`, and 256 bits at six a letter.
const LENGTH: usize = 3 + PREFIX + 1 + 43;

pub type Prefix = [u8; PREFIX];

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the random number generator failed; nothing was made")]
pub struct NoRandomness;

/// A key that was just made; its text is told once.
pub struct Fresh {
    pub prefix: String,
    pub text: String,
}

impl Fresh {
    pub fn make() -> Result<Self, NoRandomness> {
        let prefix: String = random::<PREFIX>()?
            .iter()
            .filter_map(|byte| ALPHABET.get(usize::from(byte & 31)))
            .map(|letter| char::from(*letter))
            .collect();
        let text = format!(
            "cg_{prefix}_{}",
            text::base64url(&random::<SECRET_BYTES>()?)
        );
        Ok(Self { prefix, text })
    }
}

/// Whether a secret means to be an API key, so that it is judged as one.
pub(crate) fn claims_to_be(text: &str) -> bool {
    text.starts_with("cg_")
}

/// The prefix in a key's text, if the text has exactly the form of a key.
pub(crate) fn prefix_of(text: &str) -> Option<Prefix> {
    if text.len() != LENGTH {
        return None;
    }
    let (prefix, secret) = text.strip_prefix("cg_")?.split_at_checked(PREFIX)?;
    let secret = secret.strip_prefix('_')?;
    // Any other spelling of the same bits is another text and hashes differently; this only says no sooner.
    (text::from_base64url(secret)?.len() == SECRET_BYTES)
        .then(|| prefix_from(prefix))
        .flatten()
}

pub(crate) fn prefix_from(text: &str) -> Option<Prefix> {
    text.bytes()
        .all(|byte| ALPHABET.contains(&byte))
        .then(|| text.as_bytes().try_into().ok())
        .flatten()
}

pub type Hash = [u8; 32];

/// The server's half of every hash: without it a stolen table says nothing.
#[derive(Clone)]
pub struct CredentialKey(hmac::Key);

impl CredentialKey {
    pub const BYTES: usize = 32;

    pub fn of(bytes: &[u8; Self::BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    pub fn hash(&self, text: &str) -> Hash {
        let mut hash = [0; 32];
        // SHA-256 has 32 bytes; were it ever otherwise, nothing would match.
        if let Some(tag) = hmac::sign(&self.0, text.as_bytes()).as_ref().first_chunk() {
            hash = *tag;
        }
        hash
    }

    /// In constant time.
    pub(crate) fn matches(&self, text: &str, hash: &Hash) -> bool {
        constant_time::verify_slices_are_equal(&self.hash(text), hash).is_ok()
    }
}

impl std::fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CredentialKey(…)")
    }
}

pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_recognised_by_its_prefix_and_by_nothing_less_than_its_form() {
        let key = Fresh::make().unwrap();
        assert_eq!(key.text.len(), LENGTH);
        assert_eq!(prefix_of(&key.text).unwrap(), key.prefix.as_bytes());
        assert_ne!(key.text, Fresh::make().unwrap().text);
        let mut long = key.text.clone();
        long.push('A');
        for wrong in [
            &key.text[..LENGTH - 1],
            &long,
            &key.text.to_uppercase(),
            &key.text.replacen("cg_", "cg-", 1),
            "",
            "cg__",
            &"cg_é".repeat(11),
        ] {
            assert_eq!(prefix_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hash_says_nothing_without_the_servers_half() {
        let key = Fresh::make().unwrap();
        let (ours, theirs) = (CredentialKey::of(&[1; 32]), CredentialKey::of(&[2; 32]));
        let hash = ours.hash(&key.text);
        assert!(ours.matches(&key.text, &hash));
        assert!(!theirs.matches(&key.text, &hash));
        assert!(!ours.matches(&key.text[1..], &hash));
    }
}
