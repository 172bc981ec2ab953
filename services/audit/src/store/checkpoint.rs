//! Checkpoints: what the store said of itself at a moment, signed with Ed25519.
//!
//! The private key never leaves this module; who may read the directory of the key can sign anything.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use clawgress_link::{durable, hex};
use serde::{Deserialize, Serialize};

use crate::event::Micros;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Rises by one with each checkpoint of a store.
    pub number: u64,
    pub time: Micros,
    pub store: String,
    pub segment: u64,
    /// Lines of the segment before this one.
    pub lines: u64,
    /// Events in the whole store, pruned ones included.
    pub events: u64,
    /// The chain before the segment's first line, and before this one.
    pub previous: String,
    pub chain: String,
    /// The last of its segment.
    pub sealed: bool,
    /// Earliest and latest moment in the segment so far; absent while it has no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Micros>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Micros>,
    /// Highest sequence of each gateway's queue.
    pub gateways: BTreeMap<String, u64>,
    /// The public key, in hexadecimal.
    pub key: String,
}

const BEGIN: &str = "{\"checkpoint\":";
const SIGNATURE: &str = ",\"signature\":\"";
const END: &str = "\"}";
const DIGITS: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    File(#[from] durable::FileError),
    #[error(
        "{0} holds no signing key; move it away, and a new one is made (checkpoints so far then need the old public key)"
    )]
    Broken(std::path::PathBuf),
    #[error("making a signing key: the system gives no random numbers")]
    Random,
}

pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: String,
}

impl SigningKey {
    /// Reads the key, or makes one where there is none.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let pkcs8 = if let Some(bytes) = durable::read(path, 4096)? {
            bytes
        } else {
            let made = Ed25519KeyPair::generate().map_err(|_| KeyError::Random)?;
            let document = made.to_pkcs8().map_err(|_| KeyError::Random)?;
            durable::replace(path, document.as_ref())?;
            document.as_ref().to_vec()
        };
        let pair =
            Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| KeyError::Broken(path.to_owned()))?;
        let public = hex::encode(pair.public_key().as_ref());
        Ok(Self { pair, public })
    }

    pub fn public(&self) -> &str {
        &self.public
    }

    /// The JSON of the line.
    pub(crate) fn sign(&self, checkpoint: &Checkpoint) -> Result<String, serde_json::Error> {
        let text = serde_json::to_string(checkpoint)?;
        let signature = hex::encode(self.pair.sign(text.as_bytes()).as_ref());
        Ok(format!("{BEGIN}{text}{SIGNATURE}{signature}{END}"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untrue {
    #[error("it has not the form of a checkpoint")]
    Form,
    #[error("it is signed with another key than was expected")]
    Key,
    #[error("its signature is false")]
    Signature,
}

/// The checkpoint of a line, if its signature is good; `key` is the public key that is expected, if one is.
pub fn read(json: &[u8], key: Option<&str>) -> Result<Checkpoint, Untrue> {
    let text = std::str::from_utf8(json).map_err(|_| Untrue::Form)?;
    let text = text
        .strip_prefix(BEGIN)
        .and_then(|text| text.strip_suffix(END))
        .ok_or(Untrue::Form)?;
    let at = text
        .len()
        .checked_sub(DIGITS + SIGNATURE.len())
        .ok_or(Untrue::Form)?;
    let (signed, signature) = text.split_at_checked(at).ok_or(Untrue::Form)?;
    let signature = signature.strip_prefix(SIGNATURE).ok_or(Untrue::Form)?;
    let checkpoint: Checkpoint = serde_json::from_str(signed).map_err(|_| Untrue::Form)?;
    if key.is_some_and(|key| key != checkpoint.key) {
        return Err(Untrue::Key);
    }
    let public = hex::decode(&checkpoint.key).ok_or(Untrue::Form)?;
    let signature = hex::decode(signature).ok_or(Untrue::Form)?;
    UnparsedPublicKey::new(&ED25519, public)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| Untrue::Signature)?;
    Ok(checkpoint)
}
