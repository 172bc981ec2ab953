//! Ships what processes before this one have queued and could not ship themselves: a predecessor that drained, or died.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clawgress_audit::queue::{self, Lane, Settings};
use clawgress_audit::ship;
use tokio::net::UnixStream;

use super::NAME;

/// A predecessor may drain for minutes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Runs for ever.
pub(super) async fn ship_left(directory: PathBuf, settings: Settings, socket: PathBuf) {
    loop {
        match queue::lanes(&directory) {
            Ok(lanes) => {
                for lane in lanes {
                    if let Err(error) = ship_one(lane, settings, &socket).await {
                        tracing::warn!(
                            "shipping what a process before this one has queued: {error:#}"
                        );
                    }
                }
            }
            Err(error) => tracing::warn!("looking for what others have queued: {error}"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ship_one(lane: Lane, settings: Settings, socket: &Path) -> anyhow::Result<()> {
    // Whoever can't be reached is no reason to hold a lane that the next process may want.
    let stream = UnixStream::connect(socket).await?;
    let lane = lane.open(settings)?;
    ship::drain(stream, lane, NAME).await?;
    Ok(())
}
