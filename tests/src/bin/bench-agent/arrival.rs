//! From the moment that an interface is asked for to the line that says that it is attached.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use ringfence_lab::agent::Agent;
use ringfence_lab::report::Report;
use ringfence_lab::wait::eventually_some;

use crate::load::{Ground, LATE};
use crate::log::{self, Moment};

const SEEN: Duration = Duration::from_secs(10);

/// The kernel announces the interface some time after `ip` has been told, so each time is too long by
/// what `ip` and the kernel need.
pub(crate) fn measure(
    ground: &Ground,
    agent: &Agent,
    times: usize,
    report: &mut Report,
) -> Result<()> {
    let mut taken = Vec::new();
    for _ in 0..times {
        let before = attached(agent)?.len();
        // Waits for the line, so that the start of the program is no part of it.
        let mut command = Command::new("ip");
        command.args(["-batch", "-"]).stdin(Stdio::piped());
        let mut ip = ground.lab.host().spawn(&mut command)?;
        let mut stdin = ip.stdin.take().context("ip has no stdin")?;
        let asked = Moment::now();
        stdin.write_all(format!("link add {LATE} type veth peer name bench-far\n").as_bytes())?;
        drop(stdin);
        let moment = eventually_some(SEEN, || attached(agent).ok()?.get(before).copied());
        let moment = moment.context("it is not attached")?;
        ip.wait()?;
        taken.push(moment.since(asked));
        ground.lab.host().ip(&format!("link delete {LATE}"))?;
        let gone = agent.status_eventually(SEEN, |status| {
            let endpoints = status["endpoints"].as_array().into_iter().flatten();
            let mut endpoints = endpoints.filter(|endpoint| endpoint["spec"] == spec());
            endpoints.any(|endpoint| endpoint["state"] == "waiting")
        });
        anyhow::ensure!(gone, "it is not missed: {:#}", agent.status()?);
    }
    report.times("interface asked for to attached", "<= 10", taken);
    Ok(())
}

fn spec() -> String {
    format!("interface {LATE}")
}

fn attached(agent: &Agent) -> Result<Vec<Moment>> {
    let lines = log::lines(agent, "\"attached\"")?.into_iter();
    let ours = lines.filter(|(_, line)| line["endpoint"] == format!("bench/{LATE}"));
    Ok(ours.map(|(moment, _)| moment).collect())
}
