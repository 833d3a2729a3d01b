//! Programs of others that run before ours in an interface's chain may end it: `status` says so.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::scene::{FRIEND_ONLY, Scene};
use serde_json::Value;

const SHOWN: Duration = Duration::from_secs(20);

/// How many endpoints have somebody before them.
fn preceded(status: &Value) -> usize {
    let endpoints = status["endpoints"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let texts = endpoints
        .iter()
        .map(|endpoint| endpoint["unjudged"].to_string());
    texts
        .filter(|text| text.contains("programs of others"))
        .count()
}

/// The other one is a second agent, which knows as little of the first as anybody.
#[test]
fn who_runs_before_is_shown_while_it_does() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let first = scene.enforced()?;
    ensure!(preceded(&first.status()?) == 0, "{:#}", first.status()?);
    let mut second = Agent::prepare(&scene.lab, "second", &[&scene.policies()])?;
    second.start()?;
    // One of them runs first, by a rule of the kernel's for links and for filters.
    let is_told = first.status_eventually(SHOWN, |status| {
        let others = second.status().map(|status| preceded(&status));
        let mut told = [preceded(status), others.unwrap_or_default()];
        told.sort_unstable();
        told == [0, 3]
    });
    ensure!(is_told, "{:#}\n{:#}", first.status()?, second.status()?);
    second.terminate()?;
    second.detach()?;
    let is_alone = first.status_eventually(SHOWN, |status| preceded(status) == 0);
    ensure!(is_alone, "{:#}", first.status()?);
    Ok(())
}
