//! Bundles: what one service publishes and others act on, signed, numbered, kept.
//!
//! ```text
//! {"format":1,"kind":"identity","epoch":1,"number":7,"created":1764000000,"signature":"<128 hex>","content":{…}}
//! ```
//!
//! The Ed25519 signature is over `clawgress bundle 1`, kind, epoch, number and created, each ended by a line feed, and
//! then exactly the bytes of `content`. Numbers only rise within an epoch, epochs only rise; nobody takes a step back.

mod publish;
mod watch;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::durable::FileError;
use crate::hex;

pub use publish::Publisher;
pub use watch::{Watched, Watcher};

const FORMAT: u32 = 1;
/// 100,000 rules and as many keys fit several times.
pub const LARGEST: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{of}: {why}")]
    Content { of: String, why: String },
    #[error("{of} has number {found} and {known} is known; only a higher one is taken")]
    Old {
        of: String,
        found: Mark,
        known: Mark,
    },
}

/// Its place in the order of all bundles of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    pub epoch: u64,
    pub number: u64,
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// A bundle whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    pub mark: Mark,
    /// Seconds since 1970.
    pub created: i64,
    pub content: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'e> {
    format: u32,
    kind: String,
    epoch: u64,
    number: u64,
    created: i64,
    signature: String,
    #[serde(borrow)]
    content: &'e RawValue,
}

fn message(kind: &str, mark: Mark, created: i64, content: &str) -> Vec<u8> {
    let Mark { epoch, number } = mark;
    let head = format!("clawgress bundle {FORMAT}\n{kind}\n{epoch}\n{number}\n{created}\n");
    [head.as_bytes(), content.as_bytes()].concat()
}

fn seal(
    key: &Ed25519KeyPair,
    kind: &str,
    mark: Mark,
    created: i64,
    content: &RawValue,
) -> Result<Vec<u8>, serde_json::Error> {
    let signature = key.sign(&message(kind, mark, created, content.get()));
    serde_json::to_vec(&Envelope {
        format: FORMAT,
        kind: kind.to_owned(),
        epoch: mark.epoch,
        number: mark.number,
        created,
        signature: hex::encode(signature.as_ref()),
        content,
    })
}

/// Opens a bundle that one of these keys (in hex) has signed. The content is looked at only after that.
pub fn open<T: DeserializeOwned>(
    of: &str,
    kind: &str,
    keys: &[String],
    bytes: &[u8],
) -> Result<Signed<T>, BundleError> {
    let bad = |why: String| BundleError::Content {
        of: of.to_owned(),
        why,
    };
    let envelope: Envelope<'_> =
        serde_json::from_slice(bytes).map_err(|error| bad(format!("it is no bundle: {error}")))?;
    if envelope.format != FORMAT || envelope.kind != kind {
        return Err(bad(format!(
            "it is of kind {:?}, not {kind}",
            envelope.kind
        )));
    }
    let mark = Mark {
        epoch: envelope.epoch,
        number: envelope.number,
    };
    let message = message(kind, mark, envelope.created, envelope.content.get());
    let signature = hex::decode(&envelope.signature)
        .ok_or_else(|| bad("its signature is no hex".to_owned()))?;
    let signed = keys.iter().filter_map(|key| hex::decode(key)).any(|key| {
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&message, &signature)
            .is_ok()
    });
    if !signed {
        return Err(bad(
            "nobody whom this service trusts has signed it".to_owned()
        ));
    }
    let content = serde_json::from_str(envelope.content.get())
        .map_err(|error| bad(format!("its content is of another version: {error}")))?;
    Ok(Signed {
        mark,
        created: envelope.created,
        content,
    })
}

fn public_key(key: &Ed25519KeyPair) -> String {
    hex::encode(key.public_key().as_ref())
}
