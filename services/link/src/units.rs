//! Asks systemd about units and starts them, over the message bus.
//!
//! `active` is what systemd believes of a process; it is never taken for readiness (see the other probes). Nothing
//! here stops, masks or enables a unit.

use std::{collections::HashMap, future::poll_fn, pin::Pin, time::Duration};

use serde::{Deserialize, Serialize};
use zbus::{
    Connection, OwnedObjectPath, OwnedVariant, Proxy, export::futures_core::Stream,
    proxy::SignalStream,
};

use crate::error::{ProbeError, within};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
/// A job of systemd may take its time; a question must not.
const QUESTION: Duration = Duration::from_secs(5);

/// What systemd says about a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, …
    pub load: String,
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    /// `running`, `exited`, `auto-restart`, …
    pub sub: String,
    /// How often systemd has restarted the service by itself; 0 for what is no service.
    pub restarts: u32,
}

impl UnitState {
    /// Running, or done for good in the way of a oneshot that remains.
    pub fn is_up(&self) -> bool {
        self.load == "loaded" && self.active == "active"
    }
}

impl std::fmt::Display for UnitState {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.load != "loaded" {
            return write!(out, "{}", self.load);
        }
        write!(out, "{} ({})", self.active, self.sub)?;
        match self.restarts {
            0 => Ok(()),
            1 => write!(out, ", restarted once"),
            often => write!(out, ", restarted {often} times"),
        }
    }
}

/// Asks for the state of one unit.
pub async fn state(bus: &Connection, unit: &str) -> Result<UnitState, ProbeError> {
    let doing = format!("asking systemd for the state of {unit}");
    within(QUESTION, &doing, async {
        let manager = manager(bus).await.map_err(ProbeError::bus(&doing))?;
        let path: OwnedObjectPath = manager
            .call("LoadUnit", &(unit,))
            .await
            .map_err(ProbeError::bus(&doing))?;
        let properties = Proxy::new(bus, SYSTEMD, path, "org.freedesktop.DBus.Properties")
            .await
            .map_err(ProbeError::bus(&doing))?;
        let mut all: HashMap<String, OwnedVariant> = properties
            .call("GetAll", &(UNIT,))
            .await
            .map_err(ProbeError::bus(&doing))?;
        let mut text = |key: &str| {
            let value = all
                .remove(key)
                .ok_or_else(|| ProbeError::answer(&doing, format!("no property {key}")))?;
            String::try_from(value)
                .map_err(|error| ProbeError::answer(&doing, format!("property {key}: {error}")))
        };
        let restarts: Option<OwnedVariant> = if unit.ends_with(".service") {
            Some(
                properties
                    .call("Get", &(SERVICE, "NRestarts"))
                    .await
                    .map_err(ProbeError::bus(&doing))?,
            )
        } else {
            None
        };
        Ok(UnitState {
            load: text("LoadState")?,
            active: text("ActiveState")?,
            sub: text("SubState")?,
            restarts: restarts
                .and_then(|value| u32::try_from(value).ok())
                .unwrap_or_default(),
        })
    })
    .await
}

/// Whether the whole system is on its way down: what stops then is not broken.
pub async fn is_stopping(bus: &Connection) -> Result<bool, ProbeError> {
    let doing = "asking systemd for the state of the system".to_owned();
    within(QUESTION, &doing, async {
        let manager = manager(bus).await.map_err(ProbeError::bus(&doing))?;
        let state: String = manager
            .get_property("SystemState")
            .await
            .map_err(ProbeError::bus(&doing))?;
        Ok(state == "stopping")
    })
    .await
}

/// Starts the unit and waits until systemd's job for it has ended; any end but `done` is an error.
pub async fn start(bus: &Connection, unit: &str, deadline: Duration) -> Result<(), ProbeError> {
    job(bus, "StartUnit", format!("starting {unit}"), unit, deadline).await
}

/// Makes a running unit read its configuration again, and waits until that has ended.
pub async fn reload(bus: &Connection, unit: &str, deadline: Duration) -> Result<(), ProbeError> {
    job(
        bus,
        "ReloadUnit",
        format!("reloading {unit}"),
        unit,
        deadline,
    )
    .await
}

async fn job(
    bus: &Connection,
    method: &str,
    doing: String,
    unit: &str,
    deadline: Duration,
) -> Result<(), ProbeError> {
    let result = within(deadline, &doing, async {
        let manager = manager(bus).await.map_err(ProbeError::bus(&doing))?;
        // Heard before asked: a job that ends at once must not be missed.
        let mut removed = manager
            .receive_signal("JobRemoved")
            .await
            .map_err(ProbeError::bus(&doing))?;
        subscribe(&manager).await.map_err(ProbeError::bus(&doing))?;
        let job: OwnedObjectPath = manager
            .call(method, &(unit, "replace"))
            .await
            .map_err(ProbeError::bus(&doing))?;
        loop {
            let signal = next(&mut removed).await.ok_or_else(|| {
                ProbeError::answer(&doing, "the message bus hung up before the job ended")
            })?;
            let (_, ended, _, result): (u32, OwnedObjectPath, String, String) = signal
                .body()
                .deserialize()
                .map_err(ProbeError::bus(&doing))?;
            if ended == job {
                return Ok(result);
            }
        }
    })
    .await?;
    if result == "done" {
        return Ok(());
    }
    let now = state(bus, unit)
        .await
        .map_or_else(|error| error.to_string(), |state| state.to_string());
    Err(ProbeError::answer(
        doing,
        format!("the job ended with '{result}', the unit is {now}; see journalctl -u {unit}"),
    ))
}

async fn manager(bus: &Connection) -> zbus::Result<Proxy<'static>> {
    Proxy::new(bus, SYSTEMD, "/org/freedesktop/systemd1", MANAGER).await
}

/// systemd sends signals only to those who asked for them; asking twice is an error that means nothing.
async fn subscribe(manager: &Proxy<'_>) -> zbus::Result<()> {
    match manager.call::<_, _, ()>("Subscribe", &()).await {
        Err(zbus::Error::MethodError(name, ..))
            if name.as_str() == "org.freedesktop.systemd1.AlreadySubscribed" =>
        {
            Ok(())
        }
        other => other,
    }
}

async fn next(stream: &mut SignalStream<'_>) -> Option<zbus::Message> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
