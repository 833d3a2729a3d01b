//! What an agent says that it has dropped.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::agent::Agent;
use crate::wait::eventually;

const SOON: Duration = Duration::from_secs(10);

impl Agent {
    /// Packets that were dropped at an endpoint for a reason.
    pub fn dropped_at(&self, endpoint: &str, reason: &str) -> Result<u64> {
        let status = self.status()?;
        let mut endpoints = status["endpoints"].as_array().into_iter().flatten();
        let found = endpoints.find(|its| its["name"] == endpoint);
        let found = found.with_context(|| format!("no endpoint {endpoint}: {status:#}"))?;
        Ok(found["drops"][reason].as_u64().unwrap_or(0))
    }

    /// An error unless as many are counted soon, and not one more.
    pub fn has_dropped_at(&self, endpoint: &str, reason: &str, count: usize) -> Result<()> {
        let count = u64::try_from(count)?;
        let is_counted = || {
            let dropped = self.dropped_at(endpoint, reason);
            dropped.is_ok_and(|now| now == count)
        };
        ensure!(
            eventually(SOON, is_counted),
            "{endpoint}: {count} {reason} expected: {:#}",
            self.status()?["endpoints"]
        );
        Ok(())
    }
}
