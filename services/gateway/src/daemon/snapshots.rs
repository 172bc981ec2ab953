//! Keeps the judge's snapshot new: compiled anew when the committed revision or the credentials change, and never replaced
//! by something older or by nothing.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clawgress_identity::admin::Missed;
use clawgress_identity::snapshot::KIND;
use clawgress_identity::{CredentialKey, Snapshot as Credentials, missed};
use clawgress_link::bundle::{Signed, Watched, Watcher};
use clawgress_link::enrol::Place;
use clawgress_link::hex;
use clawgress_link::mtls::{Credentials as Own, Role};
use clawgress_policy::Revision;
use tokio::sync::watch;

use super::kept::Kept;
use crate::config::Config;
use crate::judge::{Compiled, Judge, Snapshot};

const LOOK_EVERY: Duration = Duration::from_millis(200);
const REPORT_EVERY: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(1);
const ENROL_AGAIN: Duration = Duration::from_secs(1);

/// What the file looks like without reading it; a revision's file is never written twice, only replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    inode: u64,
    length: u64,
}

/// None: there is none, or, which is told, none that could be read.
pub fn read(path: &Path) -> Option<Revision> {
    // A box on which nothing was ever committed.
    if !path.exists() {
        return None;
    }
    Revision::read(path)
        .inspect_err(|error| tracing::error!("{error}; what is in force stays so"))
        .ok()
}

/// Compiles each new revision; the first is told as soon as there is one. What was in force last is so at once.
pub fn watch_revision(config: &Config) -> watch::Receiver<Option<Arc<Compiled>>> {
    let (tell, told) = watch::channel(None);
    let kept = Kept::below(&config.state);
    let path = config.revision.clone();
    tokio::spawn(async move {
        let mut known = loop {
            match kept.highest() {
                Ok(highest) => {
                    break Known {
                        highest,
                        in_force: false,
                    };
                }
                // Fail closed: an older revision might be taken.
                Err(error) => tracing::error!("{error}; no revision is taken"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        let last = kept.clone();
        let compiled = tokio::task::spawn_blocking(move || compile(&last.revision()?));
        if let Ok(Some(compiled)) = compiled.await {
            known.highest = known.highest.max(compiled.revision);
            known.in_force = true;
            tell.send_replace(Some(Arc::new(compiled)));
        }
        let mut seen = None;
        loop {
            let now = look(&path);
            if now != seen && now.is_some() {
                let path = path.clone();
                let taken = tokio::task::spawn_blocking(move || {
                    let revision = newer(&path, known)?;
                    Some((compile(&revision)?, revision))
                });
                if let Ok(Some((compiled, revision))) = taken.await {
                    known = Known {
                        highest: compiled.revision,
                        in_force: true,
                    };
                    tell.send_replace(Some(Arc::new(compiled)));
                    // First in force, then on disk: a full or slow disk must not hold a change back.
                    let kept = kept.clone();
                    let _ = tokio::task::spawn_blocking(move || kept.keep(&revision)).await;
                }
                seen = now;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    told
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// That was ever taken, by this process or one before.
    highest: u64,
    in_force: bool,
}

fn look(path: &Path) -> Option<Seen> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some(Seen {
        modified: metadata.modified().ok(),
        inode: metadata.ino(),
        length: metadata.len(),
    })
}

/// None: there is nothing to take. The number that is in force already is nothing to complain of.
fn newer(path: &Path, known: Known) -> Option<Revision> {
    let revision = read(path)?;
    if revision.number < known.highest {
        tracing::error!(
            "{} holds revision {}, and {} was in force already; only a higher one is taken",
            path.display(),
            revision.number,
            known.highest
        );
        return None;
    }
    (revision.number > known.highest || !known.in_force).then_some(revision)
}

fn compile(revision: &Revision) -> Option<Compiled> {
    Compiled::of(revision)
        .inspect_err(|error| {
            tracing::error!(
                "compiling revision {}: {error}; what is in force stays so",
                revision.number
            )
        })
        .ok()
}

/// Gives the judge a new snapshot whenever one half of it changes. Until both are there nobody is admitted.
pub async fn keep(
    config: Config,
    judge: Arc<Judge>,
    mut revision: watch::Receiver<Option<Arc<Compiled>>>,
) {
    let place = Place {
        role: Role::Gateway,
        directory: config.state.join("credentials"),
        socket: config.enrol_socket.clone(),
    };
    // Its own alone; the service manager makes what lies above.
    let made = fs::DirBuilder::new().mode(0o700).create(&place.directory);
    if let Err(error) = made
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        tracing::error!("making {}: {error}", place.directory.display());
    }
    let own = loop {
        match place.credentials().await {
            Ok(own) => break own,
            Err(error) => tracing::warn!("{error}; nobody has an identity until then"),
        }
        tokio::time::sleep(ENROL_AGAIN).await;
    };
    let Some(key) = own.stored().credential_key.as_deref().and_then(key_of) else {
        tracing::error!(
            "the identity service gave this gateway no key to check credentials by; put its role right in identity.toml"
        );
        return;
    };
    let kept = config.state.join("identity.bundle");
    let watcher = Watcher::<Credentials>::new(KIND, (Role::Identity, config.identity), kept, &own);
    let bundles = match watcher.start() {
        Ok(bundles) => bundles,
        Err(error) => {
            tracing::error!("{error}");
            return;
        }
    };
    tokio::join!(
        place.keep(&own),
        join(&judge, &key, &bundles, &mut revision),
        report_missed(&judge, &own, config.identity)
    );
}

/// An issuer that has begun to sign with a new key is asked for it now, and not at the next turn. Which token it was that
/// named the key is denied; its agent comes again.
async fn report_missed(judge: &Judge, own: &Arc<Own>, identity: SocketAddr) {
    loop {
        tokio::time::sleep(REPORT_EVERY).await;
        let issuers = judge.take_missed();
        if issuers.is_empty() {
            continue;
        }
        if let Err(error) = missed::tell(own, identity, &Missed { issuers }).await {
            tracing::warn!("{error}; the next token with an unknown key is told again");
        }
    }
}

async fn join(
    judge: &Judge,
    key: &CredentialKey,
    watched: &Watched<Credentials>,
    revision: &mut watch::Receiver<Option<Arc<Compiled>>>,
) {
    let mut credentials = watched.current.clone();
    loop {
        let halves = (
            revision.borrow_and_update().clone(),
            credentials.borrow_and_update().clone(),
        );
        if let (Some(policy), Some(bundle)) = halves {
            take(judge, policy, bundle, key.clone()).await;
        }
        tokio::select! {
            changed = revision.changed() => if changed.is_err() { return },
            changed = credentials.changed() => if changed.is_err() { return },
        }
    }
}

async fn take(
    judge: &Judge,
    policy: Arc<Compiled>,
    bundle: Arc<Signed<Credentials>>,
    key: CredentialKey,
) {
    let mark = bundle.mark;
    let compiled = tokio::task::spawn_blocking(move || {
        Snapshot::of(&policy, mark.number, &bundle.content, key)
    })
    .await;
    if let Ok(snapshot) = compiled {
        tracing::info!(
            "revision {} and credentials {mark} are in force",
            snapshot.policy.revision
        );
        judge.take(Arc::new(snapshot));
    }
}

fn key_of(text: &str) -> Option<CredentialKey> {
    let bytes = hex::decode(text)?;
    Some(CredentialKey::of(bytes.as_slice().try_into().ok()?))
}
