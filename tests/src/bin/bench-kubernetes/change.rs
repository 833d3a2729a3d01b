//! From the call of the API that creates, changes or deletes a policy to the first packet that is judged by it.

use std::time::{Duration, Instant};

use anyhow::Result;
use ringfence_lab::api_server::proxy::Answer;
use ringfence_lab::report::Report;
use ringfence_lab::wait::always;
use serde_json::Value;

use crate::cluster::{Cluster, policies, v4};
use crate::objects;
use crate::probe::Heard;

/// Those that policies open in turns.
const PORTS: [u16; 2] = [7000, 7001];
/// A peer's, measured at 30,000 pods.
const PEER: &str = "a peer at 30,000 pods: p50 9, p90 23, p99 317";
const PEER_SECONDS: &str = "a peer at 30,000 pods: p50 0.009, p90 0.023, p99 0.317";

#[derive(Default)]
struct Outcome {
    created: Vec<Duration>,
    changed: Vec<Duration>,
    deleted: Vec<Duration>,
    /// Of all of them, from the answer of the API.
    answered: Vec<Duration>,
    /// What the API took to answer.
    answering: Vec<Duration>,
}

pub(crate) fn measure(
    cluster: &Cluster,
    rounds: u32,
    when: &str,
    report: &mut Report,
) -> Result<()> {
    let outcome = changes(cluster, |round| round < rounds)?;
    outcome.tell(when, report);
    Ok(())
}

/// As many as there is time for.
pub(crate) fn until(
    cluster: &Cluster,
    span: Duration,
    when: &str,
    report: &mut Report,
) -> Result<()> {
    let begun = Instant::now();
    let outcome = changes(cluster, |_| begun.elapsed() < span)?;
    outcome.tell(when, report);
    Ok(())
}

fn changes(cluster: &Cluster, goes_on: impl Fn(u32) -> bool) -> Result<Outcome> {
    let heard = Heard::new();
    let [first, second] = PORTS;
    let mut runs = Vec::new();
    for port in PORTS {
        runs.push(heard.listen(&cluster.server, port)?);
        let (from, to) = (v4(&cluster.client)?, cluster.server.v4(port));
        runs.push(heard.send(&cluster.client, port.into(), from, to));
    }
    let mut calls = cluster.proxy.connect()?;
    let (all, path) = (policies(), policies() + "/change");
    let mut outcome = Outcome::default();
    let mut round = 0;
    while goes_on(round) {
        // Not in step with anything.
        let pause = || always(Duration::from_millis(u64::from(round * 7919 % 97)), || true);
        pause();
        heard.expect(first.into(), Instant::now());
        let made = calls.must("POST", &all, &objects::allow("change", &[first]))?;
        let opened = heard.opens(first.into())?;
        let took = outcome.since(&made, opened);
        outcome.created.push(took);
        pause();
        heard.expect(second.into(), Instant::now());
        let changed = calls.must("PATCH", &path, &objects::allow("change", &[second]))?;
        let opened = heard.opens(second.into())?;
        let took = outcome.since(&changed, opened);
        outcome.changed.push(took);
        pause();
        heard.expect(second.into(), Instant::now());
        let deleted = calls.must("DELETE", &path, &Value::Null)?;
        let closed = heard.closes(second.into())?;
        let took = outcome.since(&deleted, closed);
        outcome.deleted.push(took);
        round += 1;
    }
    Ok(outcome)
}

impl Outcome {
    /// How long after the call it was so.
    fn since(&mut self, call: &Answer, moment: Instant) -> Duration {
        let after = |earlier: Instant| moment.saturating_duration_since(earlier);
        self.answered.push(after(call.answered));
        self.answering
            .push(call.answered.saturating_duration_since(call.sent));
        after(call.sent)
    }

    fn tell(self, when: &str, report: &mut Report) {
        let Self {
            created,
            changed,
            deleted,
            answered,
            answering,
        } = self;
        let all = [created.as_slice(), &changed, &deleted].concat();
        let name = "policy_enforcement_latency_policy_creation_seconds";
        report.metric(&format!("{when}{name}"), PEER_SECONDS, created);
        report.times(&format!("{when}policy changed to enforced"), PEER, changed);
        report.times(&format!("{when}policy deleted to enforced"), PEER, deleted);
        report.times(&format!("{when}all three"), PEER, all);
        report.times(&format!("  {when}from the answer of the API"), "", answered);
        report.times(
            &format!("  {when}the answer of the API itself"),
            "",
            answering,
        );
    }
}
