//! The one way by which a policy becomes what is enforced: number, file, the enforcer's word, policy.json, boot mark.
//!
//! One at a time. Whatever fails before the enforcer has said yes leaves everything as it was before.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clawgress_link::{
    admin::{Enforced, PolicyReply},
    control::{Report, Status},
};
use clawgress_policy::{Index, IndexError, Revision, RevisionError};
use tokio::sync::Mutex;

use crate::daemon::{
    assemble, clock,
    configuration::{Configuration, ConfigurationError, Taken},
    enforcer::{AskError, Enforcer},
    files::{self, FileError, Staged},
    policy_text::{self, Read},
    store::{Store, StoreError},
};

/// For the enforcer and clawgress-dns, through the directory's group.
const REVISION_MODE: u32 = 0o640;
/// What is in there is no secret on this box, and the operator may want to read it.
const POLICY_MODE: u32 = 0o644;

#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("another policy is being applied at this moment; try again when it is done")]
    Busy,
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    #[error(
        "the configuration does not enable the service, so this box stays sealed; enable it first: set service clawgress enable"
    )]
    NotEnabled,
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Revision(#[from] RevisionError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Enforcer(#[from] AskError),
    /// Checked and found wanting, or tried and taken back.
    #[error("{}", refusal(.0))]
    Refused(Report),
    #[error("the work on it was stopped: {0}")]
    Stopped(#[from] tokio::task::JoinError),
    #[error("writing the policy as policy.json: {0}")]
    Unwritable(String),
    #[error("there is no policy yet; send one, or set service clawgress in the configuration")]
    NoPolicy,
}

fn refusal(report: &Report) -> String {
    let faults: Vec<String> = report
        .stages
        .iter()
        .filter(|stage| !stage.ok)
        .map(|stage| format!("{}: {}", stage.name, stage.detail))
        .collect();
    let what = if faults.is_empty() {
        "the enforcer did not apply it and names no stage".to_owned()
    } else {
        faults.join("; ")
    };
    format!("{what}; nothing was changed")
}

/// Where the parts of a revision come from and go to.
pub(crate) struct Publisher {
    pub(crate) store: Store,
    pub(crate) enforcer: Enforcer,
    pub(crate) configuration: Configuration,
    pub(crate) policy_file: PathBuf,
    one_at_a_time: Mutex<()>,
    /// Of the revision in force: its number, and whether it wants the gateway. Kept, for to read it takes long.
    wants_gateway: std::sync::Mutex<Option<(u64, bool)>>,
}

impl Publisher {
    pub(crate) fn new(
        store: Store,
        enforcer: Enforcer,
        configuration: Configuration,
        policy_file: PathBuf,
    ) -> Self {
        Self {
            store,
            enforcer,
            configuration,
            policy_file,
            one_at_a_time: Mutex::new(()),
            wants_gateway: std::sync::Mutex::default(),
        }
    }

    /// Everything that applying it would check, and nothing of what it would change.
    pub(crate) async fn check(self: &Arc<Self>, read: Read) -> Result<PolicyReply, PublishError> {
        let _turn = self.turn()?;
        let publisher = Arc::clone(self);
        let (file, mut warnings, enabled) = blocking(move || {
            let taken = publisher.configuration.read()?;
            let mut revision = assemble::revision(
                publisher.store.next(0)?,
                clock::now(),
                &taken.document,
                read.policy,
            );
            let enabled = revision.enabled;
            // A box that is not enabled can still say whether it could enforce this.
            revision.enabled = true;
            let warnings = [read.warnings, assemble::warnings(&revision)].concat();
            let file = publisher.store.candidate();
            Index::of(&revision)?;
            write(&revision, &file)?;
            Ok((file, warnings, enabled))
        })
        .await?;
        let report = self.enforcer.check(&file).await;
        files::remove(&file)?;
        let report = report?;
        if !report.ok {
            return Err(PublishError::Refused(report));
        }
        if !enabled {
            warnings.insert(0, PublishError::NotEnabled.to_string());
        }
        Ok(PolicyReply {
            ok: true,
            applied: false,
            revision: None,
            report,
            warnings,
            note: "only checked, nothing was changed; \"apply\": true applies it".to_owned(),
        })
    }

    /// Applies it with what else the configuration says at this moment.
    pub(crate) async fn apply(self: &Arc<Self>, read: Read) -> Result<PolicyReply, PublishError> {
        let _turn = self.turn()?;
        let reading = Arc::clone(self);
        let taken = blocking(move || Ok(reading.configuration.read()?)).await?;
        if !assemble::enabled(&taken.document) {
            return Err(PublishError::NotEnabled);
        }
        self.publish(taken, read).await
    }

    /// What a boot does: the configuration has said something new, also where that is "sealed".
    pub(crate) async fn apply_configuration(
        self: &Arc<Self>,
        taken: Taken,
        read: Read,
    ) -> Result<PolicyReply, PublishError> {
        let _turn = self.one_at_a_time.lock().await;
        self.publish(taken, read).await
    }

    async fn publish(
        self: &Arc<Self>,
        taken: Taken,
        read: Read,
    ) -> Result<PolicyReply, PublishError> {
        let floor = self.settle().await?;
        let publisher = Arc::clone(self);
        let (revision, whole, warnings) = blocking(move || {
            let number = publisher.store.reserve(floor)?;
            let revision = assemble::revision(number, clock::now(), &taken.document, read.policy);
            let warnings = [read.warnings, assemble::warnings(&revision)].concat();
            // Asked for by number, and so not before it is in force.
            publisher.keep(&revision);
            // On disk before anybody is asked to enforce it. The enforcer compiles it before it changes anything.
            if let Err(error) = write(&revision, &publisher.store.file(number)) {
                // What was never asked for is not to be found later.
                publisher.store.remove(number)?;
                return Err(error);
            }
            Ok((number, revision, warnings))
        })
        .await?;
        let file = self.store.file(revision);
        // A boot begins with the revision; its rendering for people takes a while, and waits for nobody.
        let staging = {
            let policy_file = self.policy_file.clone();
            blocking(move || {
                let text = text_of(&whole)?;
                Ok(Staged::write(&policy_file, text.as_bytes(), POLICY_MODE)?)
            })
        };
        let (applied, staged) = tokio::join!(self.enforcer.apply(&file), staging);
        let outcome = match applied {
            Ok(report) if report.ok && report.applied => Ok(report),
            Ok(report) => Err(PublishError::Refused(report)),
            // It may have done the work and not lived, or not had the time, to say so.
            Err(error) => match self.enforcer.status().await {
                Ok(status) if status.revision == Some(revision) => Ok(silent_success(revision)),
                _ => Err(error.into()),
            },
        };
        let report = match outcome {
            Ok(report) => report,
            Err(error) => {
                // A file that stays behind is never begun with: the boot mark points elsewhere.
                if let Err(left) = self.store.remove(revision) {
                    tracing::warn!("{left}");
                }
                return Err(error);
            }
        };
        let publisher = Arc::clone(self);
        let kept = blocking(move || {
            publisher.store.mark_boot(revision)?;
            staged?.place()?;
            Ok(publisher.store.prune()?)
        })
        .await;
        let mut warnings = warnings;
        if let Err(error) = kept {
            tracing::error!("revision {revision} is enforced, but was not kept whole: {error}");
            warnings.insert(
                0,
                format!("it is enforced, but may be lost at the next boot: {error}"),
            );
        }
        Ok(PolicyReply {
            ok: true,
            applied: true,
            revision: Some(revision),
            report,
            warnings,
            note: format!("revision {revision} is enforced"),
        })
    }

    /// Makes good what a crash between the enforcer's word and the boot mark left: what is enforced is what a boot
    /// begins with. Returns the highest number that is in use.
    pub(crate) async fn settle(self: &Arc<Self>) -> Result<u64, PublishError> {
        let Ok(Status {
            revision: Some(enforced),
            ..
        }) = self.enforcer.status().await
        else {
            return Ok(0);
        };
        let publisher = Arc::clone(self);
        blocking(move || {
            let file = publisher.store.file(enforced);
            let behind = publisher.store.boot()?.is_none_or(|boot| boot < enforced);
            if behind && file.exists() {
                let revision = Revision::read(&file)?;
                publisher.store.mark_boot(enforced)?;
                let text = text_of(&revision)?;
                files::write(&publisher.policy_file, text.as_bytes(), POLICY_MODE)?;
                tracing::info!(
                    "revision {enforced} was enforced already; a boot now begins with it"
                );
            }
            Ok(enforced)
        })
        .await
    }

    /// The revision that the next boot begins with, whole.
    pub(crate) async fn boot_revision(self: &Arc<Self>) -> Result<Option<Revision>, PublishError> {
        let publisher = Arc::clone(self);
        blocking(move || {
            let Some(number) = publisher.store.boot()? else {
                return Ok(None);
            };
            let revision = Revision::read(&publisher.store.file(number))?;
            publisher.keep(&revision);
            Ok(Some(revision))
        })
        .await
    }

    /// The number of the revision in force, if it wants the gateway. What can't be read wants nothing: other checks say so.
    pub(crate) async fn gateway_revision(self: &Arc<Self>) -> Option<u64> {
        let publisher = Arc::clone(self);
        let wants = blocking(move || {
            let Some(number) = publisher.store.boot()? else {
                return Ok(None);
            };
            let kept = *publisher.kept();
            if let Some((known, wants)) = kept
                && known == number
            {
                return Ok(wants.then_some(number));
            }
            let revision = Revision::read(&publisher.store.file(number))?;
            Ok(publisher.keep(&revision).then_some(number))
        });
        wants.await.ok().flatten()
    }

    fn keep(&self, revision: &Revision) -> bool {
        let wants = revision.enabled && revision.access.gateway.enabled;
        *self.kept() = Some((revision.number, wants));
        wants
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<(u64, bool)>> {
        let place = self.wants_gateway.lock();
        place.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The policy in force, as policy.json.
    pub(crate) async fn enforced(self: &Arc<Self>) -> Result<Enforced, PublishError> {
        let revision = self.boot_revision().await?.ok_or(PublishError::NoPolicy)?;
        let text = text_of(&revision)?;
        Ok(Enforced {
            revision: revision.number,
            policy: serde_json::from_str(&text)
                .map_err(|error| PublishError::Unwritable(error.to_string()))?,
        })
    }

    fn turn(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, PublishError> {
        self.one_at_a_time
            .try_lock()
            .map_err(|_| PublishError::Busy)
    }
}

fn write(revision: &Revision, file: &Path) -> Result<(), PublishError> {
    revision.write(file)?;
    std::fs::set_permissions(
        file,
        std::os::unix::fs::PermissionsExt::from_mode(REVISION_MODE),
    )
    .map_err(FileError::of("setting the mode of", file))?;
    Ok(())
}

fn text_of(revision: &Revision) -> Result<String, PublishError> {
    policy_text::for_people(&revision.policy)
        .map_err(|trouble| PublishError::Unwritable(trouble.what))
}

fn silent_success(revision: u64) -> Report {
    Report {
        revision,
        ok: true,
        applied: true,
        stages: Vec::new(),
    }
}

/// Files and millions of names are no work for the thread that answers everybody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PublishError> + Send + 'static,
) -> Result<T, PublishError> {
    tokio::task::spawn_blocking(work).await?
}
