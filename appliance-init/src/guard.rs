//! Looks at the kernel itself, whatever the boot is doing: the ruleset must be there, and forwarding off unless it is
//! that of a committed revision.
//!
//! It runs beside the order of steps and never waits for a daemon. It closes what it finds open; it opens nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clawgress_link::ruleset::{self, Ruleset, Watch};
use tokio::time::sleep;

use crate::board::Board;
use crate::clock::since_boot_ms;
use crate::paths::Paths;
use crate::seal;

/// How long the box can stand on one wall alone: ruleset and forwarding are independent of each other.
const LOOK: Duration = Duration::from_secs(5);

/// For how many looks in a row nobody need be able to tell what the ruleset is. What is not known for longer is lost.
const MOST_UNSEEN: u32 = 6;

pub(crate) async fn watch(paths: Paths, board: Arc<Board>) {
    // Before the first seal there is nothing to lose; the boot itself keeps trying.
    let mut was_sealed = false;
    let mut kernel = Watch::default();
    let mut unseen = 0;
    loop {
        sleep(LOOK).await;
        if nothing_is_committed().await {
            forwarding(&paths, &board).await;
        }
        was_sealed |= board.is_ok("seal");
        if was_sealed {
            match kernel.look().await {
                Ok(now) => {
                    unseen = 0;
                    rules(&paths, &board, now).await;
                }
                Err(why) => {
                    unseen += 1;
                    eprintln!("looking at the ruleset: {why}");
                    if unseen == MOST_UNSEEN {
                        unseen = 0;
                        rules(&paths, &board, ruleset::measure().await).await;
                    }
                }
            }
        }
    }
}

/// By the kernel's own word: a question that fails says nothing.
async fn nothing_is_committed() -> bool {
    matches!(
        ruleset::generation().await,
        Ok(None | Some(ruleset::SEALED))
    )
}

/// Nobody may switch forwarding on while no policy is committed; whoever does is undone here.
async fn forwarding(paths: &Paths, board: &Board) {
    let now = seal::forwarding(paths);
    if !now.ipv4 && !now.ipv6 {
        return;
    }
    // The enforcer loads its rules first and forwards then: between the two looks it may just have done so.
    if !nothing_is_committed().await {
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

async fn rules(paths: &Paths, board: &Board, lost: Ruleset) {
    let started = since_boot_ms();
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
