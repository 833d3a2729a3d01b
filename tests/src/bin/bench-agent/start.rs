//! From the start of the process to the line that says that it enforces.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::report::Report;

use crate::MEMORY;
use crate::load::Ground;
use crate::log;

/// Leaves the last agent running.
pub(crate) fn measure(ground: &Ground, times: usize, report: &mut Report) -> Result<Agent> {
    let mut agent = ground.agent()?;
    let (mut fresh, mut again, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let begin = Instant::now();
        agent.start()?;
        fresh.push(begin.elapsed());
        let first = log::in_force(&agent)?;
        let first = first.first().context("nothing is in force")?;
        ensure!(first.prefixes > 100_000, "only {} prefixes", first.prefixes);
        let prefixes = u32::try_from(first.prefixes)?;
        rates.push(f64::from(prefixes) / first.applying.as_secs_f64());
        if fresh.len() == 1 {
            report.memory("at first", MEMORY, &agent)?;
        }
        agent.terminate()?;
        let begin = Instant::now();
        agent.start()?;
        again.push(begin.elapsed());
        if fresh.len() < times {
            agent.terminate()?;
            agent.detach()?;
        }
    }
    report.times("start to enforcing, nothing there", "<= 2000", fresh);
    report.times("start to enforcing, tables there", "<= 2000", again);
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN);
    let figures = vec![("median", median)];
    report.figure("prefixes put into the kernel", "", "a second", figures);
    Ok(agent)
}
