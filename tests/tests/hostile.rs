//! An endpoint that opens all flows it can, or tries all ports, harms nobody else.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Netns, Wiring};
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::eventually;
use serde_json::Value;

/// Room for flows of each family, and many times as many that the hostile one opens.
const FLOWS: u64 = 300;
const OPENED: u64 = 6000;
/// Datagrams to a port that policy denies, each of its own kind.
const DENIED: u64 = 60_000;
/// Connections of somebody else, meanwhile.
const CONNECTIONS: usize = 150;
const SWEPT: Duration = Duration::from_secs(20);

/// Sends a byte to each port above the well-known ones in turn, from one socket; how many it sent.
fn spray(from: &Netns, to: IpAddr, number: u64, stop: &AtomicBool) -> Result<u64> {
    from.within(|| {
        let any: IpAddr = if to.is_ipv4() {
            [0; 4].into()
        } else {
            [0_u16; 8].into()
        };
        let socket = UdpSocket::bind((any, 0))?;
        let mut sent = 0;
        for port in (10_000..=u16::MAX).cycle() {
            if sent == number || stop.load(Ordering::Relaxed) {
                break;
            }
            match socket.send_to(b"x", SocketAddr::new(to, port)) {
                Ok(_) => sent += 1,
                // What was sent before has been answered: there is nobody.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    })
}

/// Lets the stranger spray while the friend connects to the server, over and over.
fn harms_nobody(scene: &Scene, to: IpAddr, number: u64) -> Result<()> {
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let hostile = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let more = spray(&scene.stranger, to, number, &stop)?;
                sent.fetch_add(more, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        let tried = (|| {
            let under_way = eventually(SWEPT, || {
                sent.load(Ordering::Relaxed) >= number || hostile.is_finished()
            });
            ensure!(under_way, "the hostile one is too slow");
            for _ in 0..CONNECTIONS {
                for to in scene.server.at(PORT) {
                    scene.friend.reaches(Protocol::Tcp, to)?;
                }
            }
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        let sprayed = hostile.join().ok().context("the hostile one panicked")?;
        tried.and(sprayed)
    })
}

fn small(scene: &Scene) -> Result<Agent> {
    let config = format!("capacities: {{flows: {FLOWS}}}\n");
    let config = scene.lab.write("config.yaml", &config)?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &config.display().to_string()]);
    agent.start()?;
    Ok(agent)
}

fn table<'s>(status: &'s Value, name: &str) -> Option<&'s Value> {
    let tables = status["tables"].as_array()?;
    tables.iter().find(|table| table["name"] == name)
}

#[test]
fn whoever_fills_the_flow_table_leaves_room_for_others() -> Result<()> {
    let scene = Scene::wired(Wiring::Routed, FRIEND_ONLY)?;
    let agent = small(&scene)?;
    for to in scene.lab.host_addresses() {
        harms_nobody(&scene, to, OPENED)?;
    }
    // It has what is its due, and no more; the rest is counted, and a record says so.
    let due = |used: u64| used > FLOWS / 2 && used < FLOWS;
    let is_shown = agent.status_eventually(SWEPT, |status| {
        let used = |name| table(status, name)?["used"].as_u64();
        let is_due = ["flows_v4", "flows_v6"].map(|name| used(name).is_some_and(due));
        is_due == [true; 2] && status["unremembered"].as_u64() > Some(OPENED)
    });
    ensure!(is_shown, "{:#}", agent.status()?);
    let is_recorded = eventually(SWEPT, || {
        let records = agent.flows(100_000).unwrap_or_default();
        records.iter().any(|record| record["stage"] == "flow-table")
    });
    ensure!(is_recorded, "no record says that flows were not remembered");
    Ok(())
}

#[test]
fn whoever_tries_all_ports_keeps_nobody_from_connecting() -> Result<()> {
    let scene = Scene::wired(Wiring::Routed, FRIEND_ONLY)?;
    let agent = small(&scene)?;
    for to in scene.server.addresses() {
        harms_nobody(&scene, to, DENIED)?;
    }
    // Denied flows take no room: what the table holds is the friend's, at the friend and at the server.
    let status = agent.status()?;
    let denied = status["drops"]["default-deny"].as_u64();
    ensure!(denied >= Some(2 * DENIED), "{status:#}");
    for to in scene.server.at(OTHER_PORT) {
        scene.friend.is_dropped_to(Protocol::Udp, to)?;
    }
    Ok(())
}
