//! Everybody asked about everything by the reference evaluator: what `verify` and `diff` prove, for
//! their property tests. Knows nothing of classes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use proptest::{collection::vec, prelude::*, sample};

use crate::{
    connection::{End, Perspective, Port, Served, addresses_of, frontends},
    model::{Direction, IcmpVersion, ObjectName, SubjectName, World},
    question::{Evaluator, Origin, Question},
    reference::Reference,
    strategies::Borders,
};

/// Those who have a name in a world, with their addresses.
pub(crate) type Inventory = BTreeMap<End, BTreeSet<IpAddr>>;

/// Answers about the connections of a world.
pub(crate) struct Exhaustive<'w> {
    world: &'w World,
    perspective: Perspective,
    frontends: BTreeMap<IpAddr, Arc<Served>>,
    known: RefCell<HashMap<Asked, bool>>,
}

/// With whether the peer's packet is made by the subject's own node.
type Asked = (SubjectName, Direction, IpAddr, bool, Port);

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

    /// Whether a connection passes: §4.5 of the semantics, but for every address.
    pub(crate) fn passes(&self, from: Somebody<'_>, to: Somebody<'_>, port: Port) -> bool {
        let (source, destination) = (from.1, to.1);
        let egress = subject(from.0)
            .is_none_or(|subject| self.asked(subject, Direction::Egress, destination, false, port));
        let behind = self.frontends.get(&destination);
        let ingress = match behind.and_then(|ports| ports.get(&port)) {
            None => self.takes(subject(to.0), from.0, source, port),
            Some(serving) => serving.iter().all(|serving| {
                let name = serving.workload.clone().map(SubjectName::Workload);
                let subject = name.or_else(|| self.node_at(serving.address));
                self.takes(subject, from.0, source, serving.port)
            }),
        };
        egress && ingress
    }

    fn takes(&self, subject: Option<SubjectName>, from: &End, source: IpAddr, port: Port) -> bool {
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
        self.asked(subject, Direction::Ingress, source, made_here, port)
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

    fn asked(
        &self,
        subject: SubjectName,
        direction: Direction,
        peer: IpAddr,
        made_here: bool,
        port: Port,
    ) -> bool {
        let key = (subject, direction, peer, made_here, port);
        if let Some(answer) = self.known.borrow().get(&key) {
            return *answer;
        }
        let mut question = self.question(key.0.clone(), direction, peer, port);
        if made_here {
            question.origin = Origin::ThisNode;
        }
        let answer = Reference(self.world).answer(&question).allows();
        self.known.borrow_mut().insert(key, answer);
        answer
    }

    fn question(
        &self,
        subject: SubjectName,
        direction: Direction,
        peer: IpAddr,
        port: Port,
    ) -> Question {
        let Perspective { view, at } = self.perspective;
        Question {
            subject,
            direction,
            peer,
            socket: None,
            protocol: port.protocol,
            port: port.number,
            origin: Origin::Forwarded,
            view,
            at,
        }
    }
}

fn subject(end: &End) -> Option<SubjectName> {
    match end {
        End::Workload(name) => Some(SubjectName::Workload(name.clone())),
        End::Node(name) => Some(SubjectName::Node(name.clone())),
        _ => None,
    }
}

pub(crate) fn inventory(world: &World) -> Inventory {
    let workloads = world.workloads.values();
    let workloads =
        workloads.map(|one| (End::Workload(one.name.clone()), addresses_of(world, one)));
    let nodes = world.nodes.values();
    let nodes = nodes.map(|one| (End::Node(one.name.clone()), one.addresses.clone()));
    let services = world.services.values();
    let services = services.map(|one| (End::Service(one.name.clone()), one.addresses.clone()));
    workloads.chain(nodes).chain(services).collect()
}

/// Whether the two are ends of something that is asked about.
pub(crate) fn can_meet(from: Somebody<'_>, to: Somebody<'_>) -> bool {
    let is_outside = |end: &End| matches!(end, End::Address(_));
    let could_be = match (from.0, to.0) {
        (End::Service(_), _) => false,
        (End::Workload(from), End::Workload(to)) => from != to,
        (from, to) => !(is_outside(from) && is_outside(to)),
    };
    could_be && from.1.is_ipv4() == to.1.is_ipv4()
}

/// Ports between which nothing changes, of each protocol that counts; of one family.
pub(crate) fn ports(worlds: &[&World], is_v4: bool) -> Vec<Port> {
    let (mut numbers, mut icmp) = (BTreeSet::new(), BTreeSet::new());
    for world in worlds {
        let borders = Borders::of(world);
        numbers.extend(borders.ports);
        numbers.extend(borders.frontends.iter().map(|(_, _, port)| *port));
        icmp.extend(borders.icmp);
    }
    let beside: Vec<u16> = numbers
        .iter()
        .flat_map(|port| [port.saturating_sub(1), port.saturating_add(1)])
        .collect();
    numbers.extend(beside);
    let version = if is_v4 {
        IcmpVersion::V4
    } else {
        IcmpVersion::V6
    };
    let of = |protocol, numbers: &BTreeSet<u16>| {
        let numbers = numbers.iter().copied();
        numbers
            .map(|number| Port { protocol, number })
            .collect::<Vec<_>>()
    };
    let transports = [6, 17, 132].map(|protocol| of(protocol, &numbers));
    let others = [47, 0].map(|protocol| Port {
        protocol,
        number: 0,
    });
    let icmp = of(version.number(), &icmp);
    transports
        .into_iter()
        .flatten()
        .chain(icmp)
        .chain(others)
        .collect()
}

/// Addresses that nobody has, at the borders of all blocks.
pub(crate) fn outside<'b>(
    worlds: &[&World],
    blocks: impl IntoIterator<Item = &'b IpNet>,
) -> BTreeSet<IpAddr> {
    let mut all: BTreeSet<IpAddr> = ["8.8.8.8", "2600::1", "192.168.7.7", "fe80::7"]
        .map(|text| text.parse().unwrap())
        .into();
    for world in worlds {
        all.extend(Borders::of(world).peers);
    }
    all.extend(blocks.into_iter().flat_map(|block| {
        let (first, last) = (block.network(), block.broadcast());
        [beside(first, -1), first, last, beside(last, 1)]
    }));
    // Nobody outside is there.
    all.retain(|address| !address.is_loopback());
    for addresses in worlds
        .iter()
        .flat_map(|world| inventory(world).into_values())
    {
        all.retain(|address| !addresses.contains(address));
    }
    all
}

fn beside(address: IpAddr, step: i8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            Ipv4Addr::from_bits(address.to_bits().saturating_add_signed(step.into())).into()
        }
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits().saturating_add_signed(step.into())).into()
        }
    }
}

/// What gives some workloads and nodes more addresses.
pub(crate) fn more_addresses() -> impl Strategy<Value = Vec<(bool, sample::Index, u8)>> {
    vec(
        (prop::bool::weighted(0.8), any::<sample::Index>(), 0u8..16),
        0..=4,
    )
}

/// Worlds have one address a family for each: most of what is wrong with several goes unseen there.
pub(crate) fn with_more_addresses(world: &mut World, more: &[(bool, sample::Index, u8)]) {
    for (is_workload, index, slot) in more {
        if *is_workload {
            let names: Vec<ObjectName> = world.workloads.keys().cloned().collect();
            let address = IpAddr::from([10, 1, 0, *slot]);
            let mut workload = world.workloads[index.get(&names)].as_ref().clone();
            if !world.addresses.contains_key(&address) && workload.owns_its_addresses() {
                workload.addresses.insert(address);
                let change =
                    crate::model::Change::Workload(workload.name.clone(), Some(workload.into()));
                world.apply(&change);
            }
        } else {
            let names: Vec<String> = world.nodes.keys().cloned().collect();
            let name = index.get(&names).clone();
            let mut node = world.nodes[&name].as_ref().clone();
            let number = u8::from(name != names[0]);
            node.addresses
                .insert([10, 0, 1, slot % 2 + 2 * number].into());
            world.nodes.insert(name, node.into());
        }
    }
}

mod tests;
