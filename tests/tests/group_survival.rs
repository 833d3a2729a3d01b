//! What a service in a group may not send is not sent, whatever happens to the agent, and what it may send
//! arrives, over both families.

use std::net::{TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ringfence_lab::flood::{Flood, Receiver};
use ringfence_lab::group_scene::{GroupScene, QUIET_PORT};
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::puppet::Puppet;
use ringfence_lab::scene::PORT;
use ringfence_lab::stream::Stream;
use rustix::process::Signal;

/// Tries a second of what is denied, over each family.
const TRIES: u32 = 5_000;
/// Datagrams a second of what is permitted.
const RATE: u32 = 1_000;

/// All from sockets that were made in the group. Dropped in order.
struct Traffic {
    permitted: Vec<Flood>,
    denied: Vec<Flood>,
    streams: Vec<Stream>,
    friend: Receiver,
    stranger: Receiver,
    begun: Instant,
}

impl Traffic {
    fn begin(scene: &GroupScene) -> Result<Self> {
        let host = scene.lab.host();
        let puppet = Puppet::inside(&scene.group, host)?;
        let mut traffic = Self {
            permitted: Vec::new(),
            denied: Vec::new(),
            streams: Vec::new(),
            friend: scene.friend.hear(QUIET_PORT)?,
            stranger: scene.stranger.hear(QUIET_PORT)?,
            begun: Instant::now(),
        };
        for peer in [&scene.friend, &scene.stranger] {
            // Who is not known as a neighbour yet waits in a short queue, and may be lost there.
            for address in peer.addresses() {
                ensure!(host.ping(address) == Outcome::Allowed, "{}", peer.role());
            }
        }
        let udp = |to| {
            puppet.makes(Protocol::Udp, to)?;
            let socket = puppet.gives(Protocol::Udp)?;
            anyhow::Ok(UdpSocket::from(OwnedFd::from(socket)))
        };
        for to in scene.friend.at(QUIET_PORT) {
            traffic.permitted.push(Flood::from(udp(to)?, to, RATE));
        }
        for to in scene.stranger.at(QUIET_PORT) {
            traffic.denied.push(Flood::from(udp(to)?, to, TRIES));
        }
        for to in scene.friend.at(PORT) {
            puppet.makes(Protocol::Tcp, to)?;
            ensure!(puppet.connects(Protocol::Tcp, to)? == Outcome::Allowed);
            let connection = TcpStream::from(OwnedFd::from(puppet.gives(Protocol::Tcp)?));
            traffic.streams.push(Stream::of(connection)?);
        }
        traffic.goes_on()?;
        Ok(traffic)
    }

    /// Waits for a second's worth of all of it.
    fn goes_on(&self) -> Result<()> {
        for flood in &self.denied {
            flood.tries(TRIES.into())?;
        }
        self.streams.iter().try_for_each(Stream::advances)
    }

    /// With an error if anything got out, or did not arrive; `turns` is how often it went on.
    fn end(self, scene: &GroupScene, turns: u64) -> Result<()> {
        let Self {
            permitted,
            denied,
            streams,
            friend,
            stranger,
            begun,
        } = self;
        let span = begun.elapsed();
        for (flood, from) in permitted.into_iter().zip(scene.lab.host_addresses()) {
            friend.hears(from, flood.finish()).context("permitted")?;
        }
        let mut tries = 0;
        for (flood, from) in denied.into_iter().zip(scene.lab.host_addresses()) {
            tries += flood.tried();
            drop(flood);
            stranger.hears(from, 0).context("denied")?;
        }
        let rate = f64::from(u32::try_from(tries)?) / span.as_secs_f64();
        eprintln!("{tries} tries that had to fail, {rate:.0} a second");
        ensure!(tries >= turns * 2 * u64::from(TRIES), "only {tries} tries");
        streams
            .into_iter()
            .try_for_each(|stream| stream.finish().unbroken())
    }
}

#[test]
fn a_group_whose_agent_is_killed_or_hangs_sends_what_it_may_and_nothing_else() -> Result<()> {
    let mut scene = GroupScene::new(Path::new(env!("CARGO_BIN_EXE_lab-peer")))?;
    let traffic = Traffic::begin(&scene)?;
    scene.agent.kill()?;
    traffic.goes_on().context("after kill -9")?;
    scene.agent.start()?;
    traffic.goes_on().context("after the restart")?;
    scene.agent.signal(Signal::STOP)?;
    for _ in 0..2 {
        traffic.goes_on().context("while it hangs")?;
    }
    scene.agent.signal(Signal::CONT)?;
    traffic.goes_on().context("when it goes on")?;
    traffic.end(&scene, 6)
}
