//! An endpoint that opens all flows it can, or tries all ports, harms nobody else.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::{Netns, Wiring};
use ringfence_lab::probe::{Protocol, any_port};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene};
use ringfence_lab::wait::{eventually, slowness};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use serde_json::Value;

/// Room for flows of each family, and many times as many that the hostile one opens.
const FLOWS: u64 = 300;
const OPENED: u64 = 6000;
/// Datagrams to ports that policy denies, each of its own kind: a million over both families.
const DENIED: u64 = 500_000;
/// Attempts to connect to such ports, over each family.
const SYNS: u64 = 20_000;
/// Connections of somebody else, meanwhile.
const CONNECTIONS: usize = 150;
/// Nobody hears there, and no policy forbids it.
const QUIET: u16 = 9;
const SWEPT: Duration = Duration::from_secs(20);

/// Sends a byte to each port above the well-known ones in turn, from one socket; how many it sent.
fn spray(from: &Netns, to: IpAddr, number: u64, stop: &AtomicBool) -> Result<u64> {
    from.within(|| {
        let socket = UdpSocket::bind(any_port(to))?;
        let mut sent = 0;
        for port in (10_000..=u16::MAX).cycle() {
            if sent == number || stop.load(Ordering::Relaxed) {
                break;
            }
            match socket.send_to(b"x", SocketAddr::new(to, port)) {
                Ok(_) => sent += 1,
                // What was sent before has been answered: there is nobody.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    })
}

/// Tries to connect to each of these ports in turn, a new socket each time, and waits for none.
fn knock(from: &Netns, to: IpAddr, number: u64, stop: &AtomicBool) -> Result<u64> {
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    from.within(|| {
        let mut sent = 0;
        for port in (10_000..=u16::MAX).cycle() {
            if sent == number || stop.load(Ordering::Relaxed) {
                break;
            }
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            match connect(&socket, &SocketAddr::new(to, port)) {
                Ok(()) | Err(Errno::INPROGRESS | Errno::CONNREFUSED) => sent += 1,
                // Its own ports are all in use.
                Err(Errno::ADDRNOTAVAIL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    })
}

/// Sends one flow that policy permits: what any neighbour may do.
fn stream(from: &Netns, to: SocketAddr, number: u64, stop: &AtomicBool) -> Result<u64> {
    from.within(|| {
        let socket = UdpSocket::bind(any_port(to.ip()))?;
        let mut sent = 0;
        while sent < number && !stop.load(Ordering::Relaxed) {
            // Who does not take it in time loses it.
            sent += u64::from(socket.send_to(b"x", to).is_ok());
        }
        Ok(sent)
    })
}

/// How many connections a second the friend makes to the server.
fn connects(scene: &Scene) -> Result<f64> {
    let begin = Instant::now();
    for _ in 0..CONNECTIONS {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(Protocol::Tcp, to)?;
        }
    }
    let made = 2 * u32::try_from(CONNECTIONS)?;
    Ok(f64::from(made) / begin.elapsed().as_secs_f64())
}

/// Lets the stranger send, over and over, while the friend connects to the server; how often it does in a second.
fn harms_nobody(
    sends: impl Fn(u64, &AtomicBool) -> Result<u64> + Sync,
    scene: &Scene,
    number: u64,
) -> Result<f64> {
    // Where a machine is emulated, fewer will do.
    let number = number / u64::from(slowness());
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let hostile = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let more = sends(number, &stop)?;
                sent.fetch_add(more, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
        let tried = (|| {
            let under_way = eventually(SWEPT, || {
                sent.load(Ordering::Relaxed) >= number || hostile.is_finished()
            });
            ensure!(under_way, "the hostile one is too slow");
            connects(scene)
        })();
        stop.store(true, Ordering::Relaxed);
        let sprayed = hostile.join().ok().context("the hostile one panicked")?;
        sprayed.and(tried)
    })
}

fn small(scene: &Scene) -> Result<Agent> {
    let config = format!("capacities: {{flows: {FLOWS}}}\n");
    let config = scene.lab.write("config.yaml", &config)?;
    let mut agent = scene
        .agent()?
        .with(&["--config", &config.display().to_string()]);
    agent.start()?;
    Ok(agent)
}

fn table<'s>(status: &'s Value, name: &str) -> Option<&'s Value> {
    let tables = status["tables"].as_array()?;
    tables.iter().find(|table| table["name"] == name)
}

#[test]
fn whoever_fills_the_flow_table_leaves_room_for_others() -> Result<()> {
    let scene = Scene::wired(Wiring::Routed, FRIEND_ONLY)?;
    let agent = small(&scene)?;
    for to in scene.lab.host_addresses() {
        harms_nobody(
            |number, stop| spray(&scene.stranger, to, number, stop),
            &scene,
            OPENED,
        )?;
    }
    // It has what is its due, and no more; the rest is counted, and a record says so.
    let due = |used: u64| used > FLOWS / 2 && used < FLOWS;
    let is_shown = agent.status_eventually(SWEPT, |status| {
        let used = |name| table(status, name)?["used"].as_u64();
        let is_due = ["flows_v4", "flows_v6"].map(|name| used(name).is_some_and(due));
        is_due == [true; 2] && status["unremembered"].as_u64() > Some(OPENED)
    });
    ensure!(is_shown, "{:#}", agent.status()?);
    let is_recorded = eventually(SWEPT, || {
        let records = agent.flows(100_000).unwrap_or_default();
        records.iter().any(|record| record["stage"] == "flow-table")
    });
    ensure!(is_recorded, "no record says that flows were not remembered");
    Ok(())
}

#[test]
fn whoever_tries_all_ports_keeps_nobody_from_connecting() -> Result<()> {
    let scene = Scene::wired(Wiring::Routed, FRIEND_ONLY)?;
    let agent = small(&scene)?;
    let stranger = &scene.stranger;
    let alone = connects(&scene)?;
    for (to, permitted) in scene
        .server
        .addresses()
        .into_iter()
        .zip(scene.friend.at(QUIET))
    {
        let beside = harms_nobody(
            |number, stop| stream(stranger, permitted, number, stop),
            &scene,
            DENIED,
        )?;
        let scanned = harms_nobody(
            |number, stop| spray(stranger, to, number, stop),
            &scene,
            DENIED,
        )?;
        let knocked = harms_nobody(
            |number, stop| knock(stranger, to, number, stop),
            &scene,
            SYNS,
        )?;
        eprintln!(
            "{to}: {alone:.0} connections a second alone, {beside:.0} beside a permitted sender; \
             beside datagrams {scanned:.0} ({:.2}), beside SYNs {knocked:.0} ({:.2})",
            scanned / beside,
            knocked / beside
        );
    }
    // Denied flows take no room: what the table holds is the friend's, at the friend and at the server.
    let status = agent.status()?;
    let denied = status["drops"]["default-deny"].as_u64();
    // Queues on the way lose some of what nobody waits for.
    let sent = (DENIED + SYNS) / u64::from(slowness());
    ensure!(denied >= Some(sent), "{status:#}");
    for to in scene.server.at(OTHER_PORT) {
        scene.friend.is_dropped_to(Protocol::Udp, to)?;
    }
    Ok(())
}
