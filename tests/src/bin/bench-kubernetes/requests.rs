//! The start, and what it asks of the API.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringfence_lab::api_server::proxy::Proxy;
use ringfence_lab::report::Report;
use ringfence_lab::wait::always;
use serde_json::Value;

use crate::cluster::Cluster;

/// After so long everything is followed again.
const RESUMED: Duration = Duration::from_secs(30);
/// After so long everything is followed that there is.
const SETTLED: Duration = Duration::from_secs(5);

/// What the API has counted.
pub(crate) struct Counted {
    /// Requests that were answered, by their verbs.
    answered: BTreeMap<String, f64>,
    /// Watches that are open.
    watches: f64,
}

/// What a server asks of itself, once it is up.
pub(crate) fn own(proxy: &Proxy) -> Result<Counted> {
    always(SETTLED, || true);
    counted(proxy)
}

/// The server is killed and comes again: what the agent asks of it then, beside what the server asks of itself.
pub(crate) fn restart(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let Cluster { api, lab, .. } = cluster;
    api.kill()?;
    api.resume(lab.host(), 6443)?;
    always(RESUMED, || true);
    let (own, now) = (&cluster.own, counted(&cluster.proxy)?);
    report.figure(
        "requests of one agent whose API starts again",
        "",
        "",
        now.since(own),
    );
    Ok(())
}

pub(crate) fn start(cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    let before = counted(&cluster.proxy)?;
    let begun = Instant::now();
    cluster.enforce()?;
    let took = begun.elapsed().as_secs_f64();
    report.figure("start to enforcing", "", "s", vec![("once", took)]);
    always(SETTLED, || true);
    let figures = counted(&cluster.proxy)?.since(&before);
    report.figure("requests of one agent that starts", "", "", figures);
    Ok(())
}

impl Counted {
    fn since(&self, before: &Self) -> Vec<(&'static str, f64)> {
        let asked = |verb: &str| {
            let of = |counted: &Self| counted.answered.get(verb).copied().unwrap_or_default();
            of(self) - of(before)
        };
        vec![
            ("lists, by page", asked("LIST")),
            ("watches", self.watches - before.watches),
            ("others", asked("GET") + asked("POST")),
        ]
    }
}

fn counted(proxy: &Proxy) -> Result<Counted> {
    let metrics = proxy.connect()?.must("GET", "/metrics", &Value::Null)?;
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
