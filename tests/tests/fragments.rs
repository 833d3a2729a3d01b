//! Datagrams that are larger than a link carries: the kernel cuts them up, and both ends get them whole.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use ringfence_lab::lab::{Netns, Wiring};
use ringfence_lab::probe::Outcome;
use ringfence_lab::scene::{FRIEND_ONLY, Scene};
use serde_json::Value;

/// Three pieces over a link of 1500 bytes.
const BYTES: usize = 4000;
const PATIENCE: Duration = Duration::from_millis(800);
/// No service is there.
const BULK: u16 = 8081;

fn bound(netns: &Netns, family: IpAddr, port: u16) -> Result<UdpSocket> {
    let any: IpAddr = match family {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = netns.within(|| UdpSocket::bind(SocketAddr::new(any, port)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// Sends a large datagram there, and has it sent back; what arrived at either end.
fn exchange(asks: &Netns, answers: &Netns, to: SocketAddr) -> Result<(bool, bool)> {
    let client = bound(asks, to.ip(), 0)?;
    let server = bound(answers, to.ip(), to.port())?;
    let sent: Vec<u8> = (0..BYTES).map(|at| at.to_le_bytes()[0]).collect();
    let mut received = vec![0; 2 * BYTES];
    client.send_to(&sent, to)?;
    let Ok((length, from)) = server.recv_from(&mut received) else {
        return Ok((false, false));
    };
    ensure!(
        received.get(..length) == Some(sent.as_slice()),
        "it was changed"
    );
    server.send_to(&sent, from)?;
    let returned = client.recv_from(&mut received);
    Ok((true, returned.is_ok_and(|(length, _)| length == BYTES)))
}

fn drops(status: &Value, reason: &str) -> u64 {
    status["drops"][reason].as_u64().unwrap_or(0)
}

fn large_datagrams(wiring: Wiring) -> Result<()> {
    let policy = FRIEND_ONLY.replace("port: 8080", &format!("port: {BULK}"));
    let scene = Scene::wired(wiring, &policy)?;
    let agent = scene.enforced()?;
    for to in scene.server.at(BULK) {
        let seen = exchange(&scene.friend, &scene.server, to)?;
        ensure!(seen == (true, true), "friend to {to}: {seen:?}");
    }
    let before = agent.status()?;
    ensure!(drops(&before, "fragment") == 0, "{before:#}");

    for to in scene.server.at(BULK) {
        let seen = exchange(&scene.stranger, &scene.server, to)?;
        ensure!(seen == (false, false), "stranger to {to}: {seen:?}");
    }
    let after = agent.status()?;
    // One first piece of each family, and two that follow no first one.
    ensure!(drops(&after, "default-deny") == 2, "{after:#}");
    ensure!(drops(&after, "fragment") == 4, "{after:#}");
    Ok(())
}

#[test]
fn large_datagrams_pass_in_pieces_on_a_bridge() -> Result<()> {
    large_datagrams(Wiring::Bridged)
}

#[test]
fn large_datagrams_pass_in_pieces_over_routed_links() -> Result<()> {
    large_datagrams(Wiring::Routed)
}

#[test]
fn a_large_echo_is_answered() -> Result<()> {
    let policy = FRIEND_ONLY.replace(
        "      ports: [{protocol: TCP, port: 8080}, {protocol: UDP, port: 8080}]\n",
        "",
    );
    let scene = Scene::with(&policy)?;
    let _agent = scene.enforced()?;
    for to in scene.server.addresses() {
        let seen = scene.friend.ping_with(to, BYTES);
        ensure!(seen == Outcome::Allowed, "friend to {to}: {seen}");
        let seen = scene.stranger.ping_with(to, BYTES);
        ensure!(seen == Outcome::TimedOut, "stranger to {to}: {seen}");
    }
    Ok(())
}
