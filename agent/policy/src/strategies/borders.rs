//! Where answers change: the edges of blocks and port ranges, and everything that has a name.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use proptest::{prelude::*, sample};

use crate::{
    model::{Direction, ObjectName, Peer, Peers, PortMatch, PortSpec, Ports, Time, World},
    question::{Origin, Question, View},
};

/// TCP, UDP, SCTP, ICMP, `ICMPv6`, and two that policies can not name.
const PROTOCOLS: [u8; 7] = [6, 17, 132, 1, 58, 47, 0];

/// The values of a world between which nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borders {
    pub subjects: Vec<ObjectName>,
    pub peers: Vec<IpAddr>,
    pub ports: Vec<u16>,
}

// === impl Borders ===

impl Borders {
    pub fn of(world: &World) -> Self {
        let mut peers: BTreeSet<IpAddr> = world.addresses.keys().copied().collect();
        peers.extend(
            world
                .nodes
                .values()
                .flat_map(|node| node.addresses.iter().copied()),
        );
        peers.extend([
            IpAddr::from(Ipv4Addr::new(203, 0, 113, 9)),
            IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)),
        ]);
        let mut ports = BTreeSet::from([0, 1, u16::MAX]);
        let named = world
            .workloads
            .values()
            .flat_map(|workload| &workload.ports);
        ports.extend(named.flat_map(|named| around(named.port, named.port)));
        let rules = world.network_policies.values().flat_map(|policy| {
            [&policy.ingress, &policy.egress]
                .into_iter()
                .flatten()
                .flatten()
        });
        for rule in rules {
            if let Peers::Listed(listed) = &rule.peers {
                peers.extend(listed.iter().flat_map(edges_of_peer));
            }
            if let Ports::Listed(listed) = &rule.ports {
                ports.extend(listed.iter().flat_map(|listed| match listed {
                    PortMatch::Transport {
                        port: PortSpec::Range { first, last },
                        ..
                    } => around(*first, *last).to_vec(),
                    _ => Vec::new(),
                }));
            }
        }
        Self {
            subjects: world.workloads.keys().cloned().collect(),
            peers: peers.into_iter().collect(),
            ports: ports.into_iter().collect(),
        }
    }

    /// Any combination of the borders. The world must have a workload.
    pub fn question(self) -> impl Strategy<Value = Question> {
        let Self {
            subjects,
            peers,
            ports,
        } = self;
        let direction = prop_oneof![Just(Direction::Ingress), Just(Direction::Egress)];
        let origin = prop_oneof![2 => Just(Origin::Forwarded), 1 => Just(Origin::ThisNode)];
        // Half of all questions are about TCP, UDP and SCTP alone: only these have ports to miss.
        let protocol = prop_oneof![
            sample::select(PROTOCOLS.get(..3).unwrap_or_default().to_vec()),
            sample::select(PROTOCOLS.to_vec())
        ];
        let (subject, peer) = (sample::select(subjects), sample::select(peers));
        (
            subject,
            direction,
            peer,
            protocol,
            sample::select(ports),
            origin,
        )
            .prop_map(
                |(subject, direction, peer, protocol, port, origin)| Question {
                    subject: subject.into(),
                    direction,
                    peer,
                    protocol,
                    port,
                    origin,
                    view: View::Live,
                    at: Time::default(),
                },
            )
    }
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
        _ => Vec::new(),
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
