//! Whether one rule fits one question: selectors, names and blocks, each spelled out.
//!
//! Also what `explain` shows rule by rule. Imports the model and the question only.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    model::{
        Direction, Failsafe, Labels, NamespaceScope, Peer, Peers, Ports, Requirement, Rule,
        Selector, TierRule, When, Workload, World,
    },
    question::Question,
    reference::{ports, subject::Subject, time},
};

/// The parts of a rule's answer, kept apart so that people can be told which one failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    pub peer: bool,
    pub port: bool,
    /// Whether the rule exists at the moment of the question. Not whether its policy does.
    pub time: bool,
}

/// What a rule of any kind asks of a question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Condition<'w> {
    peers: &'w Peers,
    ports: &'w Ports,
    when: Option<&'w When>,
}

/// Who is at the other end.
struct Other<'w> {
    address: IpAddr,
    /// §1.4: the workload whose address it is, and nobody else's.
    owner: Option<&'w Workload>,
    /// §6.7: the workload whose socket it is.
    socket: Option<&'w Workload>,
}

// === impl Fit ===

impl Fit {
    /// Whether the rule matches.
    pub fn permits(self) -> bool {
        let Self { peer, port, time } = self;
        peer && port && time
    }
}

// === impl Condition ===

impl<'w> From<&'w Rule> for Condition<'w> {
    fn from(rule: &'w Rule) -> Self {
        let Rule {
            peers,
            ports,
            source: _,
        } = rule;
        Self {
            peers,
            ports,
            when: None,
        }
    }
}

impl<'w> From<&'w TierRule> for Condition<'w> {
    fn from(rule: &'w TierRule) -> Self {
        let TierRule {
            name: _,
            action: _,
            peers,
            ports,
            when,
            source: _,
        } = rule;
        Self {
            peers,
            ports,
            when: Some(when),
        }
    }
}

impl<'w> From<&'w Failsafe> for Condition<'w> {
    fn from(failsafe: &'w Failsafe) -> Self {
        let Failsafe {
            name: _,
            direction: _,
            peers,
            ports,
            source: _,
        } = failsafe;
        Self {
            peers,
            ports,
            when: None,
        }
    }
}

pub(crate) fn fit<'w>(
    world: &'w World,
    subject: Subject<'w>,
    question: &Question,
    rule: impl Into<Condition<'w>>,
) -> Fit {
    let Condition { peers, ports, when } = rule.into();
    // §1.4: an address that nobody owns is no workload; nor is that of a node, whoever runs there.
    let owner = world
        .addresses
        .get(&question.peer)
        .and_then(|name| world.workloads.get(name))
        .map(AsRef::as_ref);
    let socket = question
        .socket
        .as_ref()
        .and_then(|name| world.workloads.get(name))
        .map(AsRef::as_ref);
    // §1.8: names are looked up where the connection goes.
    let named = match question.direction {
        Direction::Ingress => subject.ports(),
        Direction::Egress => socket.or(owner).map_or(&[][..], |owner| &owner.ports),
    };
    let other = Other {
        address: question.peer,
        owner,
        socket,
    };
    let listed = |peers: &[Peer]| {
        peers
            .iter()
            .any(|peer| is_peer(world, subject, peer, &other))
    };
    Fit {
        peer: match peers {
            Peers::Every => true,
            Peers::Listed(peers) => listed(peers),
        },
        port: ports::include(ports, question, named),
        time: when.is_none_or(|when| time::holds(when, question.at)),
    }
}

/// §1.4, §6.4, §6.7
fn is_peer(world: &World, subject: Subject<'_>, peer: &Peer, other: &Other<'_>) -> bool {
    let Other {
        address,
        owner,
        socket,
    } = *other;
    match peer {
        Peer::Workloads {
            namespaces,
            workloads,
        } => owner.is_some_and(|owner| {
            in_scope(world, namespaces, &owner.name.namespace) && selects(workloads, &owner.labels)
        }),
        Peer::Block { cidr, except } => in_block(cidr, except, address),
        Peer::Nodes(selector) => world
            .nodes
            .values()
            .any(|node| selects(selector, &node.labels) && node.addresses.contains(&address)),
        Peer::OwnNode => subject
            .node(world)
            .is_some_and(|node| node.addresses.contains(&address)),
        Peer::Domain(pattern) => world
            .names
            .iter()
            .any(|(name, addresses)| is_named(pattern, name) && addresses.contains(&address)),
        Peer::Local(who) => {
            socket.is_some_and(|socket| Subject::Workload(socket).is_selected_by(world, who))
        }
    }
}

/// §6.4: `*.` stands for one or more whole labels, so never for none.
fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern == name,
        Some(parent) => name
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'))
            .is_some_and(|labels| !labels.is_empty()),
    }
}

/// §1.4: without a namespace selector, the policy's own namespace, which the model spells out.
pub(crate) fn in_scope(world: &World, scope: &NamespaceScope, namespace: &str) -> bool {
    match scope {
        NamespaceScope::Named(name) => name == namespace,
        NamespaceScope::Matching(selector) => world
            .namespaces
            .get(namespace)
            .is_some_and(|labels| selects(selector, labels)),
    }
}

/// §1.6: an exception holds within its own block only, so a wider block elsewhere still matches.
pub(crate) fn in_block(cidr: &IpNet, except: &[IpNet], address: IpAddr) -> bool {
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

#[cfg(test)]
mod tests;
