//! What policy says holds for a workload known by its control group.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::cgroup::Cgroup;
use ringfence_lab::group_scene::{GroupScene, WITH_FRIEND};
use ringfence_lab::lab::Lab;
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{OTHER_PORT, PORT};

/// For a changed file to be in force, on a busy machine.
const ENDED: Duration = Duration::from_secs(10);
const HELPER: &str = env!("CARGO_BIN_EXE_lab-peer");

#[test]
fn what_a_group_may_reach_it_reaches_and_nothing_else() -> Result<()> {
    let host = GroupScene::new(Path::new(HELPER))?;
    let log = || host.agent.log();
    for protocol in Protocol::ALL {
        for to in host.friend.at(PORT) {
            let seen = host.group.probe(host.lab.host(), protocol, to)?;
            ensure!(
                seen == Outcome::Allowed,
                "friend {protocol} {to}: {seen}\n{}",
                log()
            );
        }
        for to in host
            .friend
            .at(OTHER_PORT)
            .into_iter()
            .chain(host.stranger.at(PORT))
        {
            // A sender in the group may be told: the kernel gives it EPERM for a datagram.
            let seen = host.group.probe(host.lab.host(), protocol, to)?;
            ensure!(
                seen != Outcome::Allowed,
                "{protocol} {to}: {seen}\n{}",
                log()
            );
            // The node's other processes are nobody's business.
            host.lab.host().reaches(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn who_may_reach_a_group_reaches_it_and_nobody_else() -> Result<()> {
    let host = GroupScene::new(Path::new(HELPER))?;
    for protocol in Protocol::ALL {
        for to in host.at(PORT) {
            host.friend.reaches(protocol, to)?;
            host.stranger.is_dropped_to(protocol, to)?;
        }
        for to in host.at(OTHER_PORT) {
            host.friend.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_connection_that_is_no_longer_permitted_ends_for_its_owner_and_the_others_go_on() -> Result<()>
{
    let host = GroupScene::new(Path::new(HELPER))?;
    let mut cut = Vec::new();
    for to in host.friend.at(PORT) {
        cut.push(host.group.hold(host.lab.host(), to)?);
    }
    // Of another process of the node, to the same address: nobody's business.
    let spared = host.lab.host().stream(host.friend.v4(PORT))?;
    let nobody = WITH_FRIEND.replace("app: friend", "app: nobody");
    host.policy(&nobody)?;
    for held in cut {
        let said = held.says(ENDED);
        ensure!(
            said.as_deref() == Some("ConnectionAborted"),
            "{said:?}\n{}",
            host.agent.log()
        );
    }
    spared.advances()?;
    spared.finish().unbroken()
}

#[test]
fn a_killed_agent_leaves_a_group_confined() -> Result<()> {
    let mut host = GroupScene::new(Path::new(HELPER))?;
    host.agent.kill()?;
    for to in host.at(PORT) {
        host.friend.reaches(Protocol::Tcp, to)?;
        host.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    Ok(())
}

#[test]
fn a_group_that_appears_later_is_confined_then() -> Result<()> {
    let lab = Lab::bridged()?;
    let stranger = lab.peer("stranger", 3)?;
    let _service = stranger.serve_tcp(PORT)?;
    let name = format!("{}-late", lab.prefix());
    let inventory = manifest::cgroup(&name, "host", "service", &[("app", "service")]);
    lab.write("policies/inventory.yaml", &inventory)?;
    lab.write("policies/policy.yaml", WITH_FRIEND)?;
    let _agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
    let group = Cgroup::create(&lab, "late", HELPER)?;
    let confined = ringfence_lab::wait::eventually(std::time::Duration::from_secs(10), || {
        group
            .probe(lab.host(), Protocol::Tcp, stranger.v4(PORT))
            .is_ok_and(|seen| seen != Outcome::Allowed)
    });
    ensure!(confined, "the group is not confined");
    Ok(())
}
