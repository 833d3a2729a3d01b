//! Frames of which only the Ethernet header is where a program can see it: the kernel keeps the rest of a packet
//! socket's long ones in pages.

use agent_common::testing::PacketBuilder;
use agent_common::testing::packet::HOP_BY_HOP;
use anyhow::{Result, ensure};
use ringfence_lab::kernel::pin_only_linear;
use ringfence_lab::lab::Peer;
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};

const MTU: &str = "9000";
/// More than a page, by whatever a kernel has before and behind a frame.
const BYTES: usize = 5000;

fn jumbo(from: &Peer, to: &Peer, port: u16) -> Result<Vec<PacketBuilder>> {
    let [v4, v6] = from.packets_to(to)?;
    let extended = v6.clone().extension(HOP_BY_HOP, 0);
    let packets = [v4, v6, extended].into_iter();
    let packets = packets.map(|packet| packet.udp(20_000, port).payload(BYTES));
    Ok(packets.collect())
}

/// Every link of the scene carries so much.
fn widen(scene: &Scene) -> Result<()> {
    for peer in [&scene.server, &scene.friend, &scene.stranger] {
        peer.ip(&format!("link set eth0 mtu {MTU}\n"))?;
        let host_side = format!("link set {} mtu {MTU}\n", peer.interface());
        scene.lab.host().ip(&host_side)?;
    }
    scene.lab.host().ip(&format!("link set br0 mtu {MTU}\n"))
}

/// Nobody pulls the headers together between the sender and its interface's hook.
fn is_in_pages(scene: &Scene) -> Result<()> {
    let Scene {
        lab,
        server,
        friend,
        ..
    } = scene;
    let pin = lab.bpffs().join("only-linear");
    pin_only_linear(&pin)?;
    let (interface, pin) = (friend.interface(), pin.display().to_string());
    let tc = |words: &str| {
        let words: Vec<_> = words.split_whitespace().collect();
        lab.host().ask("tc", &words)
    };
    tc(&format!("qdisc add dev {interface} clsact"))?;
    tc(&format!(
        "filter add dev {interface} ingress bpf da object-pinned {pin}"
    ))?;
    let jumbo = jumbo(friend, server, PORT)?;
    let [short, _] = friend.packets_to(server)?;
    ensure!(friend.gets_through(server, &[short.udp(20_000, PORT)])? == [true]);
    let arrived = friend.gets_through(server, &jumbo)?;
    ensure!(!arrived.contains(&true), "they are linear: {arrived:?}");
    tc(&format!("qdisc del dev {interface} clsact"))?;
    Ok(())
}

#[test]
fn headers_in_pages_are_read_too() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = &scene;
    widen(&scene)?;
    is_in_pages(&scene)?;
    for from in [friend, stranger] {
        let arrived = from.gets_through(server, &jumbo(from, server, PORT)?)?;
        ensure!(!arrived.contains(&false), "no agent: {arrived:?}");
    }
    let agent = scene.enforced()?;
    for (from, port, passes) in [
        (friend, PORT, true),
        (friend, OTHER_PORT, false),
        (stranger, PORT, false),
    ] {
        let arrived = from.gets_through(server, &jumbo(from, server, port)?)?;
        ensure!(arrived == [passes; 3], "{}: {arrived:?}", from.role());
    }
    let forged = stranger.packets_as(friend, server)?;
    let forged = forged.map(|packet| packet.udp(20_000, PORT).payload(BYTES));
    let arrived = stranger.gets_through(server, &forged)?;
    ensure!(arrived == [false; 2], "forged: {arrived:?}");
    agent.has_dropped_at("shop/server", "default-deny", 6)?;
    agent.has_dropped_at("shop/stranger", "spoofed-source", 2)
}
