//! Packet sockets of a root process in a pod: its frames are caught at its host side, however they left.

use std::time::Duration;

use agent_common::testing::PacketBuilder;
use anyhow::{Result, ensure};
use ringfence_lab::lab::Peer;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::patient;
use ringfence_lab::wire::{Wire, with_checksums};

/// What a permitted frame needs by far.
const PATIENCE: Duration = Duration::from_millis(800);
const SERVER: &str = "shop/server";

/// Datagrams to the server's port of both families.
fn datagrams(from: &Peer, to: &Peer) -> Result<Vec<PacketBuilder>> {
    let packets = from.packets_to(to)?;
    Ok(packets.map(|packet| packet.udp(20_000, PORT)).to_vec())
}

/// Which of them arrive, sent past the queueing discipline of the pod's interface and past whatever is there.
fn get_around(from: &Peer, to: &Peer) -> Result<Vec<bool>> {
    let datagrams = datagrams(from, to)?.into_iter();
    let frames: Vec<_> = datagrams
        .map(|packet| with_checksums(packet.frame()))
        .collect();
    let ear = to.within(|| Wire::everything("eth0"))?;
    let wire = from.within(|| Wire::open("eth0"))?;
    wire.bypass()?;
    for frame in &frames {
        wire.send(frame)?;
    }
    ear.hears_of(patient(PATIENCE), &frames)
}

#[test]
fn a_pod_gets_around_its_own_queue_and_around_no_policy() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    let arrived = get_around(stranger, server)?;
    ensure!(arrived == [true; 2], "no agent: {arrived:?}");
    let agent = scene.enforced()?;
    for (from, passes) in [(friend, true), (stranger, false)] {
        let arrived = get_around(from, server)?;
        ensure!(arrived == [passes; 2], "{}: {arrived:?}", from.role());
        let arrived = from.gets_through(server, &datagrams(from, server)?)?;
        ensure!(
            arrived == [passes; 2],
            "{}, queued: {arrived:?}",
            from.role()
        );
    }
    agent.has_dropped_at(SERVER, "default-deny", 4)
}
