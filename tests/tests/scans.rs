//! Segments that are no begin of a connection, sent to find what is there: nothing of them is heard at the
//! server, and nothing comes back.

use std::time::Duration;

use agent_common::flow::tcp::{ACK, FIN, RST, SYN};
use agent_common::testing::PacketBuilder;
use anyhow::{Result, ensure};
use ringfence_lab::probe::Protocol;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::patient;
use ringfence_lab::wire::{Wire, with_checksums};

/// What a permitted frame needs by far.
const PATIENCE: Duration = Duration::from_millis(800);
/// Of TCP; the last one is of none.
const FLAGS: [u8; 5] = [ACK, RST, SYN | ACK, FIN, 0];
const PORTS: u16 = 1000;
/// Where the scan begins, so that an open port is among those that it asks.
const FIRST: u16 = PORT - PORTS / 2;

/// Whether a frame carries TCP.
fn is_tcp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(14 + 9) == Some(&6),
        Some([0x86, 0xdd]) => frame.get(14 + 6) == Some(&6),
        _ => false,
    }
}

/// With these flags to each port, over both families.
fn scan(packets: &[PacketBuilder], flags: u8, ports: u16) -> Vec<Vec<u8>> {
    let ports = FIRST..FIRST + ports;
    let segments = ports.flat_map(move |port| {
        let segment = move |packet: &PacketBuilder| packet.clone().tcp(40_000, port, flags);
        packets.iter().map(segment)
    });
    segments
        .map(|packet| with_checksums(packet.frame()))
        .collect()
}

/// Whether segments without a state are answered by a reset (RFC 9293, 3.10.7).
fn is_answered(flags: u8) -> bool {
    flags & RST == 0
}

#[test]
fn a_scan_finds_nothing() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Scene {
        server, stranger, ..
    } = &scene;
    let packets = stranger.packets_to(server)?;
    let ear = server.within(|| Wire::everything("eth0"))?;
    let back = stranger.within(|| Wire::everything("eth0"))?;
    let wire = stranger.within(|| Wire::open("eth0"))?;
    // What the server knows of the stranger, it could not ask for when it is held.
    for to in server.at(PORT) {
        stranger.reaches(Protocol::Tcp, to)?;
    }
    for flags in FLAGS {
        let frames = scan(&packets, flags, 1);
        frames.iter().try_for_each(|frame| wire.send(frame))?;
        let heard = ear.hears_of(patient(PATIENCE), &frames)?;
        ensure!(!heard.contains(&false), "no agent, {flags:#x}: {heard:?}");
        let is_reset = |frame: &[u8]| is_tcp(frame) && !frames.iter().any(|sent| sent == frame);
        if is_answered(flags) {
            ensure!(
                back.hears(patient(PATIENCE), is_reset)?,
                "{flags:#x}: no answer"
            );
        }
    }

    let agent = scene.enforced()?;
    let before = agent.dropped_at("shop/server", "default-deny")?;
    ensure!(before == 0, "{before} dropped before anything was sent");
    // What the two have said to each other until now is no matter of this.
    while ear.hears(PATIENCE, is_tcp)? {}
    while back.hears(PATIENCE, is_tcp)? {}
    let mut sent = Vec::new();
    for flags in FLAGS {
        sent.extend(scan(&packets, flags, PORTS));
    }
    for frame in &sent {
        wire.send(frame)?;
    }
    ensure!(
        !ear.hears(patient(PATIENCE), is_tcp)?,
        "the server hears it"
    );
    let is_answer = |frame: &[u8]| is_tcp(frame) && frame.get(..6) == sent[0].get(6..12);
    ensure!(!back.hears(patient(PATIENCE), is_answer)?, "it is answered");
    agent.has_dropped_at("shop/server", "default-deny", sent.len())?;
    for to in server.at(PORT) {
        scene.friend.reaches(Protocol::Tcp, to)?;
        stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    Ok(())
}
