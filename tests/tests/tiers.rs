//! Ranked policies on a real kernel: they deny, end with nobody there, and are named in records.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_policy::model::Time;
use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::group_scene::{GroupScene, WITH_FRIEND};
use ringfence_lab::lab::Peer;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::puppet::Puppet;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::{eventually, slowness};
use serde_json::Value;

/// How long a changed file may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(5);
/// Times hold to within this: whole seconds, and a wall clock that drifts.
const PUNCTUAL: Duration = Duration::from_secs(2);

/// RFC 3339, in so many seconds.
fn in_seconds(seconds: i64) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Time::from_unix(i64::try_from(now)? + seconds).to_string())
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: ringfence.io/v1alpha1\nkind: RingfencePolicy\n\
         metadata: {{name: {name}}}\nspec:\n  {}\n",
        spec.trim().replace('\n', "\n  ")
    )
}

fn ends_at(scene: &Scene) -> SocketAddr {
    scene.server.v4(PORT)
}

fn is_denied(scene: &Scene, from: &Peer) -> bool {
    from.probe(Protocol::Tcp, ends_at(scene)) != Outcome::Allowed
}

const SERVER: &str = "subject: {workloads: {selector: {matchLabels: {app: server}}}}";
const FROM_FRIEND: &str = "from: [{workloads: {selector: {matchLabels: {app: friend}}}}]";

fn deny_the_friend(mode: &str) -> String {
    policy(
        "no-friends",
        &format!(
            "tier: Admin\npriority: 7\nmode: {mode}\n{SERVER}\n\
             reason: ticket 4711\napprovedBy: jane@example.org\nowner: team-db\n\
             ingress:\n- name: enemies\n  action: Deny\n  {FROM_FRIEND}"
        ),
    )
}

/// Records of denied packets by a rule, newest last.
fn denials(agent: &Agent) -> Result<Vec<Value>> {
    let mut records = agent.flows(200)?;
    records.retain(|record| record["drop_reason"] == "deny-rule");
    Ok(records)
}

#[test]
fn an_admin_denial_beats_a_permission_and_is_named_in_the_record() -> Result<()> {
    let scene = Scene::with(&format!("{FRIEND_ONLY}{}", deny_the_friend("enforce")))?;
    let agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in [scene.server.v4(PORT), scene.server.v6(PORT)] {
            scene.friend.is_dropped_to(protocol, to)?;
        }
    }
    let told = eventually(IN_FORCE, || {
        denials(&agent).is_ok_and(|all| !all.is_empty())
    });
    ensure!(told, "no record names a rule that denies:\n{}", agent.log());
    let record = denials(&agent)?.pop().context("it was there")?;
    let expected = [
        ("kind", "RingfencePolicy"),
        ("tier", "Admin"),
        ("name", "no-friends"),
        ("rule", "ingress[0]"),
        ("rule_name", "enemies"),
        ("reason", "ticket 4711"),
        ("approved_by", "jane@example.org"),
        ("owner", "team-db"),
    ];
    for (key, value) in expected {
        ensure!(record["policy"][key] == value, "{key}: {record:#}");
    }
    ensure!(record["default_deny"] == false, "{record:#}");
    let status = agent.status()?;
    let counted = &status["policies"];
    ensure!(
        counted["NetworkPolicy"] == 1 && counted["RingfencePolicy"] == 1,
        "{counted}"
    );
    Ok(())
}

#[test]
fn a_policy_in_audit_changes_nothing() -> Result<()> {
    for mode in ["audit", "staged"] {
        let scene = Scene::with(&format!("{FRIEND_ONLY}{}", deny_the_friend(mode)))?;
        let agent = scene.enforced()?;
        let stream = scene.friend.stream(ends_at(&scene))?;
        for protocol in Protocol::ALL {
            scene.friend.reaches(protocol, scene.server.v6(PORT))?;
            scene
                .stranger
                .is_dropped_to(protocol, scene.server.v4(PORT))?;
        }
        stream.advances()?;
        stream.finish().unbroken()?;
        let denied = denials(&agent)?;
        ensure!(denied.is_empty(), "{mode}: {denied:?}");
    }
    Ok(())
}

#[test]
fn a_quarantine_cuts_everything_and_ends_with_nobody_there() -> Result<()> {
    const LASTS: i64 = 8;
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let host = scene.lab.host();
    let to = ends_at(&scene);
    let out = scene.friend.v4(PORT);
    scene.friend.reaches(Protocol::Tcp, to)?;
    host.reaches(Protocol::Tcp, to)?;
    scene.server.reaches(Protocol::Tcp, out)?;

    let expires = in_seconds(LASTS * i64::from(slowness()))?;
    let quarantine = policy(
        "infected",
        &format!("tier: Quarantine\n{SERVER}\nwhen: {{expires: {expires:?}}}"),
    );
    scene.policy(&format!("{FRIEND_ONLY}{quarantine}"))?;
    let cut = eventually(IN_FORCE, || is_denied(&scene, &scene.friend));
    ensure!(cut, "the quarantine is not in force:\n{}", agent.log());
    // It is in force a moment before it is shown.
    let is_told = |status: &Value| status["next_change"] == expires.as_str();
    let told = agent.status_eventually(IN_FORCE, is_told);
    ensure!(told, "no end of it in the status:\n{}", agent.status()?);
    agent.kill()?;
    host.is_dropped_to(Protocol::Tcp, to)
        .context("a probe of its own node")?;
    scene.server.is_dropped_to(Protocol::Udp, out)?;

    let deadline = Duration::from_secs(u64::try_from(LASTS)?) + PUNCTUAL;
    let over = eventually(deadline, || {
        scene.friend.probe(Protocol::Tcp, to) == Outcome::Allowed
    });
    ensure!(over, "the quarantine does not end without an agent");
    host.reaches(Protocol::Tcp, to)?;
    scene.server.reaches(Protocol::Tcp, out)?;
    scene.stranger.is_dropped_to(Protocol::Tcp, to)
}

#[test]
fn a_permission_that_expires_ends_new_and_live_connections_with_nobody_there() -> Result<()> {
    const LASTS: i64 = 4;
    let permission = |expires: &str| {
        policy(
            "for-a-while",
            &format!(
                "tier: Admin\npriority: 7\n{SERVER}\nwhen: {{expires: {expires:?}}}\n\
                 ingress:\n- action: Allow\n  from: [{{workloads: {{selector: {{matchLabels: {{app: \
                 stranger}}}}}}}}]\n  ports: [{{tcp: {{port: 8080}}}}]"
            ),
        )
    };
    let scene = Scene::with(FRIEND_ONLY)?;
    let mut agent = scene.enforced()?;
    let to = ends_at(&scene);
    let expires = in_seconds(LASTS * i64::from(slowness()))?;
    scene.policy(&format!("{FRIEND_ONLY}{}", permission(&expires)))?;
    let open = eventually(IN_FORCE, || {
        scene.stranger.probe(Protocol::Tcp, to) == Outcome::Allowed
    });
    ensure!(open, "the permission is not in force:\n{}", agent.log());
    let live = scene.stranger.stream(to)?;
    let spared = scene.friend.stream(to)?;
    live.advances()?;
    agent.kill()?;

    let deadline = Duration::from_secs(u64::try_from(LASTS)?) + PUNCTUAL;
    let over = eventually(deadline, || is_denied(&scene, &scene.stranger));
    ensure!(over, "the permission does not end without an agent");
    scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    ensure!(live.advances().is_err(), "a live connection goes on");
    spared.advances()?;
    spared.finish().unbroken()
}

#[test]
fn a_restart_rewrites_no_table_that_is_timed() -> Result<()> {
    let later = in_seconds(3600)?;
    let timed = policy(
        "later",
        &format!(
            "tier: Admin\npriority: 7\n{SERVER}\nwhen: {{notBefore: {later:?}}}\n\
             ingress:\n- action: Deny"
        ),
    );
    let scene = Scene::with(&format!("{FRIEND_ONLY}{timed}"))?;
    let mut agent = scene.enforced()?;
    let before = agent.status()?["generation"].clone();
    for _ in 0..3 {
        agent.terminate()?;
        // Not on the same part of a second each time.
        sleep(Duration::from_millis(330));
        agent.start()?;
        let now = agent.status()?;
        ensure!(now["generation"] == before, "from {before} on: {now:#}");
        ensure!(now["next_change"] == later.as_str(), "{now:#}");
    }
    scene.friend.reaches(Protocol::Tcp, ends_at(&scene))
}

/// The same of a service in a group, when its sockets know their flows and no table is asked.
#[test]
fn a_permission_of_a_group_that_expires_ends_what_sockets_know_with_nobody_there() -> Result<()> {
    const LASTS: i64 = 8;
    // More exchanges than it takes until a socket knows its flow.
    const MANY: u32 = 40;
    let permission = |expires: &str| {
        policy(
            "for-a-while",
            &format!(
                "tier: Admin\npriority: 7\nsubject: {{workloads: {{selector: {{matchLabels: {{app: \
                 service}}}}}}}}\nwhen: {{expires: {expires:?}}}\negress:\n- action: Allow\n  \
                 to: [{{workloads: {{selector: {{matchLabels: {{app: stranger}}}}}}}}]"
            ),
        )
    };
    let mut scene = GroupScene::new(Path::new(env!("CARGO_BIN_EXE_lab-peer")))?;
    let expires = in_seconds(LASTS * i64::from(slowness()))?;
    scene.policy(&format!("{WITH_FRIEND}{}", permission(&expires)))?;
    let reaches = |scene: &GroupScene| {
        let seen = scene
            .group
            .probe(scene.lab.host(), Protocol::Tcp, scene.stranger.v4(PORT));
        seen.is_ok_and(|seen| seen == Outcome::Allowed)
    };
    let open = eventually(IN_FORCE, || reaches(&scene));
    ensure!(
        open,
        "the permission is not in force:\n{}",
        scene.agent.log()
    );
    let mut live = Vec::new();
    for protocol in Protocol::ALL {
        for (to, is_spared) in scene.peers(PORT) {
            let puppet = Puppet::inside(&scene.group, scene.lab.host())?;
            puppet.makes(protocol, to)?;
            for seen in [
                puppet.connects(protocol, to)?,
                puppet.echoes(protocol, MANY)?,
            ] {
                ensure!(seen == Outcome::Allowed, "{protocol} {to}: {seen}");
            }
            live.push((puppet, protocol, to, is_spared));
        }
    }
    scene.agent.kill()?;

    let deadline = Duration::from_secs(u64::try_from(LASTS)?) + PUNCTUAL;
    let over = eventually(deadline, || !reaches(&scene));
    ensure!(over, "the permission does not end without an agent");
    for (puppet, protocol, to, is_spared) in live {
        let seen = puppet.echoes(protocol, MANY)?;
        let goes_on = seen == Outcome::Allowed;
        ensure!(goes_on == is_spared, "{protocol} {to}: {seen}");
    }
    Ok(())
}
