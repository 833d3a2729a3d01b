//! Frames with the tags of VLANs: the kernel takes the outer one off before any hook sees the frame, whether or
//! not it knows VLANs otherwise, and what is left looks like any packet.

use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::lab::Peer;
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene};
use ringfence_lab::wait::patient;
use ringfence_lab::wire::{Wire, with_checksums};

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

/// What is behind the tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    V4,
    V6,
}

/// A datagram from one to the other's port that friends may ask, behind these tags; `port` tells it from others.
fn tagged(from: &Peer, to: &Peer, inside: Inside, port: u16, tags: Tags) -> Result<Vec<u8>> {
    let [v4, v6] = from.packets_to(to)?;
    let plain = match inside {
        Inside::V4 => v4,
        Inside::V6 => v6,
    };
    let mut frame = with_checksums(plain.udp(port, PORT).payload(20).frame());
    let tags = tags.iter().flat_map(|(kind, says)| [*kind, *says]);
    let tags: Vec<u8> = tags.flat_map(u16::to_be_bytes).collect();
    frame.splice(ETHERNET - 2..ETHERNET - 2, tags);
    Ok(frame)
}

/// Whether a frame carries a datagram from this port, behind whichever tags are left of its.
fn is_from(frame: &[u8], inside: Inside, port: u16) -> bool {
    let tags = frame.get(ETHERNET - 2..).unwrap_or_default().chunks(4);
    let left = tags
        .take_while(|tag| matches!(tag, [0x81, 0x00, ..] | [0x88, 0xa8, ..]))
        .count();
    let header = match inside {
        Inside::V4 => 20,
        Inside::V6 => 40,
    };
    let at = ETHERNET + 4 * left + header;
    frame.get(at..at + 2) == Some(&port.to_be_bytes())
}

/// Whether what a peer sends to the server arrives there, frame by frame, in both families.
fn arrive(from: &Peer, to: &Peer, all: &[Tags]) -> Result<Vec<bool>> {
    let ear = to.within(|| Wire::everything("eth0"))?;
    let wire = from.within(|| Wire::open("eth0"))?;
    let families = [Inside::V4, Inside::V6].into_iter();
    let all = families.flat_map(|inside| all.iter().map(move |tags| (inside, *tags)));
    let sent: Vec<_> = all.zip(20_000..).collect();
    for ((inside, tags), port) in &sent {
        wire.send(&tagged(from, to, *inside, *port, tags)?)?;
    }
    ear.hears_each(patient(PATIENCE), &sent, |((inside, _), port), frame| {
        is_from(frame, *inside, *port)
    })
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
        agent.has_dropped_at(counted_at, "not-ip", 2 * OF_A_VLAN.len())?;
    }
    // A priority makes no difference.
    for (from, is_permitted) in [(friend, true), (stranger, false), (&guest, false)] {
        let arrived = arrive(from, server, &WITH_A_PRIORITY)?;
        let name = from.role();
        ensure!(arrived == [is_permitted; 6], "{name}: {arrived:?}");
    }
    agent.has_dropped_at("shop/server", "default-deny", 12)
}
