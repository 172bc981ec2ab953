//! clawgress-dns. Wires configuration, sockets, enforcer and engine together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clawgress_audit::ship::keep_shipping;
use clawgress_dns::config::Config;
use clawgress_dns::enforcer::{self, Link};
use clawgress_dns::engine::Engine;
use clawgress_dns::events::Events;
use clawgress_dns::listen::{Bound, Door, Streams};
use clawgress_dns::rules::own_addresses;
use clawgress_dns::trail::Trail;
use clawgress_dns::upstream::Upstream;
use clawgress_link::deny_lines::DenyLines;
use clawgress_link::service::{self, Stop};
use sd_notify::NotifyState;
use tokio::net::UnixStream;

/// What the audit trail calls this service's queue.
const SHIPPER: &str = "dns";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    service::run(env!("CARGO_PKG_VERSION"), serve).await
}

async fn serve(config: Config, mut stop: Stop) -> anyhow::Result<()> {
    let mut doors = vec![Bound::at(config.front, Door::Front)?];
    for address in &config.agents {
        doors.push(Bound::at(*address, Door::Agents)?);
    }
    let upstream = Upstream::start(config.named).await?;
    let mut lines = DenyLines::of("clawgress-dns");
    let events = Events::to(move |facility, line| lines.write(facility, line))
        .context("starting the thread that writes events")?;
    let audit = &config.audit;
    let trail = Trail::open(&audit.queue, audit.queue_bytes, audit.queue_bytes_per_agent)
        .with_context(|| format!("opening the audit queue {}", audit.queue.display()))?;
    let (socket, reader) = (audit.ship_socket.clone(), trail.reader());
    tokio::spawn(async move {
        keep_shipping(|| UnixStream::connect(socket.clone()), reader, SHIPPER).await;
    });
    let (link, outbox) = Link::new();
    let engine = Engine::new(&config.engine_limits(), upstream, link, events, trail);
    engine.set_own_addresses(own_addresses().context("listing this box's own addresses")?);
    let streams = Streams::new(config.stream_limits());
    for door in doors {
        door.serve(&engine, &streams);
    }
    tokio::spawn(enforcer::keep(
        Arc::clone(&engine),
        config.enforcer.clone(),
        outbox,
    ));
    tokio::spawn(keep_house(engine));
    sd_notify::notify(&[NotifyState::Ready])
        .context("telling systemd that the service is ready")?;
    stop.requested().await;
    // Best effort: systemd learns the same from our exit. Questions in flight are asked again by their askers.
    sd_notify::notify(&[NotifyState::Stopping]).ok();
    Ok(())
}

/// What has to be looked at again and again.
async fn keep_house(engine: Arc<Engine>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        engine.report_suppressed();
        engine.end_second();
        match own_addresses() {
            Ok(own) => engine.set_own_addresses(own),
            Err(error) => tracing::warn!("listing this box's own addresses: {error}"),
        }
    }
}
