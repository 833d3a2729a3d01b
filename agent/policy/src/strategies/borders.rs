//! Where answers change: the edges of blocks, port ranges and times, and everything with a name.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use proptest::{prelude::*, sample};

use super::{alphabet::outside, times::moments};
use crate::{
    model::{
        Direction, ObjectName, Peer, Peers, PortMatch, PortName, PortSpec, Ports, SubjectName,
        Time, World,
    },
    question::{Origin, Question, View},
};

/// TCP, UDP, SCTP, ICMP, `ICMPv6`, and two that `NetworkPolicy` can not name.
const PROTOCOLS: [u8; 7] = [6, 17, 132, 1, 58, 47, 0];
const ICMP: [u8; 2] = [1, 58];

/// The values of a world between which nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borders {
    /// At least one. All of the world's.
    pub subjects: Vec<SubjectName>,
    pub peers: Vec<IpAddr>,
    pub ports: Vec<u16>,
    /// Types and codes of ICMP, as ports.
    pub icmp: Vec<u16>,
    /// Those who may find the other's socket at an address, with the addresses.
    pub sockets: Vec<(ObjectName, ObjectName, Vec<IpAddr>)>,
    /// Frontends of Services and what is beside them: address, protocol and port.
    pub frontends: Vec<(IpAddr, u8, u16)>,
    /// In order.
    pub moments: Vec<Time>,
}

#[derive(Default)]
struct Edges {
    peers: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
    icmp: BTreeSet<u16>,
    frontends: BTreeSet<(IpAddr, u8, u16)>,
}

// === impl Borders ===

impl Borders {
    pub fn of(world: &World) -> Self {
        let mut edges = Edges::default();
        edges.add_inventory(world);
        edges.add_services(world);
        edges.add_rules(world);
        let Edges {
            peers,
            ports,
            icmp,
            frontends,
        } = edges;
        let workloads = world.workloads.keys().cloned().map(SubjectName::Workload);
        let nodes = world.nodes.keys().cloned().map(SubjectName::Node);
        Self {
            subjects: workloads.chain(nodes).collect(),
            peers: peers.into_iter().collect(),
            ports: ports.into_iter().collect(),
            icmp: icmp.into_iter().collect(),
            sockets: sockets(world),
            frontends: frontends.into_iter().collect(),
            moments: moments(world),
        }
    }

    /// Any combination of the borders, at some of these moments.
    pub fn question(self, moments: Vec<Time>) -> impl Strategy<Value = Question> {
        let Self {
            subjects,
            peers,
            ports,
            icmp,
            sockets,
            frontends,
            moments: _,
        } = self;
        let strangers = vec![
            SubjectName::Node("nobody".to_owned()),
            SubjectName::Workload(ObjectName::new("alpha", "nobody")),
        ];
        let subject = prop_oneof![
            60 => sample::select(subjects),
            1 => sample::select(strangers),
        ];
        let peer = || sample::select(peers.clone());
        // Half of all questions are about TCP, UDP and SCTP alone: only these have ports to miss.
        let protocol = prop_oneof![
            sample::select(PROTOCOLS.get(..3).unwrap_or_default().to_vec()),
            sample::select(PROTOCOLS.to_vec())
        ];
        let aims = (peer(), protocol, sample::select(ports));
        let pings = (peer(), sample::select(ICMP.to_vec()), sample::select(icmp));
        let aims = if frontends.is_empty() {
            prop_oneof![5 => aims, 1 => pings].boxed()
        } else {
            prop_oneof![5 => aims, 1 => pings, 3 => sample::select(frontends)].boxed()
        };
        let ends = (subject, aims).prop_map(|(subject, aims)| (subject, None, aims));
        let ends = if sockets.is_empty() {
            ends.boxed()
        } else {
            let within = (sample::select(sockets), any::<sample::Index>());
            let met = (ends.clone(), within).prop_map(|(ends, (met, address))| {
                let ((_, _, (_, protocol, port)), (subject, socket, addresses)) = (ends, met);
                let peer = *address.get(&addresses);
                (subject.into(), Some(socket), (peer, protocol, port))
            });
            prop_oneof![4 => ends, 1 => met].boxed()
        };
        let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
        let origin = prop_oneof![2 => Just(Origin::Forwarded), 1 => Just(Origin::ThisNode)];
        let view =
            prop_oneof![3 => Just(View::Live), 1 => Just(View::Audit), 1 => Just(View::Staged)];
        let at = sample::select(moments);
        (ends, direction, origin, view, at).prop_map(
            |((subject, socket, (peer, protocol, port)), direction, origin, view, at)| Question {
                subject,
                direction,
                peer,
                socket,
                protocol,
                port,
                origin,
                view,
                at,
            },
        )
    }
}

// === impl Edges ===

impl Edges {
    fn add_inventory(&mut self, world: &World) {
        self.peers.extend(world.addresses.keys());
        self.peers.extend(outside());
        self.peers.insert(Ipv4Addr::LOCALHOST.into());
        self.peers.insert(Ipv6Addr::LOCALHOST.into());
        let nodes = world.nodes.values();
        self.peers.extend(nodes.flat_map(|node| &node.addresses));
        let names = world.names.values();
        self.peers
            .extend(names.flat_map(|addresses| addresses.iter()));
        self.ports.extend([0, 1, u16::MAX]);
        self.icmp.extend([0, u16::MAX]);
        for named in world.workloads.values().flat_map(|one| &one.ports) {
            self.ports.extend(around(named.port, named.port));
        }
    }

    fn add_services(&mut self, world: &World) {
        let nodes = || world.nodes.values().flat_map(|node| &node.addresses);
        for service in world.services.values() {
            self.peers.extend(&service.addresses);
            self.peers
                .extend(service.last.iter().map(|last| last.address));
            self.ports.extend(service.last.iter().map(|last| last.port));
            for port in &service.ports {
                let protocol = port.protocol.number();
                for address in &service.addresses {
                    self.frontends.insert((*address, protocol, port.port));
                }
                if let Some(node_port) = port.node_port {
                    self.frontends
                        .extend(nodes().map(|address| (*address, protocol, node_port)));
                }
                self.ports.extend([port.port].iter().chain(&port.node_port));
                if let PortName::Number(target) = port.target {
                    self.ports.insert(target);
                }
            }
        }
    }

    fn add_rules(&mut self, world: &World) {
        for policy in world.network_policies.values() {
            let rules = [&policy.ingress, &policy.egress].into_iter().flatten();
            for rule in rules.flatten() {
                self.add_rule(&rule.peers, &rule.ports);
            }
        }
        for policy in world.tier_policies.values() {
            for rule in policy.ingress.iter().chain(&policy.egress) {
                self.add_rule(&rule.peers, &rule.ports);
            }
        }
        for failsafe in world.failsafe.iter() {
            self.add_rule(&failsafe.peers, &failsafe.ports);
        }
    }

    fn add_rule(&mut self, peers: &Peers, ports: &Ports) {
        if let Peers::Listed(listed) = peers {
            self.peers.extend(listed.iter().flat_map(edges_of_peer));
        }
        let Ports::Listed(listed) = ports else {
            return;
        };
        for port in listed {
            match port {
                PortMatch::Transport {
                    port: PortSpec::Range { first, last },
                    ..
                } => self.ports.extend(around(*first, *last)),
                PortMatch::Icmp {
                    kind: Some(kind),
                    code,
                    ..
                } => {
                    let first = u16::from_be_bytes([*kind, code.unwrap_or(0)]);
                    let last = u16::from_be_bytes([*kind, code.unwrap_or(u8::MAX)]);
                    self.icmp.extend(around(first, last));
                }
                PortMatch::Transport { .. }
                | PortMatch::Icmp { .. }
                | PortMatch::Named(_)
                | PortMatch::Protocol(_) => {}
            }
        }
    }
}

/// Each pair of workloads that share the addresses of one node, or of none that is known.
fn sockets(world: &World) -> Vec<(ObjectName, ObjectName, Vec<IpAddr>)> {
    let sharing: Vec<_> = world
        .workloads
        .values()
        .filter(|workload| !workload.owns_its_addresses())
        .collect();
    let mut found = Vec::new();
    for one in &sharing {
        let node = one.node.as_ref().and_then(|name| world.nodes.get(name));
        let addresses: Vec<IpAddr> = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            .into_iter()
            .chain(node.into_iter().flat_map(|node| node.addresses.clone()))
            .collect();
        let others = sharing.iter().filter(|other| other.node == one.node);
        found.extend(others.map(|other| (one.name.clone(), other.name.clone(), addresses.clone())));
    }
    found
}

fn around(first: u16, last: u16) -> [u16; 4] {
    [first.saturating_sub(1), first, last, last.saturating_add(1)]
}

fn edges_of_peer(peer: &Peer) -> Vec<IpAddr> {
    match peer {
        Peer::Block { cidr, except } => std::iter::once(cidr)
            .chain(except)
            .flat_map(edges_of_block)
            .collect(),
        Peer::Workloads { .. }
        | Peer::Nodes(_)
        | Peer::OwnNode
        | Peer::Domain(_)
        | Peer::Local(_) => Vec::new(),
    }
}

/// The first and the last address of a block, and the ones beside them.
fn edges_of_block(block: &IpNet) -> Vec<IpAddr> {
    match block {
        IpNet::V4(block) => {
            let (first, last) = (block.network().to_bits(), block.broadcast().to_bits());
            [first.saturating_sub(1), first, last, last.saturating_add(1)]
                .map(|bits| Ipv4Addr::from_bits(bits).into())
                .to_vec()
        }
        IpNet::V6(block) => {
            let (first, last) = (block.network().to_bits(), block.broadcast().to_bits());
            [first.saturating_sub(1), first, last, last.saturating_add(1)]
                .map(|bits| Ipv6Addr::from_bits(bits).into())
                .to_vec()
        }
    }
}
