//! Records say how long round trips take: what the endpoint's own socket says of itself.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use agent_common::rtt::RoundTrip;
use anyhow::{Context, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::group_scene::GroupScene;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::puppet::Puppet;
use ringfence_lab::scene::{PORT, Scene, TO_FRIEND_ONLY};
use ringfence_lab::stream;
use ringfence_lab::wait::eventually_some;
use rustix::net::sockopt::set_socket_linger;
use serde_json::Value;

const HELPER: &str = env!("CARGO_BIN_EXE_lab-peer");
/// For a record to be there, on a busy machine.
const RECORDED: Duration = Duration::from_secs(20);
/// Longer than an end waits before it acknowledges what it has nothing to answer to (`TCP_DELACK_MAX`).
const QUIET: Duration = Duration::from_millis(500);
/// More than what is seen by the table alone where flows are noted in sockets.
const EXCHANGES: u32 = 100;

/// The end of the connection to `to` that an endpoint saw.
fn end(agent: &Agent, endpoint: &str, to: SocketAddr) -> Result<Value> {
    let is_it = |record: &Value| {
        record["kind"] == "end"
            && record["endpoint"] == endpoint
            && record["protocol"]["name"] == "tcp"
            && record["dst"]["ip"] == to.ip().to_string()
            && record["dst"]["port"] == to.port()
    };
    let found = eventually_some(RECORDED, || agent.flows(1000).ok()?.into_iter().find(is_it));
    found.with_context(|| format!("no such record\n{}", agent.log()))
}

/// How a connection ends: by FIN, the acknowledgement of which is measured as well, or by RST.
#[derive(Clone, Copy)]
enum End {
    Closed,
    Reset,
}

/// Has the puppet talk with whoever serves there: the last that its socket knew of round trips before the end.
fn talks(puppet: &Puppet, to: SocketAddr, end: End) -> Result<u32> {
    let tcp = Protocol::Tcp;
    puppet.makes(tcp, to)?;
    for outcome in [puppet.connects(tcp, to)?, puppet.echoes(tcp, EXCHANGES)?] {
        ensure!(outcome == Outcome::Allowed, "{outcome}");
    }
    thread::sleep(QUIET);
    let socket = puppet.gives(tcp)?;
    if let End::Reset = end {
        set_socket_linger(socket.as_fd(), Some(Duration::ZERO))?;
    }
    let known = stream::information(socket.as_fd()).context("no information")?;
    Ok(known.tcpi_rtt)
}

/// As a record has it.
fn kept(micros: u32) -> u32 {
    RoundTrip::of_micros(micros).micros()
}

#[test]
fn the_end_of_a_connection_has_what_its_socket_measured_last() -> Result<()> {
    let scene = Scene::with(TO_FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    for to in scene.friend.at(PORT) {
        let puppet = Puppet::outside(Path::new(HELPER), &scene.server)?;
        let known = talks(&puppet, to, End::Reset)?;
        ensure!(known > 0, "nothing was measured");
        let record = end(&agent, "shop/server", to)?;
        ensure!(record["rtt_us"] == kept(known), "{known}: {record}");
    }
    Ok(())
}

#[test]
fn who_is_called_measures_as_well() -> Result<()> {
    let scene = Scene::with(ringfence_lab::scene::FRIEND_ONLY)?;
    let agent = scene.enforced()?;
    for to in scene.server.at(PORT) {
        let puppet = Puppet::outside(Path::new(HELPER), &scene.friend)?;
        talks(&puppet, to, End::Closed)?;
        let record = end(&agent, "shop/server", to)?;
        let rtt = record["rtt_us"].as_u64().context("no round trip")?;
        ensure!(rtt > 0 && rtt < 1_000_000, "{record}");
    }
    Ok(())
}

#[test]
fn so_do_sockets_of_a_group() -> Result<()> {
    let scene = GroupScene::new(Path::new(HELPER))?;
    for to in scene.friend.at(PORT) {
        let puppet = Puppet::inside(&scene.group, scene.lab.host())?;
        let known = talks(&puppet, to, End::Reset)?;
        let record = end(&scene.agent, "host/service", to)?;
        ensure!(record["rtt_us"] == kept(known), "{known}: {record}");
    }
    Ok(())
}
