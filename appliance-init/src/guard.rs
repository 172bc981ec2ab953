//! Looks at the kernel itself, whatever the boot is doing: the ruleset must be there, and forwarding off unless it is
//! that of a committed revision.
//!
//! It runs beside the order of steps and never waits for a daemon. It closes what it finds open; it opens nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clawgress_link::ruleset::{self, Watch};
use tokio::time::sleep;

use crate::board::Board;
use crate::clock::since_boot_ms;
use crate::paths::Paths;
use crate::seal;

/// How long the box can stand on one wall alone: ruleset and forwarding are independent of each other.
const LOOK: Duration = Duration::from_secs(5);

pub(crate) async fn watch(paths: Paths, board: Arc<Board>) {
    // Before the first seal there is nothing to lose; the boot itself keeps trying.
    let mut was_sealed = false;
    let mut kernel = Watch::default();
    loop {
        sleep(LOOK).await;
        let committed = matches!(ruleset::generation().await, Some(generation) if generation != ruleset::SEALED);
        if !committed {
            forwarding(&paths, &board).await;
        }
        was_sealed |= board.is_ok("seal");
        if was_sealed {
            rules(&paths, &board, &mut kernel).await;
        }
    }
}

/// Nobody may switch forwarding on while no policy is committed; whoever does is undone here.
async fn forwarding(paths: &Paths, board: &Board) {
    let now = seal::forwarding(paths);
    if !now.ipv4 && !now.ipv6 {
        return;
    }
    // The enforcer loads its rules first and forwards then: between the two looks it may just have done so.
    if matches!(ruleset::generation().await, Some(generation) if generation != ruleset::SEALED) {
        return;
    }
    let started = since_boot_ms();
    match seal::switch_off(paths) {
        Ok(()) => {
            board.warn(["somebody switched forwarding on; it was switched off again".to_owned()]);
        }
        Err(error) => {
            board.record("seal", started, Err(error));
        }
    }
}

async fn rules(paths: &Paths, board: &Board, kernel: &mut Watch) {
    let started = since_boot_ms();
    let lost = kernel.look().await;
    if lost.loaded {
        return;
    }
    board.warn(["the ruleset was gone or changed; it was loaded again".to_owned()]);
    if board.is_ok("nftables") {
        board.record("nftables", started, Err(anyhow!("{}", lost.detail)));
    }
    let again = load(paths).await;
    // Only a step that was reached is won back here; before that the boot proves it in its turn.
    if again.is_err() || board.has("nftables") {
        board.record("nftables", started, again);
    }
}

async fn load(paths: &Paths) -> Result<String> {
    seal::load(paths).await?;
    let now = ruleset::measure().await;
    if now.loaded {
        Ok(format!(
            "ruleset loaded again, generation {}",
            now.generation
        ))
    } else {
        Err(anyhow!("{}", now.detail))
    }
}
