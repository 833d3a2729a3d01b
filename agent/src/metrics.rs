//! What Prometheus scrapes: flow records by what decided them, how long changes took, and what `status` says in numbers.
//!
//! | module | holds |
//! |---|---|
//! | [`flows`] | counts of flow records |
//! | [`status`] | the numbers of `status`, gathered at each scrape |
//! | [`label`] | values of labels, whatever is in them |
//! | [`server`], [`push`] | HTTP, and collectors of OpenTelemetry |
//!
//! No address, port or process is a label, so that what a scrape has is bounded by what is configured, whoever sends what.

mod flows;
mod label;
mod push;
mod server;
mod status;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::histogram::{Histogram, exponential_buckets},
    registry::{Registry, Unit},
};

pub(crate) use self::{flows::FlowCounts, push::bring, server::Server};
use crate::control::server::StatusSource;

/// How long changes of what is to be enforced took.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    compile: Histogram,
    apply: Histogram,
}

impl Default for Latencies {
    fn default() -> Self {
        // From 0.5 ms to 16 s.
        let new = || Histogram::new(exponential_buckets(0.0005, 2.0, 16));
        Self {
            compile: new(),
            apply: new(),
        }
    }
}

impl Latencies {
    /// A change that has come into force.
    pub(crate) fn took(&self, compiling: Duration, applying: Duration) {
        self.compile.observe(compiling.as_secs_f64());
        self.apply.observe(applying.as_secs_f64());
    }
}

/// All that is scraped.
pub(crate) fn registry(
    source: Arc<dyn StatusSource>,
    flows: Arc<FlowCounts>,
    latencies: &Latencies,
) -> Registry {
    let mut registry = Registry::with_prefix("ringfence");
    registry.register_with_unit(
        "compile",
        "From a change of what is to be enforced to tables that say so",
        Unit::Seconds,
        latencies.compile.clone(),
    );
    registry.register_with_unit(
        "apply",
        "From there until the kernel has them",
        Unit::Seconds,
        latencies.apply.clone(),
    );
    registry.register_collector(Box::new(flows));
    registry.register_collector(Box::new(status::Numbers(source)));
    registry
}

#[cfg(test)]
mod tests;
