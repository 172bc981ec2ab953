//! The files that a revision names: JWK sets, authorities, revocation lists. Read again whenever they change; what can't
//! be read stays as it was last good, and is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use clawgress_config::access::{Access, KeySource};
use clawgress_identity::certificate::Authorities;
use clawgress_identity::snapshot::Snapshot;
use clawgress_identity::token::KeySet;
use clawgress_link::durable;

const LARGEST: u64 = 16 * 1024 * 1024;

/// What of a file changes when it is replaced or written to.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

#[derive(Debug, Default)]
pub(crate) struct Trust {
    key_sets: BTreeMap<String, String>,
    client_ca: Option<String>,
    client_crl: Option<String>,
    faults: Vec<String>,
    seen: BTreeMap<PathBuf, Stamp>,
}

impl Trust {
    /// Whether a file that was read is another one now.
    pub(crate) fn is_stale(&self) -> bool {
        self.seen.iter().any(|(path, seen)| stamp(path) != *seen)
    }

    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Reads everything that the revision names. What is no longer named is no longer trusted.
    pub(crate) fn read(&mut self, access: &Access, below: &Path) {
        let mut next = Self::default();
        for (name, issuer) in &access.issuers {
            match &issuer.keys {
                // Those of a URL are fetched: see `fetch`.
                KeySource::Own | KeySource::Url(_) => {}
                KeySource::File(file) => {
                    let read = next.text(below, file).and_then(|text| {
                        KeySet::of_jwks(&text).map_err(|why| format!("{file}: {why}"))?;
                        Ok(text)
                    });
                    let kept = self.key_sets.remove(name);
                    if let Some(text) = next.or_kept(read, kept) {
                        next.key_sets.insert(name.clone(), text);
                    }
                }
            }
        }
        let pair = access.client_ca.as_ref().map(|ca| {
            let ca = next.text(below, ca)?;
            let crl = match &access.client_crl {
                Some(crl) => Some(next.text(below, crl)?),
                None => None,
            };
            Authorities::of_pem(&ca, crl.as_deref())?;
            Ok((ca, crl))
        });
        if let Some(read) = pair {
            // Both or neither: an authority never goes without the list that it was configured with.
            let kept = self
                .client_ca
                .take()
                .filter(|_| self.client_crl.is_some() == access.client_crl.is_some())
                .map(|ca| (ca, self.client_crl.take()));
            if let Some((ca, crl)) = next.or_kept(read, kept) {
                (next.client_ca, next.client_crl) = (Some(ca), crl);
            }
        }
        for fault in &next.faults {
            if !self.faults.contains(fault) {
                tracing::error!("{fault}");
            }
        }
        *self = next;
    }

    /// The text of another file that the revision names.
    pub(crate) fn file(&mut self, below: &Path, file: &str) -> Result<String, String> {
        self.text(below, file)
    }

    pub(crate) fn add_to(&self, snapshot: &mut Snapshot) {
        snapshot.key_sets.clone_from(&self.key_sets);
        snapshot.client_ca.clone_from(&self.client_ca);
        snapshot.client_crl.clone_from(&self.client_crl);
    }

    fn or_kept<T>(&mut self, read: Result<T, String>, kept: Option<T>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(why) => {
                let what = if kept.is_some() {
                    "the last good one stays in force"
                } else {
                    "whoever depends on it is denied"
                };
                self.faults.push(format!("{why}; {what}"));
                kept
            }
        }
    }

    fn text(&mut self, below: &Path, file: &str) -> Result<String, String> {
        let path = inside(below, file)
            .ok_or_else(|| format!("{file} is not below {}; put it there", below.display()))?;
        // The stamp first: a file that changes while it is read is read once more.
        self.seen.insert(path.clone(), stamp(&path));
        let bytes = durable::read(&path, LARGEST)
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("{} is not there", path.display()))?;
        String::from_utf8(bytes).map_err(|_| format!("{} is no text", path.display()))
    }
}

fn inside(below: &Path, file: &str) -> Option<PathBuf> {
    let file = Path::new(file);
    let relative = file.strip_prefix(below).unwrap_or(file);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && relative.components().next().is_some()).then(|| below.join(relative))
}

fn stamp(path: &Path) -> Stamp {
    let about = fs::metadata(path).ok()?;
    Some((
        about.dev(),
        about.ino(),
        about.mtime(),
        about.mtime_nsec(),
        about.len(),
    ))
}
