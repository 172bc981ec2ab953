//! Reads the kernel's quotas twice a second, keeps the book of caps by them, and begins new periods on time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::caps::{Book, zone};
use super::clock::{since_boot, until_next_second, wall};
use super::keeper::Order;
use super::shared::Shared;
use crate::kernel::{KernelError, Socket, objects};
use crate::plan::layout::METER;

const LOOK: Duration = Duration::from_millis(450);

/// For ever.
pub(super) async fn keep(shared: Arc<Shared>, orders: mpsc::Sender<Order>, mut socket: Socket) {
    let mut book = Book::open(&shared.config.state);
    loop {
        // A little after a second begins, so that caps of a second begin with it.
        sleep(LOOK.min(until_next_second() + Duration::from_millis(2))).await;
        match tokio::task::block_in_place(|| look(&shared, &mut socket, &mut book)) {
            Ok(false) => {}
            Ok(true) => {
                // The keeper is there as long as this process.
                let _ = orders.send(Order::CapsChanged).await;
            }
            Err(error) => tracing::error!("reading the use of caps: {error}"),
        }
        if let Err(error) = tokio::task::block_in_place(|| book.keep()) {
            tracing::error!("writing down the use of caps: {error}");
        }
    }
}

/// True if other caps are used up than before.
fn look(shared: &Shared, socket: &mut Socket, book: &mut Book) -> Result<bool, KernelError> {
    let Some(in_force) = shared.in_force() else {
        return Ok(false);
    };
    let has_caps = in_force
        .index
        .principals()
        .iter()
        .any(|who| !in_force.index.caps(who).is_empty());
    let mut over = std::collections::BTreeSet::new();
    let mut all = Vec::new();
    if has_caps {
        let quotas = objects::quotas(socket, METER)?;
        let zone = zone(&in_force.revision.time_zone);
        let mut moment = in_force.moment;
        moment.now = wall();
        let resets = book.read(
            &in_force.index,
            &in_force.plan.counted,
            &quotas,
            &zone,
            moment,
            since_boot(),
        );
        for reset in resets {
            objects::reset_quota(socket, METER, &reset.object)?;
            book.was_reset(&reset, since_boot());
        }
        (over, all) = book.standing(&in_force.index, &zone, moment);
    }
    *shared.cap_use() = all;
    let mut known = shared.over_cap();
    let differs = *known != over;
    *known = over;
    Ok(differs)
}
