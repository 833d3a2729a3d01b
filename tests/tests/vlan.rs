//! Frames with the tags of VLANs: the kernel takes the outer one off before any hook sees the frame, whether or
//! not it knows VLANs otherwise, and what is left looks like any packet.

use std::net::IpAddr;
use std::time::Duration;

use agent_common::testing::PacketBuilder;
use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Netns, Peer};
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::eventually;
use ringfence_lab::wire::{Wire, with_checksums};

const SOON: Duration = Duration::from_secs(10);
/// What a permitted frame needs by far.
const PATIENCE: Duration = Duration::from_millis(800);
const ETHERNET: usize = 14;
/// Types of tags (802.1Q, 802.1ad).
const CUSTOMER: u16 = 0x8100;
const PROVIDER: u16 = 0x88a8;
/// The highest priority, and no VLAN.
const PRIORITY: u16 = 7 << 13;

/// Tags from the outermost on, each as its type and what it says.
type Tags = &'static [(u16, u16)];

/// For another network, as they arrive at a hook or behind a first tag that is taken off.
const OF_A_VLAN: [Tags; 6] = [
    &[(CUSTOMER, 5)],
    &[(CUSTOMER, PRIORITY | 5)],
    &[(PROVIDER, 5)],
    &[(PROVIDER, 7), (CUSTOMER, 5)],
    &[(CUSTOMER, PRIORITY), (CUSTOMER, 5)],
    &[(PROVIDER, PRIORITY), (CUSTOMER, PRIORITY)],
];

/// Of no VLAN: to every receiver that is a packet like any other.
const WITH_A_PRIORITY: [Tags; 3] = [
    &[(CUSTOMER, PRIORITY)],
    &[(CUSTOMER, 0)],
    &[(PROVIDER, PRIORITY)],
];

/// A datagram from one to the other's port that friends may ask, behind these tags; `port` tells it from others.
fn tagged(from: &Peer, to: &Peer, port: u16, tags: Tags) -> Result<Vec<u8>> {
    let plain = match (from.addresses()[0], to.addresses()[0]) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::v4(from.octets(), to.octets()),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::v6(from.octets(), to.octets()),
        _ => anyhow::bail!("a peer has its addresses in one order"),
    };
    let plain = plain
        .udp(port, PORT)
        .with_link(from.link_address("eth0")?)
        .to_link(to.link_address("eth0")?);
    let mut frame = with_checksums(plain.payload(20).frame());
    let tags = tags.iter().flat_map(|(kind, says)| [*kind, *says]);
    let tags: Vec<u8> = tags.flat_map(u16::to_be_bytes).collect();
    frame.splice(ETHERNET - 2..ETHERNET - 2, tags);
    Ok(frame)
}

/// Whether a frame carries a datagram from this port, behind whichever tags are left of its.
fn is_from(frame: &[u8], port: u16) -> bool {
    let tags = frame.get(ETHERNET - 2..).unwrap_or_default().chunks(4);
    let left = tags
        .take_while(|tag| matches!(tag, [0x81, 0x00, ..] | [0x88, 0xa8, ..]))
        .count();
    let at = ETHERNET + 4 * left + 20;
    frame.get(at..at + 2) == Some(&port.to_be_bytes())
}

fn dropped(agent: &Agent, endpoint: &str, reason: &str) -> Result<u64> {
    let status = agent.status()?;
    let endpoints = status["endpoints"].as_array().into_iter().flatten();
    let found = endpoints
        .filter(|its| its["name"] == endpoint)
        .filter_map(|its| its["drops"][reason].as_u64());
    Ok(found.sum())
}

/// Whether what a peer sends to the server arrives there, frame by frame.
fn arrive(from: &Peer, to: &Peer, all: &[Tags]) -> Result<Vec<bool>> {
    let ear = listens(to)?;
    let mut arrived = Vec::new();
    for (tags, port) in all.iter().zip(20_000..) {
        let frame = tagged(from, to, port, tags)?;
        from.sends_frame("eth0", &frame)?;
        arrived.push(ear.hears(PATIENCE, |frame| is_from(frame, port))?);
    }
    Ok(arrived)
}

fn listens(at: &Netns) -> Result<Wire> {
    at.within(|| Wire::everything("eth0"))
}

#[test]
fn a_tag_is_no_way_past_policy() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    // Nobody's workload, on the same bridge.
    let guest = scene.lab.peer("guest", 9)?;
    for from in [friend, stranger, &guest] {
        for all in [&OF_A_VLAN[..], &WITH_A_PRIORITY] {
            let arrived = arrive(from, server, all)?;
            let name = from.role();
            ensure!(!arrived.contains(&false), "{name}, no agent: {arrived:?}");
        }
    }

    let agent = scene.enforced()?;
    // What comes from an endpoint, though policy permits the packet inside, and what goes to one.
    for (from, counted_at) in [
        (friend, "shop/friend"),
        (stranger, "shop/stranger"),
        (&guest, "shop/server"),
    ] {
        let arrived = arrive(from, server, &OF_A_VLAN)?;
        ensure!(!arrived.contains(&true), "{counted_at}: {arrived:?}");
        let all = u64::try_from(OF_A_VLAN.len())?;
        let is_counted = || dropped(&agent, counted_at, "not-ip").is_ok_and(|count| count == all);
        ensure!(eventually(SOON, is_counted), "{:#}", agent.status()?);
    }
    // A priority makes no difference.
    for (from, is_permitted) in [(friend, true), (stranger, false), (&guest, false)] {
        let arrived = arrive(from, server, &WITH_A_PRIORITY)?;
        let name = from.role();
        ensure!(arrived == [is_permitted; 3], "{name}: {arrived:?}");
    }
    let is_counted = || dropped(&agent, "shop/server", "default-deny").is_ok_and(|n| n == 6);
    ensure!(eventually(SOON, is_counted), "{:#}", agent.status()?);
    Ok(())
}
