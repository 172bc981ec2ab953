//! The publishing side: signs each new content under the next number, keeps it, and hands it to whoever asks.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode, Uri};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;

use super::{BundleError, LARGEST, Mark, Signed, open, public_key, seal};
use crate::durable;

/// How long an asker waits for something newer before it asks again.
const WAIT: Duration = Duration::from_secs(20);

pub struct Publisher {
    kind: &'static str,
    path: PathBuf,
    key: Ed25519KeyPair,
    /// What was published last.
    last: Mutex<Option<(Mark, Box<RawValue>)>>,
    current: watch::Sender<Option<(Mark, Bytes)>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Publisher({})", self.kind)
    }
}

impl Publisher {
    /// Opens the key and the last bundle of this directory; a first start makes the key. `kind` is a word of letters.
    pub fn open(directory: &Path, kind: &'static str) -> Result<Self, BundleError> {
        let path = directory.join(format!("{kind}.bundle"));
        let key_path = directory.join("bundle.key");
        let bad = |path: &Path, why: &str| BundleError::Content {
            of: path.display().to_string(),
            why: why.to_owned(),
        };
        let kept = durable::read(&path, LARGEST)?;
        let key = match durable::read(&key_path, 1024)? {
            Some(pkcs8) => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
                .map_err(|_| bad(&key_path, "it is no Ed25519 key; restore it from a backup"))?,
            // Everybody who knows the old key would refuse what a new one signs.
            None if kept.is_some() => {
                return Err(bad(
                    &key_path,
                    "it is missing beside bundles that it has signed; restore it from a backup",
                ));
            }
            None => {
                let failed = |_| bad(&key_path, "the random number generator failed");
                let key = Ed25519KeyPair::generate().map_err(failed)?;
                durable::replace(&key_path, key.to_pkcs8v1().map_err(failed)?.as_ref())?;
                key
            }
        };
        let last = match &kept {
            None => None,
            Some(bytes) => {
                let of = path.display().to_string();
                let signed: Signed<Box<RawValue>> = open(&of, kind, &[public_key(&key)], bytes)?;
                Some((signed.mark, signed.content))
            }
        };
        let offered = last
            .as_ref()
            .zip(kept)
            .map(|((mark, _), bytes)| (*mark, bytes.into()));
        Ok(Self {
            kind,
            path,
            key,
            last: Mutex::new(last),
            current: watch::Sender::new(offered),
        })
    }

    /// By what its bundles are verified, in hex.
    pub fn public_key(&self) -> String {
        public_key(&self.key)
    }

    pub fn mark(&self) -> Option<Mark> {
        self.current.borrow().as_ref().map(|(mark, _)| *mark)
    }

    /// Signs, keeps and offers this content; what was published last is not published twice.
    pub fn publish<T: Serialize>(&self, content: &T, created: i64) -> Result<Mark, BundleError> {
        self.step(content, created, |last| Mark {
            number: last.number.saturating_add(1),
            ..last
        })
    }

    /// After a restore from a backup: higher than anything that was published before, whatever its number was.
    pub fn publish_in_new_epoch<T: Serialize>(
        &self,
        content: &T,
        created: i64,
    ) -> Result<Mark, BundleError> {
        self.step(content, created, |last| Mark {
            epoch: last.epoch.saturating_add(1),
            number: 1,
        })
    }

    fn step<T: Serialize>(
        &self,
        content: &T,
        created: i64,
        next: impl Fn(Mark) -> Mark,
    ) -> Result<Mark, BundleError> {
        let unwritable = |error: serde_json::Error| BundleError::Content {
            of: format!("a bundle of kind {}", self.kind),
            why: error.to_string(),
        };
        let content = to_raw_value(content).map_err(unwritable)?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let known = last.as_ref().map(|(mark, _)| *mark);
        let mark = next(known.unwrap_or(Mark {
            epoch: 1,
            number: 0,
        }));
        let same_epoch = known.is_some_and(|known| known.epoch == mark.epoch);
        if let Some((known, old)) = last.as_ref()
            && same_epoch
            && old.get() == content.get()
        {
            return Ok(*known);
        }
        let bytes = seal(&self.key, self.kind, mark, created, &content).map_err(unwritable)?;
        // On disk before anybody has seen it, so that no number is ever given twice.
        durable::replace(&self.path, &bytes)?;
        *last = Some((mark, content));
        self.current.send_replace(Some((mark, bytes.into())));
        Ok(mark)
    }

    /// Answers `GET /bundles/<kind>?epoch=E&number=N` with the bundle as soon as there is a newer one; 204 if there was
    /// none for a while. None: something else is asked for.
    pub async fn answer(&self, uri: &Uri) -> Option<Response<Full<Bytes>>> {
        if uri.path().strip_prefix("/bundles/") != Some(self.kind) {
            return None;
        }
        let known = mark_of(uri.query().unwrap_or_default());
        let mut current = self.current.subscribe();
        let newer = |offered: &Option<(Mark, Bytes)>| {
            offered
                .as_ref()
                .is_some_and(|(mark, _)| known.is_none_or(|known| *mark > known))
        };
        let waited = tokio::time::timeout(WAIT, current.wait_for(newer)).await;
        let body = waited
            .ok()
            .and_then(Result::ok)
            .and_then(|offered| offered.clone());
        let mut response = Response::new(Full::default());
        match body {
            Some((_, bytes)) => *response.body_mut() = Full::new(bytes),
            None => *response.status_mut() = StatusCode::NO_CONTENT,
        }
        Some(response)
    }
}

fn mark_of(query: &str) -> Option<Mark> {
    let number = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    Some(Mark {
        epoch: number("epoch")?,
        number: number("number")?,
    })
}
