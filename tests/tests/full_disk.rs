//! The file system with the flow records and the state fills up, and has room again.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::manifest;
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_AND_STRANGER, FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
/// For what was refused to be tried again by itself.
const AGAIN: Duration = Duration::from_mins(1);
/// Connections of one turn: their records are more than a page, so that one is taken in part.
const CONNECTIONS: usize = 20;

/// A disk of 1 MiB in the place of an agent's folder, which its lab unmounts.
fn small_disk(scene: &Scene) -> Result<PathBuf> {
    let folder = scene.lab.folder().join("agent");
    fs::create_dir_all(&folder)?;
    mount(
        "tmpfs",
        &folder,
        "tmpfs",
        MountFlags::empty(),
        Some(c"size=1m"),
    )
    .context("cannot mount a tmpfs")?;
    Ok(folder)
}

/// Takes all the room that there is.
fn fill(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path)?;
    while file.write_all(&[0; 512]).is_ok() {}
    Ok(path)
}

/// The counters of the flow file.
fn counts(agent: &Agent) -> Result<Value> {
    let status = agent.status()?;
    let file = agent.flow_file().display().to_string();
    Ok(status["records"]["sinks"][file].clone())
}

fn count(agent: &Agent, what: &str) -> u64 {
    counts(agent).map_or(0, |counts| counts[what].as_u64().unwrap_or(0))
}

fn lost(agent: &Agent) -> u64 {
    count(agent, "lost")
}

/// The records of the file, each a line to its end.
fn records(agent: &Agent) -> Result<Vec<Value>> {
    let text = fs::read_to_string(agent.flow_file())?;
    ensure!(text.is_empty() || text.ends_with('\n'), "half a line");
    let parsed = text.lines().map(serde_json::from_str);
    let parsed: Result<Vec<Value>, _> = parsed.collect();
    parsed.context("not a record")
}

fn talk(scene: &Scene) -> Result<()> {
    for _ in 0..CONNECTIONS {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(Protocol::Tcp, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_costs_records_and_nothing_else() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let disk = small_disk(&scene)?;
    let late = scene.lab.peer("late", 9)?;
    let _served = late.serve_tcp(PORT)?;
    let agent = scene.enforced()?;
    talk(&scene)?;
    let is_written = || records(&agent).is_ok_and(|records| records.len() >= 2 * CONNECTIONS);
    ensure!(eventually(SOON, is_written), "{}", agent.log());

    let filler = fill(&disk)?;
    let lost_some = eventually(SOON, || talk(&scene).is_ok() && lost(&agent) > 0);
    ensure!(lost_some, "{:#}\n{}", counts(&agent)?, agent.log());
    records(&agent)?;
    let prober = scene.stranger.prober(Protocol::Udp, scene.server.v4(PORT));
    prober.makes(50)?;
    prober.finish_denied()?;

    // A policy that asks for no new number is put into force.
    scene.policy(FRIEND_AND_STRANGER)?;
    let at = scene.server.v6(PORT);
    let is_open = || scene.stranger.reaches(Protocol::Tcp, at).is_ok();
    ensure!(eventually(SOON, is_open), "{}", agent.log());

    // One that does is not: without its number on the disk, the next agent would give it another.
    let closed = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: late}
spec:
  podSelector: {matchLabels: {app: late}}
";
    let inventory = manifest::interface(&late, "shop", &[("app", "late")]);
    scene
        .lab
        .write("policies/late.yaml", &format!("{closed}{inventory}"))?;
    let is_told = |status: &Value| {
        let load = &status["last_load"];
        let errors = load["errors"].to_string();
        load["ok"] == false && errors.contains("endpoints.json") && errors.contains("No space")
    };
    let told = agent.status_eventually(SOON, is_told);
    ensure!(told, "{:#}\n{}", agent.status()?, agent.log());
    scene.friend.reaches(Protocol::Tcp, late.v4(PORT))?;
    ensure!(is_open(), "what was in force is not any more");
    for to in scene.server.at(PORT) {
        late.is_dropped_to(Protocol::Tcp, to)?;
    }
    records(&agent)?;

    // With room it goes on by itself, and says what is missing.
    fs::remove_file(filler)?;
    let is_mended = |status: &Value| status["last_load"]["ok"] == true;
    let mended = agent.status_eventually(AGAIN, is_mended);
    ensure!(mended, "{:#}\n{}", agent.status()?, agent.log());
    let is_closed = || {
        scene
            .friend
            .is_dropped_to(Protocol::Tcp, late.v4(PORT))
            .is_ok()
    };
    ensure!(eventually(SOON, is_closed), "{}", agent.log());
    let goes_on = eventually(SOON, || {
        let told = records(&agent).is_ok_and(|records| {
            let of_loss =
                |record: &Value| record["kind"] == "loss" && record["reason"] == "write-failed";
            let after = records.iter().skip_while(|record| !of_loss(record));
            after.count() > CONNECTIONS
        });
        told || talk(&scene).is_err()
    });
    ensure!(goes_on, "{:#?}", records(&agent)?);
    // To the line: what was seen is in the file, or was lost and is said to be.
    let adds_up = || {
        let records = records(&agent).unwrap_or_default();
        let of_loss = records
            .iter()
            .filter(|record| record["reason"] == "write-failed");
        let said: u64 = of_loss.filter_map(|record| record["count"].as_u64()).sum();
        let [seen, exported, lost] = ["seen", "exported", "lost"].map(|what| count(&agent, what));
        let flows = records.iter().filter(|record| record["kind"] != "loss");
        said == lost && seen == exported + lost && flows.count() as u64 == exported
    };
    ensure!(eventually(SOON, adds_up), "{:#}", counts(&agent)?);
    Ok(())
}
