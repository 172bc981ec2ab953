//! The kill switch: who is blocked, on every path. Kept here, and told to the gateway and to the enforcer until both have it.
//!
//! A block is sent before anything is written down, and never waits for a disk. One that a service did not hear of is sent
//! again until it has; it is never lifted by itself. What was never heard of elsewhere is no reason to lift it here.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clawgress_link::{agents::Blocked, durable};
use tokio::{sync::Mutex, time::sleep};

use crate::daemon::{
    enforcer::{AskError, Enforcer},
    services::{Gateway, ServiceError},
};

/// Between two looks at whether everybody has it.
const LOOK: Duration = Duration::from_secs(2);
const MOST: u64 = 8 * 1024 * 1024;
const QUESTION: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub(crate) enum SwitchError {
    #[error("reading who is blocked: {0}")]
    Read(#[from] durable::FileError),
    #[error("writing down who is blocked was cut off before its end")]
    CutOff,
    #[error("{} does not say who is blocked: {source}; put it right, or remove it to block nobody", path.display())]
    Parse {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{}", missing(gateway.as_ref(), enforcer.as_ref(), *lifting))]
    NotEverywhere {
        gateway: Option<ServiceError>,
        enforcer: Option<AskError>,
        lifting: bool,
    },
}

/// What was not reached, and what that means now.
fn missing(gateway: Option<&ServiceError>, enforcer: Option<&AskError>, lifting: bool) -> String {
    let mut parts = Vec::new();
    if let Some(error) = gateway {
        parts.push(format!("through the gateway: {error}"));
    }
    if let Some(error) = enforcer {
        parts.push(format!("on the packet path: {error}"));
    }
    let parts = parts.join("; and ");
    if lifting {
        format!("still blocked {parts}; lift it again when that is mended")
    } else {
        format!("NOT IN FORCE {parts}; it is sent again every two seconds until it is")
    }
}

/// Whom both have been told of.
#[derive(Debug, Default)]
struct Kept {
    blocked: Blocked,
    /// Nothing more is to be told.
    told: bool,
    /// The disk has it, too.
    written: bool,
}

pub(crate) struct Switch {
    gateway: Gateway,
    enforcer: Enforcer,
    file: PathBuf,
    /// One change at a time, or one would undo another.
    kept: Mutex<Kept>,
}

impl Switch {
    /// What an earlier process kept holds on.
    pub(crate) fn open(
        state: &Path,
        gateway: Gateway,
        enforcer: Enforcer,
    ) -> Result<Arc<Self>, SwitchError> {
        let file = state.join("blocked.json");
        let blocked = match durable::read(&file, MOST)? {
            None => Blocked::default(),
            Some(text) => serde_json::from_slice(&text).map_err(|source| SwitchError::Parse {
                path: file.clone(),
                source,
            })?,
        };
        Ok(Arc::new(Self {
            gateway,
            enforcer,
            file,
            kept: Mutex::new(Kept {
                // Nobody is to be told that nobody is blocked: it is lifted by the word alone.
                told: !blocked.all && blocked.agents.is_empty(),
                blocked,
                written: true,
            }),
        }))
    }

    /// None: everybody. In force on every path when it returns; an error says where it is not yet.
    pub(crate) async fn block(&self, whom: Option<&str>) -> Result<Blocked, SwitchError> {
        let mut kept = self.kept.lock().await;
        match whom {
            Some(agent) => kept.blocked.agents.extend([agent.to_owned()]),
            None => kept.blocked.all = true,
        }
        kept.told = false;
        let told = self.tell(&mut kept).await;
        let mut blocked = kept.blocked.clone();
        let written = self.write(&kept.blocked).await;
        kept.written = written.is_ok();
        if let Err(error) = written {
            blocked.warnings.push(format!(
                "it is in force, and may not be after a restart: {error}"
            ));
        }
        told.map(|()| blocked)
    }

    /// None: what was said of everybody; whom it was said of one by one stay blocked.
    pub(crate) async fn unblock(&self, whom: Option<&str>) -> Result<Blocked, SwitchError> {
        let mut kept = self.kept.lock().await;
        let before = kept.blocked.clone();
        match whom {
            Some(agent) => kept.blocked.agents.retain(|other| other != agent),
            None => kept.blocked.all = false,
        }
        // Written first: a crash leaves nobody open whom a later start would have to block again.
        if let Err(error) = self.write(&kept.blocked).await {
            kept.blocked = before;
            return Err(error);
        }
        kept.written = true;
        let enforcer = self.tell_enforcer(&kept.blocked).await;
        let gateway = self.gateway.unblock(whom).await;
        if enforcer.is_ok() && gateway.is_ok() {
            return Ok(kept.blocked.clone());
        }
        kept.blocked = before;
        kept.told = false;
        self.write(&kept.blocked).await?;
        // Whoever has lifted it already has it back; what fails is tried again.
        let _ = self.tell(&mut kept).await;
        Err(SwitchError::NotEverywhere {
            gateway: gateway.err(),
            enforcer: enforcer.err(),
            lifting: true,
        })
    }

    /// Runs until it is dropped: whoever has not heard of a block, or has started without it, is told.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            {
                let mut kept = self.kept.lock().await;
                if !kept.written {
                    kept.written = self.write(&kept.blocked).await.is_ok();
                }
                if kept.told {
                    kept.told = self.gateway_has(&kept.blocked).await;
                }
                if !kept.told
                    && let Err(error) = self.tell(&mut kept).await
                    && (kept.blocked.all || !kept.blocked.agents.is_empty())
                {
                    tracing::warn!("the kill switch: {error}");
                }
            }
            sleep(LOOK).await;
        }
    }

    /// Whether nothing of it is missing there; what is more there is its own matter.
    async fn gateway_has(&self, blocked: &Blocked) -> bool {
        match self.gateway.standing(QUESTION).await {
            Ok(standing) => {
                standing.blocked.all >= blocked.all
                    && blocked.agents.is_subset(&standing.blocked.agents)
            }
            // A gateway that is away lets nothing through, and keeps what it was told.
            Err(_) => true,
        }
    }

    async fn tell(&self, kept: &mut Kept) -> Result<(), SwitchError> {
        let (gateway, enforcer) = tokio::join!(
            self.tell_gateway(&kept.blocked),
            self.tell_enforcer(&kept.blocked)
        );
        if gateway.is_ok() && enforcer.is_ok() {
            kept.told = true;
            return Ok(());
        }
        Err(SwitchError::NotEverywhere {
            gateway: gateway.err(),
            enforcer: enforcer.err(),
            lifting: false,
        })
    }

    async fn tell_gateway(&self, blocked: &Blocked) -> Result<(), ServiceError> {
        if !blocked.all && blocked.agents.is_empty() {
            return Ok(());
        }
        let has = self.gateway.standing(QUESTION).await?.blocked;
        if blocked.all && !has.all {
            self.gateway.block(None).await?;
        }
        for agent in blocked.agents.difference(&has.agents) {
            self.gateway.block(Some(agent)).await?;
        }
        Ok(())
    }

    async fn tell_enforcer(&self, blocked: &Blocked) -> Result<(), AskError> {
        let agents = blocked.agents.iter().cloned().collect();
        self.enforcer.block(blocked.all, agents).await
    }

    async fn write(&self, blocked: &Blocked) -> Result<(), SwitchError> {
        let kept = Blocked {
            warnings: Vec::new(),
            ..blocked.clone()
        };
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || {
            durable::replace(&file, &serde_json::to_vec(&kept).unwrap_or_default())
        });
        written.await.map_err(|_| SwitchError::CutOff)??;
        Ok(())
    }
}
