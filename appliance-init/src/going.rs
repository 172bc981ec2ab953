//! Whether the whole box is on its way down: what ends then is not broken, and is not to be won back.
//!
//! Never says so of a box that goes on running: only systemd's own word counts.

use clawgress_link::units;

#[derive(Debug, Default)]
pub(crate) struct Going {
    down: bool,
}

impl Going {
    /// Asks systemd, over the bus if there is one: that is among the first to stop.
    pub(crate) async fn is_down(&mut self, bus: Option<&zbus::Connection>) -> bool {
        let told = match bus {
            Some(bus) => units::is_stopping(bus).await.ok(),
            None => None,
        };
        self.down = match told {
            Some(stopping) => stopping,
            // Whoever was going down and can't be asked any more has come further on that way.
            None => units::is_stopping_without_bus().await.unwrap_or(self.down),
        };
        self.down
    }

    /// What was said last.
    pub(crate) fn was_down(&self) -> bool {
        self.down
    }
}
