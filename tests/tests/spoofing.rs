//! An endpoint that sends from an address of its neighbour.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_common::flow::tcp::SYN;
use agent_common::testing::PacketBuilder;
use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::Value;

const STRANGER: &str = "shop/stranger";
const REASON: &str = "spoofed-source";
/// Others of a kind are summed up every 10 s.
const SUMMED_UP: Duration = Duration::from_secs(20);

/// What the friend may send to the server, from the stranger's interface: both families, each protocol.
fn forged(scene: &Scene) -> Result<Vec<PacketBuilder>> {
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = scene;
    let [v4, v6] = stranger.packets_as(friend, server)?;
    let [echo_v4, echo_v6] = [v4.clone().icmp(8, 0, 7), v6.clone().icmp(128, 0, 7)];
    let ported = [v4, v6].into_iter().flat_map(|packet| {
        let tcp = packet.clone().tcp(40_000, PORT, SYN);
        [tcp, packet.udp(40_000, PORT)]
    });
    Ok(ported.chain([echo_v4, echo_v6]).collect())
}

/// Records and packets of each kind of denied packet: its protocol, whom it was for, and the port.
fn denied(agent: &Agent) -> Result<BTreeMap<[String; 3], (usize, u64)>> {
    let mut kinds = BTreeMap::new();
    for record in agent.flows(1000)? {
        if record["endpoint"] != STRANGER || record["kind"] != "deny" {
            continue;
        }
        ensure!(record["drop_reason"] == REASON, "{record:#}");
        let said = |value: &Value| value.to_string();
        let kind = [
            said(&record["protocol"]),
            said(&record["dst"]["ip"]),
            said(&record["dst"]["port"]),
        ];
        let (records, packets) = kinds.entry(kind).or_insert((0, 0));
        *records += 1;
        *packets += record["forward"]["packets"].as_u64().unwrap_or(0);
    }
    Ok(kinds)
}

fn is_denied(agent: &Agent, kinds: usize, each: (usize, u64)) -> Result<()> {
    let is_told = || {
        let denied = denied(agent);
        denied
            .is_ok_and(|denied| denied.len() == kinds && denied.values().all(|seen| *seen == each))
    };
    ensure!(
        eventually(SUMMED_UP, is_told),
        "{kinds} kinds of {each:?} expected: {:#?}",
        denied(agent)?
    );
    Ok(())
}

#[test]
fn nobody_speaks_in_the_name_of_a_friend() -> Result<()> {
    let policy = FRIEND_ONLY.replace(
        "      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]\n",
        "",
    );
    let scene = Scene::with(&policy)?;
    let forged = forged(&scene)?;
    let arrived = scene.stranger.gets_through(&scene.server, &forged)?;
    ensure!(!arrived.contains(&false), "no agent: {arrived:?}");

    let agent = scene.enforced()?;
    let arrived = scene.stranger.gets_through(&scene.server, &forged)?;
    ensure!(!arrived.contains(&true), "{arrived:?}");
    agent.has_dropped_at(STRANGER, REASON, forged.len())?;
    is_denied(&agent, forged.len(), (1, 1))?;
    // Once more and again: each is counted, and they are told as one.
    for _ in 0..2 {
        scene.stranger.gets_through(&scene.server, &forged)?;
    }
    agent.has_dropped_at(STRANGER, REASON, 3 * forged.len())?;
    is_denied(&agent, forged.len(), (2, 3))?;
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(protocol, to)?;
        }
    }
    agent.has_dropped_at("shop/friend", REASON, 0)
}
