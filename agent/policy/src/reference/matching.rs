//! Whether one rule fits one question: selectors, blocks and ports, each spelled out.
//!
//! Also what `explain` shows rule by rule. Imports the model and the question only.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    model::{
        Direction, Labels, NamespaceScope, Peer, Peers, PortMatch, PortSpec, Ports, Requirement,
        Rule, Selector, Workload, World,
    },
    question::Question,
};

/// The two halves of a rule's answer, kept apart so that people can be told which one failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) peer: bool,
    pub(crate) port: bool,
}

impl Fit {
    pub(crate) fn permits(self) -> bool {
        let Self { peer, port } = self;
        peer && port
    }
}

pub(crate) fn fit(world: &World, subject: &Workload, question: &Question, rule: &Rule) -> Fit {
    // §1.4: an address that nobody owns is no workload; nor is that of a node, whoever runs there.
    let peer = world
        .addresses
        .get(&question.peer)
        .and_then(|name| world.workloads.get(name))
        .map(AsRef::as_ref);
    let destination = match question.direction {
        Direction::Ingress => Some(subject),
        Direction::Egress => peer,
    };
    Fit {
        peer: peers_include(world, &rule.peers, question.peer, peer),
        port: ports_include(&rule.ports, question, destination),
    }
}

/// §1.4
fn peers_include(world: &World, peers: &Peers, address: IpAddr, owner: Option<&Workload>) -> bool {
    match peers {
        Peers::Every => true,
        Peers::Listed(peers) => peers.iter().any(|peer| match peer {
            Peer::Workloads {
                namespaces,
                workloads,
            } => owner.is_some_and(|owner| {
                in_scope(world, namespaces, &owner.name.namespace)
                    && selects(workloads, &owner.labels)
            }),
            Peer::Block { cidr, except } => in_block(cidr, except, address),
            Peer::Nodes(_) | Peer::OwnNode | Peer::Domain(_) => false,
        }),
    }
}

/// §1.4: without a namespace selector, the policy's own namespace, which the model spells out.
fn in_scope(world: &World, scope: &NamespaceScope, namespace: &str) -> bool {
    match scope {
        NamespaceScope::Named(name) => name == namespace,
        NamespaceScope::Matching(selector) => world
            .namespaces
            .get(namespace)
            .is_some_and(|labels| selects(selector, labels)),
    }
}

/// §1.6: an exception holds within its own block only, so a wider block elsewhere still matches.
fn in_block(cidr: &IpNet, except: &[IpNet], address: IpAddr) -> bool {
    covers(cidr, address) && !except.iter().any(|hole| covers(hole, address))
}

/// Compares the leading bits. A block of one family covers no address of the other.
fn covers(block: &IpNet, address: IpAddr) -> bool {
    match (block, address) {
        (IpNet::V4(block), IpAddr::V4(address)) => {
            let ignored = 32u32.saturating_sub(block.prefix_len().into());
            let differing = block.addr().to_bits() ^ address.to_bits();
            differing.checked_shr(ignored).unwrap_or(0) == 0
        }
        (IpNet::V6(block), IpAddr::V6(address)) => {
            let ignored = 128u32.saturating_sub(block.prefix_len().into());
            let differing = block.addr().to_bits() ^ address.to_bits();
            differing.checked_shr(ignored).unwrap_or(0) == 0
        }
        (IpNet::V4(_), IpAddr::V6(_)) | (IpNet::V6(_), IpAddr::V4(_)) => false,
    }
}

/// §1.5: every requirement must hold.
pub(crate) fn selects(selector: &Selector, labels: &Labels) -> bool {
    selector
        .requirements
        .iter()
        .all(|requirement| match requirement {
            Requirement::In { key, values } => {
                labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::NotIn { key, values } => {
                !labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::Exists { key } => labels.contains_key(key),
            Requirement::DoesNotExist { key } => !labels.contains_key(key),
        })
}

/// §1.7, §1.8, §1.9
fn ports_include(ports: &Ports, question: &Question, destination: Option<&Workload>) -> bool {
    match ports {
        Ports::Every => true,
        Ports::Listed(ports) => ports
            .iter()
            .any(|port| port_includes(port, question, destination)),
    }
}

fn port_includes(listed: &PortMatch, question: &Question, destination: Option<&Workload>) -> bool {
    let PortMatch::Transport { protocol, port } = listed else {
        return false;
    };
    // §1.9: ICMP is none of the listed protocols, so a rule with ports never permits it.
    protocol.number() == question.protocol
        && match port {
            PortSpec::Every => true,
            PortSpec::Range { first, last } => (*first..=*last).contains(&question.port),
            // §1.8: a name that the destination does not have matches nothing.
            PortSpec::Name(name) => destination.is_some_and(|destination| {
                destination.ports.iter().any(|named| {
                    named.name == *name
                        && named.protocol == *protocol
                        && named.port == question.port
                })
            }),
        }
}

#[cfg(test)]
mod tests;
