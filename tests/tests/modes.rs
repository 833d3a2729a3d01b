//! Policies in audit, and staged ones, decide nothing; what they would have done stands in the records.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::Peer;
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_AND_STRANGER, FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::{Value, json};

const RECORDED: Duration = Duration::from_secs(10);

/// The policy under another name, in a mode.
fn moded(policy: &str, name: &str, mode: &str) -> String {
    policy.replace(
        "name: server}",
        &format!("name: {name}, annotations: {{ringfence.io/mode: {mode}}}}}"),
    )
}

/// What the first records of flows from a peer to the server's port say beside the verdict.
fn would_be(agent: &Agent, from: &Peer, port: u16) -> Option<Vec<(Value, Value)>> {
    let source = format!("shop/{}", from.role());
    let named = |end: &Value| {
        let workload = &end["workload"];
        let said = |key: &str| workload[key].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", said("namespace"), said("name"))
    };
    let found: Vec<_> = agent
        .flows(10_000)
        .ok()?
        .into_iter()
        .filter(|record| record["kind"] == "start" || record["kind"] == "deny")
        .filter(|record| record["endpoint"] == "shop/server" && record["dst"]["port"] == port)
        .filter(|record| named(&record["src"]) == source)
        .map(|record| (record["verdict"].clone(), record["would_be"].clone()))
        .collect();
    (!found.is_empty()).then_some(found)
}

/// All of these records say this, and there are some.
fn all_say(agent: &Agent, from: &Peer, port: u16, expected: &(Value, Value)) -> Result<()> {
    let mut seen = None;
    let agree = eventually(RECORDED, || {
        seen = would_be(agent, from, port);
        let all = |records: &Vec<_>| records.iter().all(|record| record == expected);
        seen.as_ref().is_some_and(all)
    });
    ensure!(
        agree,
        "{} to {port}: {seen:?}, not {expected:?}",
        from.role()
    );
    Ok(())
}

fn counted(agent: &Agent, what: &str) -> Result<()> {
    let is_there = |status: &Value| status["would_be"][what].as_u64() > Some(0);
    ensure!(
        agent.status_eventually(RECORDED, is_there),
        "no {what} in {:#}",
        agent.status()?
    );
    Ok(())
}

#[test]
fn a_policy_in_audit_denies_nobody_and_says_whom_it_would_deny() -> Result<()> {
    let scene = Scene::with(&moded(FRIEND_ONLY, "server", "audit"))?;
    let agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(protocol, to)?;
            scene.stranger.reaches(protocol, to)?;
        }
    }
    let denied = json!([{"view": "audit", "verdict": "deny", "reason": "default-deny"}]);
    all_say(&agent, &scene.stranger, PORT, &(json!("allow"), denied))?;
    all_say(&agent, &scene.friend, PORT, &(json!("allow"), Value::Null))?;
    counted(&agent, "audit-deny")?;
    let table = agent.flow_table(1000)?;
    ensure!(
        table.contains("; audit would deny: default-deny"),
        "{table}"
    );
    Ok(())
}

#[test]
fn a_staged_policy_says_what_would_change_both_ways() -> Result<()> {
    // In place of the live one, it would be the stranger's port that is open, and another closed.
    let staged = moded(FRIEND_AND_STRANGER, "next", "staged");
    let scene = Scene::with(&format!("{FRIEND_ONLY}---{staged}"))?;
    let agent = scene.enforced()?;
    for to in scene.server.at(PORT) {
        scene.friend.reaches(Protocol::Tcp, to)?;
        scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    for to in scene.server.at(OTHER_PORT) {
        scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    all_say(&agent, &scene.friend, PORT, &(json!("allow"), Value::Null))?;
    all_say(
        &agent,
        &scene.stranger,
        OTHER_PORT,
        &(json!("deny"), Value::Null),
    )?;
    let records = would_be(&agent, &scene.stranger, PORT).unwrap_or_default();
    ensure!(
        !records.is_empty(),
        "the stranger was denied without a record"
    );
    for (verdict, would_be) in &records {
        let [told] = would_be.as_array().map(Vec::as_slice).unwrap_or_default() else {
            anyhow::bail!("{records:?}");
        };
        let is_told = *verdict == "deny"
            && told["view"] == "staged"
            && told["verdict"] == "allow"
            && told["policy"]["name"] == "next";
        ensure!(is_told, "{records:?}");
    }
    counted(&agent, "staged-allow")?;

    // Alone, it would deny whom nothing denies now; once enforced, it does.
    scene.policy(&moded(FRIEND_ONLY, "next", "staged"))?;
    let opened = eventually(RECORDED, || {
        scene
            .stranger
            .reaches(Protocol::Udp, scene.server.v4(PORT))
            .is_ok()
    });
    ensure!(opened, "a staged policy still isolates");
    counted(&agent, "staged-deny")?;
    scene.policy(FRIEND_ONLY)?;
    let closed = eventually(RECORDED, || {
        scene
            .stranger
            .is_dropped_to(Protocol::Udp, scene.server.v4(PORT))
            .is_ok()
    });
    ensure!(closed, "an enforced policy isolates nobody");
    Ok(())
}
