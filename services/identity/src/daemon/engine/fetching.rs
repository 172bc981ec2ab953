//! Fetched keys in the engine's hands: what is due, what came of it, what gateways miss.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Engine;
use crate::daemon::fetch::Order;

impl Engine {
    /// Which sets of keys are to be fetched now.
    pub(in crate::daemon) fn orders(&self) -> Vec<Order> {
        self.lock().fetched.due(Instant::now())
    }

    /// What came of a fetch; other keys are published before this returns.
    pub(in crate::daemon) fn fetched(
        &self,
        order: &Order,
        answer: Result<String, String>,
    ) -> anyhow::Result<()> {
        let mut inner = self.lock();
        if inner.fetched.take(order, answer, Instant::now()) {
            tracing::info!("keys of the issuer {} are new", order.issuer);
            self.publish(&mut inner)?;
        }
        Ok(())
    }

    /// A gateway was shown tokens by keys of these issuers that it does not know.
    pub(in crate::daemon) fn missed(&self, issuers: &BTreeSet<String>) {
        self.lock().fetched.missed(issuers, Instant::now());
    }
}
