//! What no vector touches, a test for each rule of the semantics.

mod order;
mod peers;
mod services;
mod tiers;

use std::sync::Arc;

use super::*;
use crate::{
    example,
    model::{
        NamespaceScope, Peer, Peers, PortMatch, PortSpec, Ports, Protocol, Selector, SubjectName,
        Subjects, Terms, TierRule, Time, When,
    },
};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// A new connection over TCP, forwarded, live, in 1970. `node/NAME` is a node.
fn question(subject: &str, direction: Direction, peer: &str, port: u16) -> Question {
    let (namespace, name) = subject.split_once('/').unwrap();
    Question {
        subject: match namespace {
            "node" => SubjectName::Node(name.to_owned()),
            _ => SubjectName::Workload(crate::model::ObjectName::new(namespace, name)),
        },
        direction,
        peer: peer.parse().unwrap(),
        socket: None,
        protocol: TCP,
        port,
        origin: Origin::Forwarded,
        view: View::Live,
        at: Time::default(),
    }
}

/// `Allow by p egress[0]`, `Drop: DefaultDeny`.
fn answer_to(world: &World, question: &Question) -> String {
    let Answer { action, why } = answer(world, question);
    match why {
        Why::Rule(RuleId {
            policy,
            direction,
            index,
        }) => format!("{action:?} by {policy} {direction}[{index}]"),
        other => format!("{action:?}: {other:?}"),
    }
}

fn egress(world: &World, subject: &str, peer: &str, port: u16) -> String {
    answer_to(world, &question(subject, Direction::Egress, peer, port))
}

fn ingress(world: &World, subject: &str, peer: &str, port: u16) -> String {
    answer_to(world, &question(subject, Direction::Ingress, peer, port))
}

/// A policy of ours, without rules.
fn policy(name: &str, tier: Tier, subjects: Subjects) -> TierPolicy {
    TierPolicy {
        id: PolicyId::cluster_wide(PolicyKind::RingfencePolicy, name),
        tier,
        priority: 10,
        subjects,
        ingress: Vec::new(),
        egress: Vec::new(),
        when: When::default(),
        terms: Terms::default(),
        source: example::source(1),
    }
}

/// About every peer and port, in both directions.
fn saying(action: TierAction, mut policy: TierPolicy) -> TierPolicy {
    policy.ingress.push(rule(action));
    policy.egress.push(rule(action));
    policy
}

fn rule(action: TierAction) -> TierRule {
    TierRule {
        name: None,
        action,
        peers: Peers::Every,
        ports: Ports::Every,
        when: When::default(),
        source: example::source(2),
    }
}

fn of_peer(action: TierAction, peer: Peer) -> TierRule {
    TierRule {
        peers: Peers::listed(vec![peer]),
        ..rule(action)
    }
}

fn workloads(selector: Selector) -> Subjects {
    Subjects::Workloads {
        namespaces: Selector::default(),
        workloads: selector,
        host_network: true,
    }
}

fn every_workload() -> Subjects {
    workloads(Selector::default())
}

fn every_node() -> Subjects {
    Subjects::Nodes(Selector::default())
}

fn peers_with(app: &str) -> Peer {
    Peer::Workloads {
        namespaces: NamespaceScope::Matching(Selector::default()),
        workloads: example::is(app),
    }
}

fn block(cidr: &str) -> Peer {
    Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: Vec::new(),
    }
}

fn tcp(port: u16) -> Ports {
    let (protocol, port) = (
        Protocol::Tcp,
        PortSpec::Range {
            first: port,
            last: port,
        },
    );
    Ports::Listed(vec![PortMatch::Transport { protocol, port }])
}

/// The example without its policy, and with these.
fn world(policies: impl IntoIterator<Item = TierPolicy>) -> World {
    let mut world = example::world();
    world.network_policies.clear();
    add(&mut world, policies);
    world
}

fn add(world: &mut World, policies: impl IntoIterator<Item = TierPolicy>) {
    for policy in policies {
        world
            .tier_policies
            .insert(policy.id.clone(), Arc::new(policy));
    }
}
