//! Follows the committed revision: how long events are kept, and where they are sent on to. A change counts within a
//! second; what can't be read, or names a file that can't, changes nothing, and is told once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use clawgress_config::access::{Access, AuditSettings, Forward};
use clawgress_link::{durable, hex};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::alerts::Alerts;
use crate::config::Config;
use crate::forward::address::{Collector, Reach, SyslogServer};
use crate::forward::{self, Otlp, Sender, Syslog, Watch};
use crate::store::{Retention, Store};

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// As whoever writes it has it.
const LARGEST_REVISION: u64 = 256 * 1024 * 1024;
const LARGEST_CA: u64 = 1024 * 1024;
/// Who vouches for a collector of which the revision names no authority.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const FORMAT: u32 = 1;
const REVISION: &str = "revision";

/// What changes when a file is replaced or written to.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

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

/// The file of a revision, as far as this service is concerned.
#[derive(Deserialize)]
struct Envelope<'f> {
    format: u32,
    number: u64,
    digest: String,
    #[serde(borrow)]
    content: &'f RawValue,
}

#[derive(Deserialize)]
struct Content<'f> {
    #[serde(borrow, default)]
    access: Option<&'f RawValue>,
}

/// Number and settings. Single values are judged as at a commit: the file may have been written by whoever can write it.
fn read(path: &Path) -> Result<(u64, AuditSettings), String> {
    let wrong = |what: String| {
        let path = path.display();
        format!("reading the revision {path}: {what}; restore it from a backup, or commit again")
    };
    let bytes = durable::read(path, LARGEST_REVISION)
        .map_err(|error| error.to_string())?
        .ok_or_else(|| wrong("it is not there".to_owned()))?;
    let file: Envelope<'_> =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    if file.format != FORMAT {
        return Err(wrong(format!("its format is {}", file.format)));
    }
    let content = file.content.get();
    if hex::encode(digest(&SHA256, content.as_bytes()).as_ref()) != file.digest {
        return Err(wrong("it is not what was written".to_owned()));
    }
    let parts: Content<'_> =
        serde_json::from_str(content).map_err(|error| wrong(error.to_string()))?;
    let Some(access) = parts.access else {
        return Ok((file.number, AuditSettings::default()));
    };
    let access =
        Access::from_json(access.get()).map_err(|error| wrong(format!("access: {error}")))?;
    let audit = access.audit;
    if !(1..=36_500).contains(&audit.retain_days) {
        return Err(wrong(format!("it keeps events {} days", audit.retain_days)));
    }
    Ok((file.number, audit))
}

fn inside(below: &Path, file: &str) -> Option<PathBuf> {
    let file = Path::new(file);
    let relative = file.strip_prefix(below).unwrap_or(file);
    let plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (plain && relative.components().next().is_some()).then(|| below.join(relative))
}

/// A collector as it is written, and what its file of authorities holds.
#[derive(PartialEq)]
struct Wanted {
    to: String,
    ca: Option<PathBuf>,
    pem: Vec<u8>,
}

struct Running {
    wanted: Wanted,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // What it had sent and not yet counted goes once more.
        self.task.abort();
    }
}

pub(super) struct Followed {
    config: Arc<Config>,
    store: Arc<Store>,
    watch: Watch,
    alerts: Alerts,
    number: Option<u64>,
    settings: AuditSettings,
    running: BTreeMap<&'static str, Running>,
    seen: BTreeMap<PathBuf, Stamp>,
}

impl Followed {
    pub(super) fn new(
        config: &Arc<Config>,
        store: &Arc<Store>,
        watch: &Watch,
        alerts: &Alerts,
    ) -> Self {
        Self {
            config: Arc::clone(config),
            store: Arc::clone(store),
            watch: watch.clone(),
            alerts: alerts.clone(),
            number: None,
            settings: AuditSettings::default(),
            running: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    /// Whether one of the files is another one than when it was read.
    fn is_stale(&self) -> bool {
        self.seen.is_empty() || self.seen.iter().any(|(path, seen)| stamp(path) != *seen)
    }

    async fn look(&mut self) {
        let path = self.config.revision.clone();
        // The stamp first: a file that changes while it is read is read once more.
        let now = stamp(&path);
        if self.seen.get(&path) != Some(&now) {
            self.seen.insert(path.clone(), now);
            // Before the first commit there is none.
            if now.is_some() {
                self.take(&path).await;
            }
        }
        for name in ["syslog", "otlp"] {
            self.collect(name).await;
        }
    }

    async fn take(&mut self, path: &Path) {
        let reading = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&reading)).await;
        let read = read.unwrap_or_else(|error| Err(error.to_string()));
        let known = self.number;
        let newer = read.and_then(|(number, settings)| match known {
            Some(known) if number < known => Err(format!(
                "{} holds revision {number}, and {known} is in force; only a higher one is taken",
                path.display()
            )),
            _ => Ok((number, settings)),
        });
        match newer {
            Ok((number, settings)) => {
                tracing::info!("the settings of revision {number} are in force");
                (self.number, self.settings) = (Some(number), settings);
                self.alerts
                    .ends(REVISION, "revision-taken", format!("revision {number}"))
                    .await;
            }
            Err(why) => {
                tracing::error!("{why}; what is in force stays so");
                self.alerts.begins(REVISION, "revision-refused", why).await;
            }
        }
    }

    /// Brings one collector in line with the settings.
    async fn collect(&mut self, name: &'static str) {
        let forward = match name {
            "syslog" => self.settings.syslog.clone(),
            _ => self.settings.otlp.clone(),
        };
        let trouble = format!("{name} collector");
        let Some(forward) = forward else {
            self.watch.forget(name);
            if self.running.remove(name).is_some() {
                tracing::info!("events are no longer sent to {name}");
            }
            return self
                .alerts
                .ends(&trouble, "collector-removed", name.to_owned())
                .await;
        };
        let made = self
            .wanted(&forward)
            .and_then(|wanted| Ok((sender(name, &wanted, &self.config)?, wanted)));
        match made {
            Ok((sender, wanted)) => {
                if self
                    .running
                    .get(name)
                    .is_none_or(|running| running.wanted != wanted)
                {
                    tracing::info!("events are sent to {}", wanted.to);
                    // The one before has to be gone: both keep one cursor.
                    if let Some(mut running) = self.running.remove(name) {
                        running.task.abort();
                        let _ = (&mut running.task).await;
                    }
                    let (store, state) = (Arc::clone(&self.store), self.config.state.clone());
                    let (watch, alerts) = (self.watch.clone(), self.alerts.clone());
                    let task = tokio::spawn(async move {
                        forward::keep(store, sender, &state, watch, alerts).await;
                    });
                    self.running.insert(name, Running { wanted, task });
                }
                self.alerts
                    .ends(&trouble, "collector-accepted", name.to_owned())
                    .await;
            }
            Err(why) => {
                tracing::error!("{name}: {why}; the collector stays as it was");
                if !self.running.contains_key(name) {
                    forward::await_collector(&self.watch, name, &self.config.state);
                }
                self.alerts
                    .begins(&trouble, "collector-refused", format!("{name}: {why}"))
                    .await;
            }
        }
    }

    fn wanted(&mut self, forward: &Forward) -> Result<Wanted, String> {
        let plain = forward.to.starts_with("http://");
        let ca = match &forward.ca {
            _ if plain => None,
            None => Some(PathBuf::from(SYSTEM_ROOTS)),
            Some(file) => Some(inside(&self.config.files, file).ok_or_else(|| {
                let below = self.config.files.display();
                format!("{file} is not below {below}; put it there")
            })?),
        };
        let pem = match &ca {
            None => Vec::new(),
            Some(path) => {
                self.seen.insert(path.clone(), stamp(path));
                durable::read(path, LARGEST_CA)
                    .map_err(|error| error.to_string())?
                    .ok_or_else(|| {
                        format!(
                            "{} is not there; put the collector's authorities there",
                            path.display()
                        )
                    })?
            }
        };
        Ok(Wanted {
            to: forward.to.clone(),
            ca,
            pem,
        })
    }
}

fn sender(name: &str, wanted: &Wanted, config: &Config) -> Result<Sender, String> {
    let to = &wanted.to;
    let reach = |host| match &wanted.ca {
        None => Ok(Reach::plain(host, config.resolver)),
        Some(ca) => {
            Reach::new(host, ca, &wanted.pem, config.resolver).map_err(|error| error.to_string())
        }
    };
    if name == "syslog" {
        let SyslogServer(host) = to.parse().map_err(|why| format!("{to}: {why}"))?;
        return Ok(Sender::Syslog(Syslog(reach(host)?)));
    }
    let collector: Collector = to.parse().map_err(|why| format!("{to}: {why}"))?;
    Ok(Sender::Otlp(Otlp {
        reach: reach(collector.host)?,
        path: collector.path,
    }))
}

/// For as long as it is polled.
pub(super) async fn follow(mut followed: Followed, tell: watch::Sender<Retention>) {
    loop {
        if followed.is_stale() {
            followed.look().await;
            let retention = Retention {
                days: followed.settings.retain_days,
                // The segment that grows and the one before it are always kept.
                bytes: followed
                    .settings
                    .retain_bytes
                    .max(2 * followed.config.segment_bytes),
            };
            tell.send_if_modified(|known| std::mem::replace(known, retention) != retention);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
