//! Asks systemd about units and starts them, over the message bus.
//!
//! `active` is what systemd believes of a process; it is never taken for readiness (see the other probes). Nothing
//! here stops, masks or enables a unit.

use std::{future::poll_fn, pin::Pin, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use zbus::{
    Connection, OwnedObjectPath, OwnedVariant, Proxy,
    export::futures_core::Stream,
    proxy::{CacheProperties, SignalStream},
};

use crate::error::{ProbeError, within};

const SYSTEMCTL: &str = "/usr/bin/systemctl";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
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

/// As systemd lists a unit: name, description, load, active and sub state, whom it follows, path, and its job, if any.
type Listed = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

async fn listed(bus: &Connection, units: &[&str], doing: &str) -> Result<Vec<Listed>, ProbeError> {
    let manager = manager(bus).await.map_err(ProbeError::bus(doing))?;
    let all: Vec<Listed> = manager
        .call("ListUnitsByNames", &(units,))
        .await
        .map_err(ProbeError::bus(doing))?;
    units
        .iter()
        .map(|wanted| {
            all.iter()
                .find(|listed| listed.0 == *wanted)
                .cloned()
                .ok_or_else(|| ProbeError::answer(doing, format!("nothing about {wanted}")))
        })
        .collect()
}

fn without_restarts(listed: Listed) -> UnitState {
    let (_, _, load, active, sub, ..) = listed;
    UnitState {
        load,
        active,
        sub,
        restarts: 0,
    }
}

/// Asks for the states of many units at once, in the order of the names; restarts are not counted.
pub async fn states(bus: &Connection, units: &[&str]) -> Result<Vec<UnitState>, ProbeError> {
    let doing = "asking systemd for the states of units".to_owned();
    within(QUESTION, &doing, async {
        let all = listed(bus, units, &doing).await?;
        Ok(all.into_iter().map(without_restarts).collect())
    })
    .await
}

/// Asks for the state of one unit.
pub async fn state(bus: &Connection, unit: &str) -> Result<UnitState, ProbeError> {
    let doing = format!("asking systemd for the state of {unit}");
    within(QUESTION, &doing, async {
        let listed = listed(bus, &[unit], &doing)
            .await?
            .pop()
            .ok_or_else(|| ProbeError::answer(&doing, "nothing"))?;
        let path = listed.6.clone();
        let mut state = without_restarts(listed);
        if unit.ends_with(".service") {
            let properties = Proxy::new(bus, SYSTEMD, path, "org.freedesktop.DBus.Properties")
                .await
                .map_err(ProbeError::bus(&doing))?;
            let restarts: OwnedVariant = properties
                .call("Get", &(SERVICE, "NRestarts"))
                .await
                .map_err(ProbeError::bus(&doing))?;
            state.restarts = u32::try_from(restarts).unwrap_or_default();
        }
        Ok(state)
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

/// The same, asked by systemd's own tool, which needs no bus: the bus is among the first to stop.
pub async fn is_stopping_without_bus() -> Result<bool, ProbeError> {
    let doing = "asking systemctl for the state of the system".to_owned();
    within(QUESTION, &doing, async {
        let said = tokio::process::Command::new(SYSTEMCTL)
            .arg("is-system-running")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(ProbeError::io(&doing))?;
        Ok(said.stdout.trim_ascii() == b"stopping")
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

/// Nothing is kept of the manager's properties: to keep them would mean to be told of every change to any of them.
async fn manager(bus: &Connection) -> zbus::Result<Proxy<'static>> {
    zbus::proxy::Builder::new(bus)
        .destination(SYSTEMD)
        .path("/org/freedesktop/systemd1")
        .interface(MANAGER)
        .cache_properties(CacheProperties::No)
        .build()
        .await
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
