//! The forms that a packet can have around the ports that policy asks for: options, extension headers, other
//! protocols, wrong versions, missing ends, pieces.

use std::path::Path;

use agent_common::flow::tcp::SYN;
use agent_common::protocol::{ICMP, ICMPV6, TCP};
use agent_common::testing::PacketBuilder;
use agent_common::testing::packet::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP, ROUTING};
use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Netns, Peer};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};

const SERVER: &str = "shop/server";
const FRIEND: &str = "shop/friend";
const ETHERNET: usize = 14;
const IPV4: usize = ETHERNET + 20;
const IPV6: usize = ETHERNET + 40;
/// Extension headers that are walked.
const WALKED: usize = 4;

/// A packet, and why it is dropped wherever it is for.
#[derive(Debug)]
struct Form {
    packet: PacketBuilder,
    dropped: Option<&'static str>,
}

fn sound(packet: PacketBuilder) -> Form {
    Form {
        packet,
        dropped: None,
    }
}

fn malformed(packet: PacketBuilder) -> Form {
    Form {
        packet,
        dropped: Some("malformed"),
    }
}

/// Each form of a packet to this port.
fn forms(from: &Peer, to: &Peer, port: u16) -> Result<Vec<Form>> {
    let [v4, v6] = from.packets_to(to)?;
    let mut own = 20_000..;
    // A port of its own tells it from the others.
    let mut udp = |packet: &PacketBuilder| {
        let from = own.next().unwrap_or_default();
        packet.clone().udp(from, port)
    };
    let mut forms = vec![
        sound(udp(&v4).options(1)),
        sound(udp(&v4).options(10)),
        // One piece that is all of its packet (RFC 6946).
        sound(udp(&v6).fragment(0, false)),
        // Of the other family than its frame says.
        malformed(udp(&v4).version_and_length(0x65)),
        malformed(udp(&v6).version_and_length(0x45)),
        malformed(udp(&v4).version_and_length(0x44)),
        malformed(udp(&v4).cut(ETHERNET)),
        malformed(udp(&v4).cut(IPV4 - 1)),
        malformed(udp(&v4).cut(IPV4 + 3)),
        malformed(udp(&v6).cut(IPV6 - 1)),
        malformed(udp(&v6).cut(IPV6 + 3)),
        malformed(udp(&v6).extension(HOP_BY_HOP, 0).cut(IPV6 + 1)),
        malformed(v4.clone().tcp(20_000, port, SYN).cut(IPV4 + 13)),
        malformed(v6.clone().tcp(20_000, port, SYN).cut(IPV6 + 13)),
    ];
    for kind in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION] {
        for count in 1..=WALKED + 1 {
            let packet = (0..count).fold(udp(&v6), |packet, _| packet.extension(kind, 1));
            forms.push(Form {
                packet,
                dropped: (count > WALKED).then_some("extension-header"),
            });
        }
    }
    Ok(forms)
}

/// Where packet filters look at what a bridge carries, they drop what is malformed before it arrives.
fn is_no_filter(host: &Netns) -> Result<()> {
    for key in [
        "bridge/bridge-nf-call-iptables",
        "bridge/bridge-nf-call-ip6tables",
    ] {
        let is_there = || Path::new("/proc/sys/net").join(key).exists();
        if host.within(is_there) {
            host.sysctl(key, "0")?;
        }
    }
    Ok(())
}

fn packets(forms: &[Form]) -> Vec<PacketBuilder> {
    forms.iter().map(|form| form.packet.clone()).collect()
}

fn are_counted(agent: &Agent, endpoint: &str, forms: &[Form], times: usize) -> Result<()> {
    for reason in ["malformed", "extension-header"] {
        let such = forms.iter().filter(|form| form.dropped == Some(reason));
        agent.has_dropped_at(endpoint, reason, such.count() * times)?;
    }
    Ok(())
}

#[test]
fn policy_finds_the_ports_behind_whatever_stands_before_them() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    is_no_filter(scene.lab.host())?;
    // Nobody's workload, whose packets are first seen where they arrive.
    let guest = scene.lab.peer("guest", 9)?;
    for from in [friend, stranger, &guest] {
        let arrived = from.gets_through(server, &packets(&forms(from, server, PORT)?))?;
        let name = from.role();
        ensure!(!arrived.contains(&false), "{name}, no agent: {arrived:?}");
    }

    let agent = scene.enforced()?;
    let permitted = forms(friend, server, PORT)?;
    let arrived = friend.gets_through(server, &packets(&permitted))?;
    for (form, arrived) in permitted.iter().zip(arrived) {
        ensure!(arrived == form.dropped.is_none(), "{form:?}: {arrived}");
    }
    are_counted(&agent, FRIEND, &permitted, 1)?;
    agent.has_dropped_at(SERVER, "default-deny", 0)?;

    let others = [(friend, OTHER_PORT), (stranger, PORT), (&guest, PORT)];
    for (from, port) in others {
        let denied = forms(from, server, port)?;
        let arrived = from.gets_through(server, &packets(&denied))?;
        ensure!(!arrived.contains(&true), "{}: {arrived:?}", from.role());
    }
    are_counted(&agent, FRIEND, &permitted, 2)?;
    are_counted(&agent, "shop/stranger", &permitted, 1)?;
    are_counted(&agent, SERVER, &permitted, 1)?;
    let sound = permitted.iter().filter(|form| form.dropped.is_none());
    agent.has_dropped_at(SERVER, "default-deny", sound.count() * others.len())
}

/// Packets that have no ports, or have them in another packet.
fn without_ports(from: &Peer, to: &Peer) -> Result<Vec<PacketBuilder>> {
    const IP_IN_IP: u8 = 4;
    const IPV6_IN_IP: u8 = 41;
    let [v4, v6] = from.packets_to(to)?;
    let inner = [&v4, &v6].map(|packet| packet.clone().udp(20_000, PORT).packet());
    let [inner_v4, inner_v6] = inner;
    // What a header with ports would be, was it one.
    let ports = v4.clone().udp(20_000, PORT).packet().split_off(20);
    let padded = |number: u8| [&[number, 1, 0, 0, 0, 0, 0, 0][..], &ports].concat();
    Ok(vec![
        v4.clone().protocol(0, ports.clone()),
        v4.clone().protocol(IP_IN_IP, inner_v4.clone()),
        v4.clone().protocol(IPV6_IN_IP, inner_v6.clone()),
        // No extension header of this family.
        v4.clone().protocol(AUTHENTICATION, padded(17)),
        v4.protocol(ICMPV6, padded(128)),
        v6.clone().protocol(IP_IN_IP, inner_v4),
        v6.clone().protocol(IPV6_IN_IP, inner_v6),
        v6.protocol(ICMP, padded(8)),
    ])
}

#[test]
fn another_protocol_needs_a_rule_of_its_own() -> Result<()> {
    let ports = "      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]\n";
    let any_port = FRIEND_ONLY.replace(ports, "");
    for (policy, passes) in [(FRIEND_ONLY, false), (any_port.as_str(), true)] {
        let scene = Scene::with(policy)?;
        let Scene {
            server,
            friend,
            stranger,
            ..
        } = &scene;
        let [permitted, denied] = [friend, stranger].map(|from| without_ports(from, server));
        let (permitted, denied) = (permitted?, denied?);
        let arrived = friend.gets_through(server, &permitted)?;
        ensure!(!arrived.contains(&false), "no agent: {arrived:?}");
        let agent = scene.enforced()?;
        let arrived = friend.gets_through(server, &permitted)?;
        ensure!(!arrived.contains(&!passes), "{passes}: {arrived:?}");
        let arrived = stranger.gets_through(server, &denied)?;
        ensure!(!arrived.contains(&true), "the stranger: {arrived:?}");
        let count = denied.len() + if passes { 0 } else { permitted.len() };
        agent.has_dropped_at(SERVER, "default-deny", count)?;
    }
    Ok(())
}

/// Pieces of packets in the order that they are sent in, and whether each arrives.
fn pieces(packet: &PacketBuilder, number: u16) -> Vec<(PacketBuilder, bool)> {
    let to = |port, number| {
        let packet = packet.clone().udp(20_000, port).payload(16);
        packet.numbered(number)
    };
    let tiny = packet
        .clone()
        .protocol(TCP, vec![0x4e, 0x20, 0x1f, 0x90, 0, 0, 0, 1]);
    vec![
        (to(PORT, number).fragment(0, true), true),
        // Over its end, with another port where no port is looked for.
        (to(OTHER_PORT, number).fragment(1, true), false),
        (to(OTHER_PORT, number).fragment(2, false), false),
        // In its place.
        (to(OTHER_PORT, number).fragment(0, true), false),
        // Behind what is permitted, whatever else was said of the same packet.
        (to(OTHER_PORT, number).fragment(3, false), true),
        // Behind nothing but what is denied.
        (to(OTHER_PORT, number + 1).fragment(0, true), false),
        (to(PORT, number + 1).fragment(3, false), false),
        // Behind nothing at all.
        (to(PORT, number + 2).fragment(3, false), false),
        // Whose flags would be in the next piece (RFC 1858).
        (tiny.numbered(number + 3).fragment(0, true), false),
    ]
}

#[test]
fn no_piece_replaces_what_the_first_one_said() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Scene { server, friend, .. } = &scene;
    let pieces: Vec<_> = friend
        .packets_to(server)?
        .iter()
        .flat_map(|packet| pieces(packet, 100))
        .collect();
    let (sent, passes): (Vec<_>, Vec<_>) = pieces.into_iter().unzip();
    let arrived = friend.gets_through(server, &sent)?;
    ensure!(!arrived.contains(&false), "no agent: {arrived:?}");

    let agent = scene.enforced()?;
    let arrived = friend.gets_through(server, &sent)?;
    ensure!(arrived == passes, "{arrived:?}, expected: {passes:?}");
    // Of each family. What its sender's hook lets pass may still follow nothing at the server's.
    agent.has_dropped_at(SERVER, "default-deny", 4)?;
    agent.has_dropped_at(FRIEND, "malformed", 2)?;
    agent.has_dropped_at(FRIEND, "fragment", 6)?;
    agent.has_dropped_at(SERVER, "fragment", 2)
}
