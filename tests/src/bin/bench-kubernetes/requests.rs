//! The start, and what it asks of the API.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringfence_lab::report::Report;
use ringfence_lab::wait::always;
use serde_json::Value;

use crate::cluster::Cluster;

/// After so long everything is followed that there is.
const SETTLED: Duration = Duration::from_secs(5);

/// What the API has counted.
struct Counted {
    /// Requests that were answered, by their verbs.
    answered: BTreeMap<String, f64>,
    /// Watches that are open.
    watches: f64,
}

pub(crate) fn start(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let before = counted(cluster)?;
    let begun = Instant::now();
    cluster.enforce()?;
    let took = begun.elapsed().as_secs_f64();
    report.figure("start to enforcing", "", "s", vec![("once", took)]);
    always(SETTLED, || true);
    let after = counted(cluster)?;
    let asked = |verb: &str| {
        let of = |counted: &Counted| counted.answered.get(verb).copied().unwrap_or_default();
        of(&after) - of(&before)
    };
    let figures = vec![
        ("lists, by page", asked("LIST")),
        ("watches", after.watches - before.watches),
        ("created", asked("POST")),
    ];
    report.figure("requests of one agent that starts", "", "", figures);
    Ok(())
}

fn counted(cluster: &Cluster) -> Result<Counted> {
    let metrics = cluster
        .proxy
        .connect()?
        .must("GET", "/metrics", &Value::Null)?;
    let metrics = String::from_utf8(metrics.body).context("metrics are text")?;
    let mut counted = Counted {
        answered: BTreeMap::new(),
        watches: 0.0,
    };
    for line in metrics.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let verb = name.split("verb=\"").nth(1);
        let verb = verb.and_then(|rest| rest.split('"').next());
        let (Some(verb), Ok(value)) = (verb, value.parse::<f64>()) else {
            continue;
        };
        if name.starts_with("apiserver_request_total{") {
            *counted.answered.entry(verb.to_owned()).or_default() += value;
        } else if name.starts_with("apiserver_longrunning_gauge{") && verb == "WATCH" {
            counted.watches += value;
        }
    }
    Ok(counted)
}
