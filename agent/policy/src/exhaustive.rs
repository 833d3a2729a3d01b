//! Everybody asked about everything by the reference evaluator: what `verify` and `diff` prove, for
//! their property tests. Knows nothing of classes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use proptest::prelude::*;

pub(crate) use self::{
    crowd::crowd,
    everybody::{inventory, more_addresses, outside, ports, with_more_addresses},
};
use crate::{
    connection::{End, Perspective, Port, Served, frontends},
    model::{Direction, ObjectName, SubjectName, World},
    question::{Evaluator, Origin, Question},
    reference::Reference,
    strategies::Borders,
};

/// Answers about the connections of a world.
pub(crate) struct Exhaustive<'w> {
    world: &'w World,
    perspective: Perspective,
    frontends: BTreeMap<IpAddr, Arc<Served>>,
    known: RefCell<HashMap<Asked, bool>>,
}

/// With whether the peer's packet is made by the subject's own node, and whose socket it is.
type Asked = (
    SubjectName,
    Direction,
    IpAddr,
    bool,
    Option<ObjectName>,
    Port,
);

/// The interface of a node, if that has a name.
#[derive(PartialEq, Eq)]
struct Loopback(Option<String>);

/// One of the two ends of a connection, by its address.
pub(crate) type Somebody<'e> = (&'e End, IpAddr);

// === impl Exhaustive ===

impl<'w> Exhaustive<'w> {
    pub(crate) fn new(world: &'w World, perspective: Perspective) -> Self {
        Self {
            world,
            perspective,
            frontends: frontends(world),
            known: RefCell::default(),
        }
    }

    /// Whether the two are ends of something that is asked about.
    pub(crate) fn can_meet(&self, from: Somebody<'_>, to: Somebody<'_>) -> bool {
        let is_outside = |end: &End| matches!(end, End::Address(_));
        let could_be = match (from.0, to.0) {
            (End::Service(_), _) => false,
            (End::Workload(_), End::Workload(_)) => !self.is_itself(from.0, to.0),
            (from, to) => !(is_outside(from) && is_outside(to)),
        };
        could_be && self.there_is_a_way(from, to)
    }

    /// Whether a packet could get from the one to the other: over loopback, within a node only.
    pub(crate) fn there_is_a_way(&self, from: Somebody<'_>, to: Somebody<'_>) -> bool {
        let family = from.1.is_ipv4() == to.1.is_ipv4();
        let loopback = [from, to].map(|(_, address)| address.is_loopback());
        if loopback == [false; 2] {
            return family;
        }
        let is_here = |end: &End| matches!(end, End::Address(_));
        family
            && loopback == [true; 2]
            && match [from, to].map(|(end, _)| self.loopback_of(end)) {
                [Some(one), Some(other)] => one == other,
                [Some(_), None] => is_here(to.0),
                [None, Some(_)] => is_here(from.0),
                [None, None] => false,
            }
    }

    /// Whether a connection passes: §4.5 of the semantics, but for every address.
    pub(crate) fn passes(&self, from: Somebody<'_>, to: Somebody<'_>, port: Port) -> bool {
        if self.is_itself(from.0, to.0) {
            return true;
        }
        let (source, destination) = (from.1, to.1);
        let behind = self.frontends.get(&destination);
        let behind = behind.and_then(|ports| ports.get(&port));
        let told = |end: Somebody<'_>| {
            let met = behind.is_none() && self.meet((from.0, to.0), end.1, port);
            workload(end.0).filter(|_| met).cloned()
        };
        let egress = subject(from.0).is_none_or(|subject| {
            self.asked((
                subject,
                Direction::Egress,
                destination,
                false,
                told(to),
                port,
            ))
        });
        let ingress = match behind {
            None => self.takes(subject(to.0), from.0, source, told(from), port),
            Some(serving) => serving.iter().all(|serving| {
                let name = serving.workload.clone().map(SubjectName::Workload);
                let subject = name.or_else(|| self.node_at(serving.address));
                self.takes(subject, from.0, source, None, serving.port)
            }),
        };
        egress && ingress
    }

    /// A workload, at addresses that lead to it alone.
    fn is_itself(&self, from: &End, to: &End) -> bool {
        let owns = |name| {
            self.world
                .workloads
                .get(name)
                .map(|it| it.owns_its_addresses())
        };
        workload(from).is_some() && from == to && workload(from).and_then(owns).unwrap_or(true)
    }

    fn loopback_of(&self, end: &End) -> Option<Loopback> {
        match end {
            End::Node(name) => self
                .world
                .nodes
                .contains_key(name)
                .then(|| Loopback(Some(name.clone()))),
            End::Workload(name) => {
                let workload = self.world.workloads.get(name)?;
                (!workload.owns_its_addresses()).then(|| Loopback(workload.node.clone()))
            }
            _ => None,
        }
    }

    /// Whether one workload's socket is found by the other (§6.7), at an address.
    fn meet(&self, (from, to): (&End, &End), at: IpAddr, port: Port) -> bool {
        let (Some(_), Some(_)) = (workload(from), workload(to)) else {
            return false;
        };
        let (Some(here), Some(there)) = (self.loopback_of(from), self.loopback_of(to)) else {
            return false;
        };
        let node = here.0.as_ref().and_then(|name| self.world.nodes.get(name));
        let is_of_node = node.is_some_and(|node| node.addresses.contains(&at));
        here == there && (at.is_loopback() || is_of_node) && matches!(port.protocol, 6 | 17)
    }

    fn takes(
        &self,
        subject: Option<SubjectName>,
        from: &End,
        source: IpAddr,
        socket: Option<ObjectName>,
        port: Port,
    ) -> bool {
        let Some(subject) = subject else { return true };
        let here = match &subject {
            SubjectName::Workload(name) => self
                .world
                .workloads
                .get(name)
                .and_then(|it| it.node.clone()),
            SubjectName::Node(_) => None,
        };
        let made_here = here.is_some() && here == self.voice(from);
        self.asked((subject, Direction::Ingress, source, made_here, socket, port))
    }

    /// The node whose own stack speaks for an end.
    fn voice(&self, from: &End) -> Option<String> {
        match from {
            End::Node(name) => Some(name.clone()),
            End::Workload(name) => {
                let workload = self.world.workloads.get(name)?;
                let node = workload.node.clone();
                node.filter(|_| !workload.owns_its_addresses())
            }
            _ => None,
        }
    }

    fn node_at(&self, address: IpAddr) -> Option<SubjectName> {
        let mut nodes = self.world.nodes.values();
        let node = nodes.find(|node| node.addresses.contains(&address))?;
        Some(SubjectName::Node(node.name.clone()))
    }

    fn asked(&self, key: Asked) -> bool {
        if let Some(answer) = self.known.borrow().get(&key) {
            return *answer;
        }
        let (subject, direction, peer, made_here, socket, port) = key.clone();
        let Perspective { view, at } = self.perspective;
        let question = Question {
            subject,
            direction,
            peer,
            socket,
            protocol: port.protocol,
            port: port.number,
            origin: if made_here {
                Origin::ThisNode
            } else {
                Origin::Forwarded
            },
            view,
            at,
        };
        let answer = Reference(self.world).answer(&question).allows();
        self.known.borrow_mut().insert(key, answer);
        answer
    }
}

fn workload(end: &End) -> Option<&ObjectName> {
    match end {
        End::Workload(name) => Some(name),
        _ => None,
    }
}

fn subject(end: &End) -> Option<SubjectName> {
    match end {
        End::Workload(name) => Some(SubjectName::Workload(name.clone())),
        End::Node(name) => Some(SubjectName::Node(name.clone())),
        _ => None,
    }
}

mod crowd;
mod everybody;
mod tests;
