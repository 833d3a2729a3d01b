//! Workloads that come after the agent, go, and come back.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Lab, Peer};
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, PORT};
use ringfence_lab::wait::eventually;

/// How long an agent may take to find and hold a new interface.
const HELD: Duration = Duration::from_secs(10);

fn held(server: &Peer, friend: &Peer, stranger: &Peer) -> Result<()> {
    let _service = server.serve_tcp(PORT)?;
    for to in server.at(PORT) {
        let dropped = eventually(HELD, || stranger.tcp(to) == Outcome::TimedOut);
        ensure!(dropped, "the stranger reaches {to}");
        friend.reaches(Protocol::Tcp, to)?;
    }
    Ok(())
}

fn inventory(lab: &Lab, peers: [&Peer; 3]) -> Result<()> {
    let inventory = peers.map(|peer| manifest::interface(peer, "shop", &[("app", peer.role())]));
    lab.write("policies/inventory.yaml", &inventory.concat())?;
    lab.write("policies/policy.yaml", FRIEND_ONLY).map(|_| ())
}

#[test]
fn an_interface_that_appears_later_is_held_then() -> Result<()> {
    let lab = Lab::bridged()?;
    let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
    let server = lab.peer("server", 2)?;
    inventory(&lab, [&server, &friend, &stranger])?;
    drop(server);
    let agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
    let named = agent.status_eventually(HELD, |status| status.to_string().contains("veth-server"));
    ensure!(
        named,
        "status does not name the interface that is missing: {:?}",
        agent.status()
    );
    held(&lab.peer("server", 2)?, &friend, &stranger)
}

#[test]
fn an_interface_that_comes_back_is_held_again() -> Result<()> {
    let lab = Lab::bridged()?;
    let (friend, stranger) = (lab.peer("friend", 3)?, lab.peer("stranger", 4)?);
    let server = lab.peer("server", 2)?;
    inventory(&lab, [&server, &friend, &stranger])?;
    let mut agent = Agent::enforcing(&lab, &[&lab.folder().join("policies")])?;
    held(&server, &friend, &stranger)?;
    drop(server);
    for _ in 0..2 {
        let server = lab.peer("server", 2)?;
        held(&server, &friend, &stranger)?;
    }
    ensure!(agent.is_running(), "{}", agent.log());
    Ok(())
}
