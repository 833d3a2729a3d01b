//! What policy says holds for a workload known by its interface.

use anyhow::{Result, ensure};
use ringfence_lab::agent::Agent;
use ringfence_lab::lab::Wiring;
use ringfence_lab::manifest;
use ringfence_lab::probe::{Outcome, Protocol};
use ringfence_lab::scene::{FRIEND_ONLY, OTHER_PORT, PORT, Scene, TO_FRIEND_ONLY};

fn ingress_is_held(wiring: Wiring) -> Result<()> {
    let scene = Scene::wired(wiring, FRIEND_ONLY)?;
    let _agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            scene.friend.reaches(protocol, to)?;
            scene.stranger.is_dropped_to(protocol, to)?;
        }
        for to in scene.server.at(OTHER_PORT) {
            scene.friend.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

fn egress_is_held(wiring: Wiring) -> Result<()> {
    let scene = Scene::wired(wiring, TO_FRIEND_ONLY)?;
    let _agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.friend.at(PORT) {
            scene.server.reaches(protocol, to)?;
        }
        for to in scene
            .friend
            .at(OTHER_PORT)
            .into_iter()
            .chain(scene.stranger.at(PORT))
        {
            scene.server.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn ingress_is_held_on_a_bridge() -> Result<()> {
    ingress_is_held(Wiring::Bridged)
}

#[test]
fn ingress_is_held_over_routed_links() -> Result<()> {
    ingress_is_held(Wiring::Routed)
}

#[test]
fn egress_is_held_on_a_bridge() -> Result<()> {
    egress_is_held(Wiring::Bridged)
}

#[test]
fn egress_is_held_over_routed_links() -> Result<()> {
    egress_is_held(Wiring::Routed)
}

#[test]
fn replies_pass_although_nothing_may_be_begun() -> Result<()> {
    // The server answers the friend, and may not call the friend itself.
    let scene = Scene::with(
        &FRIEND_ONLY.replace("ingress:", "policyTypes: [Ingress, Egress]\n  ingress:"),
    )?;
    let _agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for (there, back) in scene.server.at(PORT).into_iter().zip(scene.friend.at(PORT)) {
            scene.friend.reaches(protocol, there)?;
            scene.server.is_dropped_to(protocol, back)?;
        }
    }
    Ok(())
}

#[test]
fn who_is_not_selected_is_not_held() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let _agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.friend.at(OTHER_PORT) {
            scene.stranger.reaches(protocol, to)?;
            // Selected for ingress only: its egress is free.
            scene.server.reaches(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_node_reaches_its_own_workloads() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let _agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene
            .server
            .at(PORT)
            .into_iter()
            .chain(scene.server.at(OTHER_PORT))
        {
            scene.lab.host().reaches(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn what_the_node_only_forwards_is_not_the_nodes() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let world = scene.lab.outside("world")?;
    let _agent = scene.enforced()?;
    for protocol in Protocol::ALL {
        for to in scene.server.at(PORT) {
            world.is_dropped_to(protocol, to)?;
        }
    }
    Ok(())
}

#[test]
fn a_rule_with_ports_does_not_permit_icmp_and_one_without_does() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let _agent = scene.enforced()?;
    for to in scene.server.addresses() {
        let seen = scene.friend.ping(to);
        ensure!(seen == Outcome::TimedOut, "with ports, {to}: {seen}");
    }
    let (head, _ports) = FRIEND_ONLY.trim_end().rsplit_once('\n').unwrap_or_default();
    scene.policy(head)?;
    for to in scene.server.addresses() {
        let opened = ringfence_lab::wait::eventually(std::time::Duration::from_secs(3), || {
            scene.friend.ping(to) == Outcome::Allowed
        });
        ensure!(opened, "without ports, {to} does not answer");
        let seen = scene.stranger.ping(to);
        ensure!(seen == Outcome::TimedOut, "the stranger, {to}: {seen}");
    }
    Ok(())
}

#[test]
fn a_workload_is_found_by_its_namespace() -> Result<()> {
    let scene = Scene::with(FRIEND_ONLY)?;
    let peers = [&scene.server, &scene.friend, &scene.stranger];
    let inventory = peers.map(|peer| manifest::netns(peer, "shop", &[("app", peer.role())]));
    scene
        .lab
        .write("policies/inventory.yaml", &inventory.concat())?;
    let _agent = scene.enforced()?;
    for to in scene.server.at(PORT) {
        scene.friend.reaches(Protocol::Tcp, to)?;
        scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    Ok(())
}

#[test]
fn two_agents_hold_their_own_side_by_side() -> Result<()> {
    // Each knows everybody and selects another workload; a connection needs the consent of both.
    let scene = Scene::with(FRIEND_ONLY)?;
    let inventory = scene.policies().join("inventory.yaml");
    let friend_closed = FRIEND_ONLY.replace("app: server", "app: friend").replace(
        "{app: friend}}}]\n      ports",
        "{app: server}}}]\n      ports",
    );
    let other = scene.lab.write("other/policy.yaml", &friend_closed)?;
    let _first = Agent::enforcing(&scene.lab, &[&scene.policies()])?;
    let mut second = Agent::prepare(&scene.lab, "second", &[&inventory, &other])?;
    second.start()?;
    for to in scene.server.at(PORT) {
        scene.friend.reaches(Protocol::Tcp, to)?;
        scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    for to in scene.friend.at(PORT) {
        scene.server.reaches(Protocol::Tcp, to)?;
        scene.stranger.is_dropped_to(Protocol::Tcp, to)?;
    }
    second.terminate()?;
    second.detach()?;
    for (server, friend) in scene.server.at(PORT).into_iter().zip(scene.friend.at(PORT)) {
        scene.stranger.is_dropped_to(Protocol::Tcp, server)?;
        scene.stranger.reaches(Protocol::Tcp, friend)?;
    }
    Ok(())
}
