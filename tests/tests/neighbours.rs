//! What a root process behind an endpoint's interface forges below and beside IP.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::Duration;

use agent_common::testing::PacketBuilder;
use agent_common::testing::packet::HOP_BY_HOP;
use anyhow::{Context as _, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Netns, Peer, Wiring};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, PORT, Scene, TO_FRIEND_ONLY};
use ringfence_lab::wait::eventually;
use ringfence_lab::wire::with_checksums;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(10);
/// What a permitted frame needs by far.
const PATIENCE: Duration = Duration::from_millis(800);
const BROADCAST: [u8; 6] = [0xff; 6];
const LLDP: u16 = 0x88cc;
const REPLY: u16 = 2;
const REQUEST: u16 = 1;
const ADVERTISEMENT: u8 = 136;
const TARGET_LINK: u8 = 2;
/// Of an advertisement: it takes the place of what was known (RFC 4861, 4.4).
const OVERRIDE: [u8; 1] = [0x20];

fn v4(peer: &Peer) -> Result<[u8; 4]> {
    match peer.addresses()[0] {
        IpAddr::V4(address) => Ok(address.octets()),
        IpAddr::V6(_) => anyhow::bail!("IPv4 comes first"),
    }
}

fn v6(peer: &Peer) -> Result<[u8; 16]> {
    match peer.addresses()[1] {
        IpAddr::V6(address) => Ok(address.octets()),
        IpAddr::V4(_) => anyhow::bail!("IPv6 comes second"),
    }
}

fn dropped(agent: &Agent, reason: &str) -> Result<u64> {
    Ok(agent.status()?["drops"][reason].as_u64().unwrap_or(0))
}

/// The link addresses that a peer knows another by, as text: `None` where it knows none.
fn known(by: &Netns, of: &Peer) -> Result<Vec<Option<String>>> {
    let known = of.addresses().map(|address| {
        let shown = by.ask("ip", &["neigh", "show", &address.to_string()])?;
        let mut words = shown.split_whitespace();
        words.find(|word| *word == "lladdr");
        Ok(words.next().map(str::to_owned))
    });
    known.into_iter().collect()
}

/// Frames that claim the server's addresses for the stranger, towards the friend.
fn lures(scene: &Scene) -> Result<Vec<Vec<u8>>> {
    let Scene {
        server,
        friend,
        stranger,
        ..
    } = scene;
    let own = stranger.link_address("eth0")?;
    let to = friend.link_address("eth0")?;
    let claims = |operation, target| {
        let frame = PacketBuilder::arp(operation, v4(server)?, target).with_link(own);
        anyhow::Ok(frame.patched(8, &own))
    };
    let advertised = PacketBuilder::v6(v6(stranger)?, v6(friend)?)
        .neighbour(ADVERTISEMENT, v6(server)?)
        .patched(4, &OVERRIDE)
        .link_option(TARGET_LINK, own)
        .with_link(own)
        .to_link(to);
    let frames = [
        claims(REPLY, v4(friend)?)?.to_link(to),
        claims(REQUEST, v4(server)?)?.to_link(BROADCAST),
        advertised,
    ];
    Ok(frames
        .iter()
        .map(|frame| with_checksums(frame.frame()))
        .collect())
}

fn forget_neighbours(scene: &Scene) -> Result<()> {
    for netns in [
        &*scene.server,
        &*scene.friend,
        &*scene.stranger,
        scene.lab.host(),
    ] {
        netns.ip("neigh flush all")?;
    }
    Ok(())
}

/// A question that gets lost is asked again after a second, which is more than a probe waits.
fn reaches(from: &Peer, protocol: Protocol, to: SocketAddr) -> Result<()> {
    let reached = eventually(SOON, || from.reaches(protocol, to).is_ok());
    ensure!(reached, "{} does not reach {to} {protocol}", from.role());
    Ok(())
}

fn is_served(scene: &Scene) -> Result<()> {
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            reaches(&scene.friend, protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn an_endpoint_cannot_lure_what_is_for_its_neighbour() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    // A neighbour is believed at once, however short ago it was heard of.
    scene.friend.sysctl("ipv4/neigh/eth0/locktime", "0")?;
    let lures = lures(&scene)?;
    let lure = || {
        lures
            .iter()
            .try_for_each(|frame| scene.stranger.sends_frame("eth0", frame))
    };
    is_served(&scene)?;
    let truth = known(&scene.friend, &scene.server)?;
    ensure!(truth.iter().all(Option::is_some), "{truth:?}");
    let wrong = known(&scene.friend, &scene.stranger)?;

    // Without an agent it is believed.
    let is_lured = eventually(SOON, || {
        let tried = lure().and_then(|()| known(&scene.friend, &scene.server));
        tried.is_ok_and(|now| {
            now.iter()
                .all(|link| link.is_some() && !truth.contains(link))
        })
    });
    ensure!(is_lured, "the frames of this test lure nobody: {wrong:?}");

    let agent = scene.enforced()?;
    forget_neighbours(&scene)?;
    is_served(&scene)?;
    ensure!(known(&scene.friend, &scene.server)? == truth);
    lure()?;
    // By a link address that is not the one that it sends from.
    let own = v4(&scene.stranger)?;
    let elsewhere = PacketBuilder::arp(REPLY, own, v4(&scene.friend)?).to_link(BROADCAST);
    let elsewhere = elsewhere.with_link(scene.stranger.link_address("eth0")?);
    scene.stranger.sends_frame("eth0", &elsewhere.frame())?;
    let expected = u64::try_from(lures.len())? + 1;
    let is_counted = eventually(SOON, || {
        dropped(&agent, "spoofed-neighbour").is_ok_and(|count| count == expected)
    });
    ensure!(is_counted, "{:#}", agent.status()?);
    ensure!(known(&scene.friend, &scene.server)? == truth);
    is_served(&scene)?;
    let is_recorded = eventually(SOON, || {
        let records = agent.flows(1000).unwrap_or_default();
        let told = |family: &str| {
            records.iter().any(|record| {
                record["drop_reason"] == "spoofed-neighbour"
                    && record["endpoint"] == "shop/stranger"
                    && record["protocol"]["name"] == family
            })
        };
        told("arp") && told("icmpv6")
    });
    ensure!(is_recorded, "{:#?}", agent.flows(1000)?);
    Ok(())
}

/// What routers say: who the router is, and that there is a better one.
fn of_routers(scene: &Scene) -> Result<Vec<PacketBuilder>> {
    let all: Ipv6Addr = "ff02::1".parse()?;
    let from = |source: &str| -> Result<PacketBuilder> {
        let source: Ipv6Addr = source.parse()?;
        Ok(PacketBuilder::v6(source.octets(), all.octets()))
    };
    let Scene {
        friend, stranger, ..
    } = scene;
    let redirect = PacketBuilder::v4(v4(stranger)?, v4(friend)?).icmp(5, 1, 0);
    let said = [
        from("fe80::4")?.icmp(134, 0, 0).payload(16),
        from("fe80::1")?.icmp(137, 0, 0).payload(16),
        redirect.payload(28),
    ];
    on_the_wire(stranger, said)
}

/// That an endpoint listens to a group (RFC 3810), behind the option that routers look for.
fn of_a_listener(scene: &Scene) -> Result<Vec<PacketBuilder>> {
    let (own, routers): (Ipv6Addr, Ipv6Addr) = ("fe80::4".parse()?, "ff02::16".parse()?);
    let report = PacketBuilder::v6(own.octets(), routers.octets()).icmp(143, 0, 0);
    let said = [report.clone(), report.extension(HOP_BY_HOP, 0)];
    on_the_wire(&scene.stranger, said)
}

fn on_the_wire(
    from: &Peer,
    said: impl IntoIterator<Item = PacketBuilder>,
) -> Result<Vec<PacketBuilder>> {
    let own = from.link_address("eth0")?;
    let said = said.into_iter();
    Ok(said
        .map(|packet| packet.with_link(own).to_link(BROADCAST))
        .collect())
}

#[test]
fn an_endpoint_is_no_router_on_the_wire() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let Scene {
        friend, stranger, ..
    } = &scene;
    let (routers, listener) = (of_routers(&scene)?, of_a_listener(&scene)?);
    for said in [&routers, &listener] {
        let heard = stranger.gets_through(friend, said)?;
        ensure!(!heard.contains(&false), "no agent: {heard:?}");
    }
    let agent = scene.enforced()?;
    let heard = stranger.gets_through(friend, &routers)?;
    ensure!(!heard.contains(&true), "{heard:?}");
    agent.has_dropped_at("shop/stranger", "rogue-router", routers.len())?;
    // Who listens may say so.
    let heard = stranger.gets_through(friend, &listener)?;
    ensure!(!heard.contains(&false), "{heard:?}");
    agent.has_dropped_at("shop/stranger", "rogue-router", routers.len())
}

fn neighbours_are_found(wiring: Wiring) -> Result<()> {
    let scene = Scene::wired(wiring, FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    // A router asks for a neighbour on others' behalf by its address of the link alone, and the host
    // has none: it has to have asked for itself.
    let forget = || {
        forget_neighbours(&scene)?;
        for peer in [&scene.server, &scene.friend] {
            for address in peer.addresses() {
                let is_found = || scene.lab.host().ping(address) == Outcome::Allowed;
                ensure!(
                    eventually(SOON, is_found),
                    "the host does not find {address}"
                );
            }
        }
        Ok(())
    };
    for _ in 0..3 {
        let theirs = scene.friend.at(PORT);
        for (there, back) in scene.server.at(PORT).into_iter().zip(theirs) {
            forget()?;
            reaches(&scene.friend, Protocol::Tcp, there)?;
            forget()?;
            reaches(&scene.server, Protocol::Tcp, back)?;
        }
    }
    ensure!(dropped(&agent, "spoofed-neighbour")? == 0);
    Ok(())
}

#[test]
fn an_endpoint_finds_its_neighbours_on_a_bridge() -> Result<()> {
    neighbours_are_found(Wiring::Bridged)
}

#[test]
fn an_endpoint_finds_its_neighbours_over_routed_links() -> Result<()> {
    neighbours_are_found(Wiring::Routed)
}

/// Gives the server one more address, and waits until it has made sure that it is alone with it.
fn takes(scene: &Scene, address: &str) -> Result<()> {
    let line = format!("addr add {address}/64 dev eth0\n");
    scene.server.ip(&line)?;
    let is_settled = || {
        let shown = scene
            .server
            .ask("ip", &["-6", "addr", "show", "dev", "eth0"]);
        shown.is_ok_and(|shown| shown.contains(address) && !shown.contains("tentative"))
    };
    ensure!(eventually(SOON, is_settled), "{address} stays tentative");
    let shown = scene
        .server
        .ask("ip", &["-6", "addr", "show", "dev", "eth0"])?;
    ensure!(!shown.contains("dadfailed"), "{shown}");
    Ok(())
}

#[test]
fn an_endpoint_makes_sure_that_an_address_is_its_own() -> Result<()> {
    const NEW: &str = "fd77::99";
    let scene = Scene::with(FRIEND_ONLY)?;
    let inventory = std::fs::read_to_string(scene.policies().join("inventory.yaml"))?;
    let old = scene.server.addresses()[1].to_string();
    let inventory = inventory.replace(&format!("\"{old}\""), &format!("\"{old}\", \"{NEW}\""));
    scene.lab.write("policies/inventory.yaml", &inventory)?;
    scene.server.sysctl("ipv6/conf/eth0/accept_dad", "1")?;
    let agent = scene.enforced()?;
    takes(&scene, NEW)?;
    takes(&scene, "fe80::99")?;
    ensure!(dropped(&agent, "spoofed-neighbour")? == 0);
    scene
        .friend
        .reaches(Protocol::Tcp, SocketAddr::new(NEW.parse()?, PORT))?;
    // The friend may keep its own, whatever the server asks.
    takes(&scene, "fd77::98")?;
    let is_counted = eventually(SOON, || {
        dropped(&agent, "spoofed-neighbour").is_ok_and(|count| count > 0)
    });
    ensure!(is_counted, "{:#}", agent.status()?);
    Ok(())
}

fn with_settings(scene: &Scene, settings: &str) -> Result<Agent> {
    let settings = scene.lab.write("config.yaml", settings)?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &settings.display().to_string()]);
    agent.start()?;
    Ok(agent)
}

#[test]
fn frames_beside_ip_pass_where_the_settings_name_them() -> Result<()> {
    for (settings, passes) in [("{}", false), ("frames: {allow: [lldp]}", true)] {
        let scene = Scene::with(FRIEND_ONLY)?;
        let agent = with_settings(&scene, settings)?;
        let ear = scene.friend.hears_frames("eth0", LLDP)?;
        let own = scene.stranger.link_address("eth0")?;
        let frame = PacketBuilder::other(LLDP).with_link(own).to_link(BROADCAST);
        scene
            .stranger
            .sends_frame("eth0", &frame.payload(60).frame())?;
        let heard = ear.hears(PATIENCE, |frame| frame.get(6..12) == Some(&own))?;
        ensure!(heard == passes, "{settings}: {heard}");
        let is_counted = |count: u64| (count == 0) == passes;
        ensure!(
            is_counted(dropped(&agent, "not-ip")?),
            "{:#}",
            agent.status()?
        );
    }
    Ok(())
}

/// The server may send to the friend's port alone, and be reached by nobody.
fn closed() -> String {
    TO_FRIEND_ONLY.replace("policyTypes: [Egress]", "policyTypes: [Egress, Ingress]")
}

/// Whether the server can ask the stranger for an address, and gets its answer.
fn dhcp(scene: &Scene) -> Result<[bool; 2]> {
    let bound = |peer: &Peer, port| peer.within(|| UdpSocket::bind(("0.0.0.0", port)));
    let (asks, answers) = (bound(&scene.server, 68)?, bound(&scene.stranger, 67)?);
    for socket in [&asks, &answers] {
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_broadcast(true)?;
    }
    let own = scene.server.link_address("eth0")?;
    let question = PacketBuilder::v4([0; 4], [255; 4]).udp(68, 67);
    let question = question.with_link(own).to_link(BROADCAST).frame();
    scene
        .server
        .sends_frame("eth0", &with_checksums(question))?;
    let mut bytes = [0; 64];
    let is_asked = answers.recv_from(&mut bytes).is_ok();
    answers.send_to(b"offer", "255.255.255.255:68")?;
    Ok([is_asked, asks.recv_from(&mut bytes).is_ok()])
}

fn dhcp_v6(scene: &Scene) -> Result<[bool; 2]> {
    let bound = |peer: &Peer, port, link: &str| {
        peer.ip(&format!("addr add {link}/64 dev eth0 nodad\n"))?;
        let shown = peer.ask("ip", &["-o", "link", "show", "dev", "eth0"])?;
        let index: u32 = shown.split(':').next().context("no index")?.parse()?;
        let socket = peer.within(|| UdpSocket::bind(("::", port)))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        anyhow::Ok((socket, index))
    };
    let servers: Ipv6Addr = "ff02::1:2".parse()?;
    let (asks, out) = bound(&scene.server, 546, "fe80::77:2")?;
    let (answers, index) = bound(&scene.stranger, 547, "fe80::77:4")?;
    answers.join_multicast_v6(&servers, index)?;
    asks.send_to(b"solicit", SocketAddrV6::new(servers, 547, 0, out))?;
    let mut bytes = [0; 64];
    let is_asked = answers.recv_from(&mut bytes).is_ok();
    let to = SocketAddrV6::new("fe80::77:2".parse()?, 546, 0, index);
    answers.send_to(b"advertise", to)?;
    Ok([is_asked, asks.recv_from(&mut bytes).is_ok()])
}

#[test]
fn a_dhcp_client_is_served_where_the_settings_say_so() -> Result<()> {
    for (settings, expected) in [
        ("{}", [false; 2]),
        ("frames: {dhcp_client: true}", [true; 2]),
    ] {
        let scene = Scene::with(&closed())?;
        let agent = with_settings(&scene, settings)?;
        ensure!(dhcp(&scene)? == expected, "{settings}: DHCP");
        ensure!(dhcp_v6(&scene)? == expected, "{settings}: DHCPv6");
        let status: Value = agent.status()?;
        // Asked and answered in both families, and nothing beside.
        let denied = status["drops"]["default-deny"].as_u64();
        let count = if expected == [true; 2] { None } else { Some(4) };
        ensure!(denied == count, "{status:#}");
        scene
            .server
            .is_dropped_to(Protocol::Udp, scene.stranger.v4(PORT))?;
    }
    Ok(())
}
