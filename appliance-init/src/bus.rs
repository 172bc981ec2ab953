//! The connection to the system bus, and the few words for networkd.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, timeout};
use zbus::{Connection, Proxy};

/// The bus comes up after us; on a slow machine much later.
const DEADLINE: Duration = Duration::from_secs(90);
const ATTEMPT: Duration = Duration::from_secs(10);

/// Connects as soon as the bus is there.
pub(crate) async fn connect() -> Result<Connection> {
    let end = Instant::now() + DEADLINE;
    loop {
        let attempt = match timeout(ATTEMPT, Connection::system()).await {
            Ok(Ok(bus)) => return Ok(bus),
            Ok(Err(error)) => anyhow::Error::from(error),
            Err(_) => anyhow::anyhow!("no greeting within {ATTEMPT:?}"),
        };
        if Instant::now() > end {
            return Err(
                attempt.context("connecting to the system bus; see systemctl status dbus.socket")
            );
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Makes networkd read its files again, for those that were written after it had started.
pub(crate) async fn reload_network(bus: &Connection) -> Result<()> {
    let reload = async {
        let name = "org.freedesktop.network1";
        let manager = Proxy::new(
            bus,
            name,
            "/org/freedesktop/network1",
            "org.freedesktop.network1.Manager",
        )
        .await?;
        manager.call::<_, _, ()>("Reload", &()).await
    };
    timeout(ATTEMPT, reload)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {ATTEMPT:?}"))
        .and_then(|answer| answer.map_err(anyhow::Error::from))
        .context("making systemd-networkd read its configuration")
}
