//! What the service does when it starts: where the configuration says something that no revision says yet, it is
//! published as one, by the same way as any policy.
//!
//! The last committed revision stays what it is as long as nobody has written another configuration.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clawgress_config::policy::{NEWEST_VERSION, Policy};
use clawgress_policy::Revision;
use serde::{Deserialize, Serialize};

use crate::daemon::{
    assemble,
    configuration::{Taken, digest},
    enforcer::AskError,
    files,
    http::{Actor, told},
    notice::Notice,
    policy_text::Read,
    publish::{PublishError, Publisher},
    record::{Change, Records},
};

const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What was taken back may have met a daemon that was slow to come up: so often it is tried again.
const REFUSALS: u32 = 4;

/// The configuration that was last published, by digest: all of it, and the policy in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    text: String,
    policy: String,
}

/// What has to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    Nothing,
    /// With the policy of the configuration, or the one that is in force already.
    Publish(Box<Policy>),
}

pub(crate) struct Boot {
    publisher: Arc<Publisher>,
    seen: PathBuf,
    notice: Notice,
    records: Arc<Records>,
}

impl Boot {
    pub(crate) fn new(
        publisher: Arc<Publisher>,
        state: &Path,
        notice: Notice,
        records: Arc<Records>,
    ) -> Self {
        notice.set(Err("it is being applied".to_owned()));
        Self {
            publisher,
            seen: state.join("configuration.json"),
            notice,
            records,
        }
    }

    /// Tries until the enforcer has answered, one way or the other.
    pub(crate) async fn run(self) {
        let mut pause = PAUSE;
        let mut refusals = 0;
        loop {
            match self.attempt().await {
                Ok(said) => {
                    tracing::info!("the configuration: {said}");
                    self.notice.set(Ok(said));
                    return;
                }
                Err(error) => {
                    refusals += u32::from(matches!(error, PublishError::Refused(_)));
                    let transient = match error {
                        PublishError::Enforcer(AskError::Silent(_)) | PublishError::Busy => true,
                        PublishError::Refused(_) => refusals <= REFUSALS,
                        _ => false,
                    };
                    let why = error.to_string();
                    if self.notice.set(Err(why.clone())) {
                        tracing::error!("applying the configuration: {why}");
                    }
                    if !transient {
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self) -> Result<String, PublishError> {
        let taken = self.publisher.configuration.read()?;
        let seen = self.seen();
        if self.publisher.store.boot()?.is_none() && !assemble::enabled(&taken.document) {
            return Ok("service clawgress is not enabled, and the box is sealed".to_owned());
        }
        self.publisher.settle().await?;
        let boot = self.publisher.boot_revision().await?;
        let now = of(&taken);
        let said = match decide(&taken, seen.as_ref(), boot.as_ref()) {
            Decision::Nothing => match &boot {
                Some(boot) => format!("revision {} holds all of it", boot.number),
                None => "it asks for nothing".to_owned(),
            },
            Decision::Publish(policy) => {
                let read = Read {
                    policy: *policy,
                    warnings: Vec::new(),
                };
                let change = Change {
                    actor: Actor::Boot,
                    source: None,
                    action: "policy apply",
                    agent: None,
                    detail: "the configuration that this boot took".to_owned(),
                };
                // A box that could not write would otherwise stay with what was committed before.
                let recorded = self.records.begin_if_possible(&change).await;
                let applied = self.publisher.apply_configuration(taken.clone(), read);
                let reply = match applied.await {
                    Ok(reply) => {
                        recorded.done(&told(&reply));
                        reply
                    }
                    Err(error) => {
                        recorded.failed(&error.to_string());
                        return Err(error);
                    }
                };
                let revision = reply.revision.unwrap_or(0);
                for warning in &reply.warnings {
                    tracing::warn!("revision {revision}: {warning}");
                }
                tracing::info!(
                    actor = "boot",
                    action = "apply",
                    result = "ok",
                    revision,
                    "audit: policy"
                );
                format!("published as revision {revision}")
            }
        };
        if seen.as_ref() != Some(&now) {
            let text = serde_json::to_vec(&now).unwrap_or_default();
            files::write(&self.seen, &text, 0o600)?;
        }
        Ok(said)
    }

    /// What can't be read was not seen: then the revision in force decides.
    fn seen(&self) -> Option<Seen> {
        let bytes = files::read_if_there(&self.seen, 4096).ok()??;
        serde_json::from_slice(&bytes).ok()
    }
}

fn of(taken: &Taken) -> Seen {
    let policy = assemble::policy(&taken.document)
        .to_json(NEWEST_VERSION)
        .unwrap_or_default();
    Seen {
        text: taken.digest.clone(),
        policy: digest(policy.as_bytes()),
    }
}

fn decide(taken: &Taken, seen: Option<&Seen>, boot: Option<&Revision>) -> Decision {
    let own = assemble::policy(&taken.document);
    let Some(boot) = boot else {
        return if assemble::enabled(&taken.document) {
            Decision::Publish(Box::new(own))
        } else {
            Decision::Nothing
        };
    };
    let now = of(taken);
    // A policy that came over the API stands until another one is written into the configuration.
    let policy = match seen {
        Some(seen) if seen.policy != now.policy => own,
        _ => boot.policy.clone(),
    };
    let wanted = assemble::revision(boot.number, boot.created, &taken.document, policy);
    if wanted == *boot {
        Decision::Nothing
    } else {
        Decision::Publish(Box::new(wanted.policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::policy_text::{self, Within};

    fn taken(policy: &str, host_name: &str) -> Taken {
        let text = format!(
            "system {{ host-name {host_name} }} interfaces {{ ethernet eth1 {{ address 192.168.10.1/24 role lan }} }}\n\
             service {{ clawgress {{ {policy} }} }}"
        );
        Taken {
            document: clawgress_config::load(text.as_bytes())
                .map_err(|invalid| invalid.to_string())
                .unwrap()
                .document,
            digest: digest(text.as_bytes()),
        }
    }

    fn domain(name: &str) -> String {
        format!("enable policy {{ domain {name} }}")
    }

    fn policy(name: &str) -> Policy {
        let text = format!("{{\"version\":1,\"allow\":{{\"domains\":[\"{name}\"]}}}}");
        policy_text::read(text.as_bytes(), Within::WHOLE)
            .unwrap()
            .policy
    }

    #[test]
    fn the_first_configuration_that_enables_is_the_first_revision() {
        assert_eq!(
            decide(&taken(&domain("a.example"), "gw"), None, None),
            Decision::Publish(Box::new(policy("a.example")))
        );
        assert_eq!(
            decide(&taken("policy { domain a.example }", "gw"), None, None),
            Decision::Nothing
        );
    }

    #[test]
    fn a_policy_of_the_api_stands_until_the_configuration_has_another_one() {
        let first = taken(&domain("a.example"), "gw");
        let boot = assemble::revision(4, 9, &first.document, policy("api.example"));
        let seen = of(&first);
        assert_eq!(decide(&first, Some(&seen), Some(&boot)), Decision::Nothing);
        // Something that no consumer knows of.
        let renamed = taken(&domain("a.example"), "gw2");
        assert_eq!(
            decide(&renamed, Some(&seen), Some(&boot)),
            Decision::Nothing
        );
        let other = taken(&domain("b.example"), "gw");
        assert_eq!(
            decide(&other, Some(&seen), Some(&boot)),
            Decision::Publish(Box::new(policy("b.example")))
        );
        // Nobody knows what was seen: what is in force stays.
        assert_eq!(decide(&other, None, Some(&boot)), Decision::Nothing);
    }

    #[test]
    fn a_configuration_that_no_longer_enables_seals() {
        let first = taken(&domain("a.example"), "gw");
        let boot = assemble::revision(4, 9, &first.document, policy("api.example"));
        let off = taken("policy { domain a.example }", "gw");
        assert_eq!(
            decide(&off, Some(&of(&first)), Some(&boot)),
            Decision::Publish(Box::new(policy("api.example")))
        );
    }
}
