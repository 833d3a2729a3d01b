//! What the agent's processes take.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringfence_lab::report::Report;
use ringfence_lab::wait::always;

use crate::cluster::Cluster;

/// Kept small: the store and the compiled tables of 10,000 pods.
pub(crate) const MEMORY: &str = "resident <= 150";

/// Ticks of the clock that processes are billed by.
const TICKS: f64 = 100.0;

/// What was taken up to a moment.
pub(crate) struct Busy {
    at: Instant,
    cpu: f64,
}

pub(crate) fn at_rest(cluster: &Cluster, span: Duration, report: &mut Report) -> Result<()> {
    let before = begin(cluster)?;
    always(span, || true);
    end(cluster, &before, "at rest", report)
}

pub(crate) fn begin(cluster: &Cluster) -> Result<Busy> {
    Ok(Busy {
        at: Instant::now(),
        cpu: spent(cluster)?,
    })
}

pub(crate) fn end(cluster: &Cluster, before: &Busy, when: &str, report: &mut Report) -> Result<()> {
    let share = (spent(cluster)? - before.cpu) / before.at.elapsed().as_secs_f64();
    let figures = vec![("of one", share * 100.0)];
    report.figure(&format!("processor {when}"), "", "%", figures);
    Ok(())
}

/// Seconds of a processor, with those of the helper.
fn spent(cluster: &Cluster) -> Result<f64> {
    let agent = cluster.agent.process().context("the agent does not run")?;
    let mut ticks = 0;
    for entry in fs::read_dir("/proc")? {
        let stat = fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        let Some((head, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let process: Option<u32> = head.split(' ').next().and_then(|text| text.parse().ok());
        let fields: Vec<&str> = rest.split(' ').collect();
        let number = |at: usize| -> Option<u32> { fields.get(at)?.parse().ok() };
        // From the state on: its parent is next, and what it took in its own code and in the kernel come 11th.
        if process == Some(agent) || number(1) == Some(agent) {
            ticks += number(11).unwrap_or_default() + number(12).unwrap_or_default();
        }
    }
    Ok(f64::from(ticks) / TICKS)
}
