//! What the agent costs with a large cluster in the API: `cargo xtask bench kubernetes`.
//!
//! A real API server with 10,000 pods and 2,000 policies; the agent of one node, with pods of that node as kubelet would
//! make them. Measured are policies that are created, changed and deleted, from the call of the API to the first packet
//! that is judged by them; pods, from their creation until they are reached and isolated; and what the agent takes, at
//! rest and while 100 pods a second change.

mod change;
mod churn;
mod cluster;
mod cost;
mod elsewhere;
mod here;
mod objects;
mod probe;
mod requests;

use std::time::Duration;

use anyhow::Result;
use ringfence_lab::report::Report;

use crate::churn::Churn;
use crate::cluster::{Cluster, Size};

const SIZE: Size = Size {
    pods: 10_000,
    policies: 2_000,
    nodes: 100,
    namespaces: 100,
};
const SMALL: Size = Size {
    pods: 300,
    policies: 60,
    nodes: 10,
    namespaces: 10,
};

/// Pod changes a second.
const RATE: u32 = 100;

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let size = if quick { SMALL } else { SIZE };
    // A round is three changes.
    let (rounds, arrivals, own) = if quick { (5, 5, 2) } else { (170, 100, 25) };
    let span = Duration::from_secs(if quick { 3 } else { 30 });
    let mut report = Report::new("kubernetes");
    let mut cluster = Cluster::fill(size, &mut report)?;
    requests::start(&mut cluster, &mut report)?;
    report.memory("at first", cost::MEMORY, &cluster.agent)?;
    change::measure(&cluster, rounds, "", &mut report)?;
    elsewhere::measure(&cluster, arrivals, &mut report)?;
    here::measure(&cluster, own, &mut report)?;
    cost::at_rest(&cluster, span, &mut report)?;
    report.memory("at rest", cost::MEMORY, &cluster.agent)?;
    let churn = Churn::start(&cluster, RATE)?;
    let busy = cost::begin(&cluster)?;
    change::until(
        &cluster,
        span,
        "with 100 pod changes a second: ",
        &mut report,
    )?;
    cost::end(&cluster, &busy, "at 100 pod changes a second", &mut report)?;
    churn.stop(&mut report)?;
    report.memory(
        "after 100 pod changes a second",
        cost::MEMORY,
        &cluster.agent,
    )?;
    requests::restart(&mut cluster, &mut report)?;
    println!("{report}");
    report.write()
}
