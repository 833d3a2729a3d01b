//! A socket is of the cgroup of the process that made it, for life, whoever uses it, and wherever that one
//! is by then: what policy says of a group, it says of the sockets that were made there.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringfence_lab::group_scene::{GroupScene, QUIET_PORT, WITH_FRIEND};
use ringfence_lab::lab::Netns;
use ringfence_lab::loose::Loose;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::puppet::Puppet;
use ringfence_lab::scene::PORT;
use ringfence_lab::wait::eventually;

const HELPER: &str = env!("CARGO_BIN_EXE_lab-peer");
/// Nobody serves it, and no policy permits it.
const CLOSED_PORT: u16 = 7071;
/// More exchanges than it takes until a socket knows its flow.
const MANY: u32 = 40;
const IN_FORCE: Duration = Duration::from_secs(10);

fn scene() -> Result<GroupScene> {
    GroupScene::new(Path::new(HELPER))
}

/// A sender may be told that it is denied, so what it met with is not always silence.
fn meets(seen: &Outcome, may: bool) -> Result<()> {
    ensure!((*seen == Outcome::Allowed) == may, "{seen}");
    Ok(())
}

/// Each peer, and what policy says of it to the service, over each protocol.
fn each(
    scene: &GroupScene,
    try_it: impl Fn(Protocol, SocketAddr, bool) -> Result<()>,
) -> Result<()> {
    for protocol in Protocol::ALL {
        for (to, may) in scene.peers(PORT) {
            try_it(protocol, to, may).with_context(|| {
                let log = scene.agent.log();
                format!("{protocol} {to}, which policy permits: {may}\n{log}")
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_group_within_a_group_is_confined_as_that() -> Result<()> {
    let scene = scene()?;
    let child = scene.group.within("child")?;
    let host = scene.lab.host();
    each(&scene, |protocol, to, may| {
        meets(&child.probe(host, protocol, to)?, may)
    })?;
    for protocol in Protocol::ALL {
        let _served = child.serve(host, protocol, QUIET_PORT)?;
        for to in scene.at(QUIET_PORT) {
            scene.friend.reaches(protocol, to)?;
            scene.stranger.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_process_that_comes_brings_free_sockets_along_and_makes_confined_ones() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    each(&scene, |protocol, to, may| {
        let puppet = Puppet::outside(Path::new(HELPER), host)?;
        puppet.makes(protocol, to)?;
        scene.group.admit(puppet.pid())?;
        meets(&puppet.probes(protocol, to)?, true).context("of before")?;
        puppet.makes(protocol, to)?;
        meets(&puppet.probes(protocol, to)?, may).context("made in the group")
    })
}

#[test]
fn a_process_that_goes_keeps_confined_sockets_and_makes_free_ones() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    each(&scene, |protocol, to, may| {
        let puppet = Puppet::inside(&scene.group, host)?;
        puppet.makes(protocol, to)?;
        scene.group.expel(puppet.pid())?;
        meets(&puppet.probes(protocol, to)?, may).context("of before")?;
        puppet.makes(protocol, to)?;
        meets(&puppet.probes(protocol, to)?, true).context("made outside")
    })
}

#[test]
fn a_connection_goes_on_as_it_was_when_its_process_moves() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    for protocol in Protocol::ALL {
        for to in scene.stranger.at(PORT) {
            let puppet = Puppet::outside(Path::new(HELPER), host)?;
            puppet.makes(protocol, to)?;
            meets(&puppet.connects(protocol, to)?, true)?;
            meets(&puppet.echoes(protocol, 1)?, true)?;
            scene.group.admit(puppet.pid())?;
            meets(&puppet.echoes(protocol, MANY)?, true).context("a stranger's, brought along")?;
        }
        for to in scene.friend.at(PORT) {
            let puppet = Puppet::inside(&scene.group, host)?;
            puppet.makes(protocol, to)?;
            meets(&puppet.connects(protocol, to)?, true)?;
            meets(&puppet.echoes(protocol, MANY)?, true)?;
            scene.group.expel(puppet.pid())?;
            meets(&puppet.echoes(protocol, MANY)?, true).context("a friend's, taken along")?;
            scene.policy(&WITH_FRIEND.replace("app: friend", "app: nobody"))?;
            let is_cut = eventually(IN_FORCE, || {
                let seen = puppet.echoes(protocol, 1);
                seen.is_ok_and(|seen| seen != Outcome::Allowed)
            });
            ensure!(is_cut, "{protocol} {to} goes on, outside of its group");
            scene.policy(WITH_FRIEND)?;
            let is_back = eventually(IN_FORCE, || {
                let seen = scene.group.probe(host, protocol, to);
                seen.is_ok_and(|seen| seen == Outcome::Allowed)
            });
            ensure!(is_back, "{}", scene.agent.log());
        }
    }
    Ok(())
}

#[test]
fn a_socket_that_is_handed_in_is_free() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    each(&scene, |protocol, to, _| {
        let made = host.within(|| Loose::make(protocol, to.ip()))?;
        let puppet = Puppet::inside(&scene.group, host)?;
        puppet.takes(protocol, &made)?;
        meets(&puppet.probes(protocol, to)?, true)
    })
}

#[test]
fn a_socket_that_is_handed_out_stays_confined() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    each(&scene, |protocol, to, may| {
        let puppet = Puppet::inside(&scene.group, host)?;
        puppet.makes(protocol, to)?;
        let handed = puppet.gives(protocol)?;
        drop(puppet);
        meets(&handed.probe(to), may)
    })
}

/// As a service manager does it: it listens before it starts the service.
#[test]
fn what_is_accepted_in_a_group_from_a_listener_of_before_is_free() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    for protocol in Protocol::ALL {
        let listener = host.within(|| Loose::listening(protocol, QUIET_PORT))?;
        let puppet = Puppet::inside(&scene.group, host)?;
        puppet.takes(protocol, &listener)?;
        drop(listener);
        puppet.serves(protocol)?;
        for to in scene.at(QUIET_PORT) {
            for peer in [&scene.friend, &scene.stranger] {
                peer.reaches(protocol, to).context("no policy is asked")?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_accepted_outside_from_a_listener_of_a_group_is_confined() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    for protocol in Protocol::ALL {
        let puppet = Puppet::inside(&scene.group, host)?;
        puppet.listens(protocol, QUIET_PORT)?;
        let listener = puppet.gives(protocol)?;
        drop(puppet);
        let _served = listener.serve()?;
        for to in scene.at(QUIET_PORT) {
            scene.friend.reaches(protocol, to)?;
            scene.stranger.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_connected_socket_of_udp_that_speaks_to_somebody_else_is_judged_as_that() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    let friend = scene.friend.hear(QUIET_PORT)?;
    let (at_friend, at_stranger) = (
        scene.friend.hear(CLOSED_PORT)?,
        scene.stranger.hear(QUIET_PORT)?,
    );
    for (family, from) in scene.lab.host_addresses().into_iter().enumerate() {
        let [connected, permitted, other_port, stranger] = [
            scene.friend.at(PORT)[family],
            scene.friend.at(QUIET_PORT)[family],
            scene.friend.at(CLOSED_PORT)[family],
            scene.stranger.at(QUIET_PORT)[family],
        ];
        let puppet = Puppet::inside(&scene.group, host)?;
        puppet.makes(Protocol::Udp, connected)?;
        meets(&puppet.connects(Protocol::Udp, connected)?, true)?;
        // The socket knows its flow, so that no table is asked.
        meets(&puppet.echoes(Protocol::Udp, MANY)?, true)?;
        for _ in 0..MANY {
            puppet.tells(other_port)?;
            puppet.tells(stranger)?;
        }
        meets(&puppet.tells(permitted)?, true)?;
        friend.hears(from, 1).context("what is permitted")?;
        // What nobody judges arrives there, after all that.
        let free = host.within(|| Loose::make(Protocol::Udp, from))?;
        for to in [other_port, stranger] {
            meets(&free.tells(to), true)?;
        }
        at_friend.hears(from, 1).context("another port")?;
        at_stranger.hears(from, 1).context("the stranger")?;

        meets(&puppet.echoes(Protocol::Udp, MANY)?, true).context("its own flow goes on")?;
        // To be connected to somebody else is no way round either.
        puppet.connects(Protocol::Udp, stranger)?;
        puppet.tells(stranger)?;
        meets(&free.tells(stranger), true)?;
        at_stranger.hears(from, 2).context("connected anew")?;
    }
    Ok(())
}

// === What the kernel says by itself ===

/// Where nobody listens no socket is of the group: the kernel answers, and nobody is asked.
#[test]
fn a_closed_port_answers_everybody() -> Result<()> {
    let scene = scene()?;
    for protocol in Protocol::ALL {
        for to in [QUIET_PORT, CLOSED_PORT]
            .map(|port| scene.at(port))
            .concat()
        {
            for peer in [&scene.friend, &scene.stranger] {
                let seen = peer.probe(protocol, to);
                ensure!(is_refusal(&seen), "{} {protocol} {to}: {seen}", peer.role());
            }
        }
    }
    Ok(())
}

#[test]
fn a_refusal_of_a_closed_port_reaches_who_was_permitted_to_ask() -> Result<()> {
    let scene = scene()?;
    let host = scene.lab.host();
    for protocol in Protocol::ALL {
        for (to, may) in scene.peers(QUIET_PORT) {
            let seen = scene.group.probe(host, protocol, to)?;
            ensure!(is_refusal(&seen) == may, "{protocol} {to}: {seen}");
        }
    }
    Ok(())
}

fn is_refusal(seen: &Outcome) -> bool {
    matches!(seen, Outcome::Refused(error) if error.contains("Connection refused"))
}

/// What is left of a connection that its owner has closed is no socket that a hook sees: its far end
/// comes to an end also when it is no longer permitted.
#[test]
fn the_last_word_of_a_peer_is_answered_whatever_policy_says_by_then() -> Result<()> {
    const FIN_WAIT_2: u8 = 5;
    const LAST_ACK: u8 = 9;
    let scene = scene()?;
    let host = scene.lab.host();
    for is_refused in [false, true] {
        for to in scene.friend.at(QUIET_PORT) {
            let listener = scene.friend.within(|| TcpListener::bind(to))?;
            let puppet = Puppet::inside(&scene.group, host)?;
            puppet.makes(Protocol::Tcp, to)?;
            meets(&puppet.connects(Protocol::Tcp, to)?, true)?;
            let (accepted, _) = listener.accept()?;
            puppet.closes(Protocol::Tcp)?;
            let at_peer = |state| sockets_in(&scene.friend, state, to.port(), Side::Local);
            let at_group = |state| sockets_in(host, state, to.port(), Side::Remote);
            let waits = eventually(IN_FORCE, || at_group(FIN_WAIT_2).is_ok_and(|n| n == 1));
            ensure!(waits, "the closed end does not wait for the other");
            if is_refused {
                scene.policy(&WITH_FRIEND.replace("app: friend", "app: nobody"))?;
                let is_denied = eventually(IN_FORCE, || {
                    let seen = scene
                        .group
                        .probe(host, Protocol::Udp, scene.friend.v4(PORT));
                    seen.is_ok_and(|seen| seen != Outcome::Allowed)
                });
                ensure!(is_denied, "{}", scene.agent.log());
            }
            drop((accepted, listener));
            let ends = eventually(IN_FORCE, || at_peer(LAST_ACK).is_ok_and(|n| n == 0));
            ensure!(ends, "{to}, refused: {is_refused}: no answer to a FIN");
            scene.policy(WITH_FRIEND)?;
            let is_permitted = eventually(IN_FORCE, || {
                let seen = scene
                    .group
                    .probe(host, Protocol::Udp, scene.friend.v4(PORT));
                seen.is_ok_and(|seen| seen == Outcome::Allowed)
            });
            ensure!(is_permitted, "{}", scene.agent.log());
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Side {
    Local,
    Remote,
}

/// How many TCP sockets of a namespace are in a state, with a port on one side.
fn sockets_in(netns: &Netns, state: u8, port: u16, side: Side) -> Result<usize> {
    let field = match side {
        Side::Local => 1,
        Side::Remote => 2,
    };
    let (port, state) = (format!(":{port:04X}"), format!("{state:02X}"));
    netns.within(|| {
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/thread-self/net/{table}"));
        let tables = tables.map(fs::read_to_string);
        let tables = tables.into_iter().collect::<std::io::Result<Vec<_>>>()?;
        let sockets = tables.iter().flat_map(|table| table.lines());
        let is_it = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(field).is_some_and(|end| end.ends_with(&port))
                && fields.get(3).is_some_and(|seen| **seen == state)
        };
        Ok(sockets.filter(is_it).count())
    })
}
