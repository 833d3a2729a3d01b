//! Packets of a few conversations, around the borders of a world's policies.
//!
//! Few, so that packets meet flows: replies, ends, ports that are used again, errors about them.

use std::{collections::BTreeMap, net::IpAddr};

use agent_common::{
    flow::tcp::{ACK, FIN, RST, SYN},
    table::Direction,
    testing::{
        PacketBuilder,
        packet::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP, LINK, ROUTING},
    },
};
use agent_policy::{
    compiled::Compiled,
    model::{SubjectName, World},
    strategies::Borders,
};
use proptest::{prelude::*, sample, test_runner::TestRunner};

use crate::any as draw;

/// A packet, and where it is seen.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) id: u16,
    pub(crate) direction: Direction,
    pub(crate) made_here: bool,
    pub(crate) packet: PacketBuilder,
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
struct Conversation {
    id: u16,
    local: IpAddr,
    peer: IpAddr,
    local_port: u16,
    peer_port: u16,
    protocol: u8,
}

pub(crate) struct Traffic {
    /// Endpoints with the addresses that they use.
    locals: Vec<(u16, Vec<IpAddr>)>,
    peers: Vec<IpAddr>,
    ports: Vec<u16>,
}

const STRANGERS: [&str; 4] = ["198.51.100.7", "2001:db8:bad::7", "169.254.3.3", "fe80::3"];

/// Those with ports, the family's own ICMP (1), and what has no ports: in IPv6, 0 and 51 are extension headers, and
/// 58 stands for the ICMP of the other family.
const PROTOCOLS: [u8; 21] = [
    6, 6, 6, 6, 6, 6, 17, 17, 17, 17, 132, 132, 1, 1, 47, 47, 0, 4, 41, 51, 58,
];

impl Sent {
    /// Another piece of the packet that this is the first of.
    pub(crate) fn later(&self) -> Option<Self> {
        (self.packet.piece() == Some(0)).then(|| Self {
            packet: self.packet.clone().fragment(9, false),
            ..self.clone()
        })
    }
}

impl Traffic {
    pub(crate) fn of(
        world: &World,
        compiled: &Compiled,
        endpoints: &BTreeMap<u16, SubjectName>,
    ) -> Self {
        let Borders { peers, ports, .. } = Borders::of(world);
        let strangers = STRANGERS.map(|address| address.parse().unwrap());
        let locals = endpoints
            .iter()
            .map(|(id, name)| {
                let own = compiled.subjects[name].addresses.iter().copied();
                // Now and then it speaks for somebody else.
                let own: Vec<IpAddr> = own.cycle().take(12).chain(strangers).collect();
                (*id, own)
            })
            .collect();
        Self {
            locals,
            peers,
            ports,
        }
    }

    /// The next packet; `None` if the world has nobody.
    pub(crate) fn packet(&self, runner: &mut TestRunner) -> Option<Sent> {
        if self.locals.is_empty() {
            return None;
        }
        let talk = self.conversation(runner);
        let egress = draw(runner, any::<bool>());
        let direction = if egress {
            Direction::Egress
        } else {
            Direction::Ingress
        };
        let packet = draw(runner, shaped(talk, egress));
        Some(Sent {
            id: talk.id,
            direction,
            made_here: draw(runner, proptest::bool::weighted(0.3)),
            packet,
        })
    }

    /// One of a few hundred at most: drawn from few ports and from the ends that there are.
    fn conversation(&self, runner: &mut TestRunner) -> Conversation {
        let (id, own) = draw(runner, sample::select(self.locals.clone()));
        let local = draw(runner, sample::select(own.clone()));
        let mut peers: Vec<IpAddr> = self
            .peers
            .iter()
            .copied()
            .filter(|peer| peer.is_ipv4() == local.is_ipv4())
            .collect();
        peers.push(local);
        let few = sample::select(peers[..peers.len().min(6)].to_vec());
        let peer = draw(runner, prop_oneof![3 => few, 1 => sample::select(peers)]);
        let ports = self.ports.clone();
        let near = ports[..ports.len().min(4)].to_vec();
        let port = prop_oneof![2 => sample::select(near), 1 => sample::select(ports)];
        Conversation {
            id,
            local,
            peer,
            local_port: draw(runner, prop_oneof![Just(40_000_u16), port.clone().boxed()]),
            peer_port: draw(runner, prop_oneof![Just(40_000_u16), port.boxed()]),
            protocol: draw(runner, sample::select(PROTOCOLS.to_vec())),
        }
    }
}

fn between(source: IpAddr, destination: IpAddr) -> PacketBuilder {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            PacketBuilder::v4(source.octets(), destination.octets())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            PacketBuilder::v6(source.octets(), destination.octets())
        }
        _ => PacketBuilder::other(0x88cc),
    }
}

/// The conversation's next packet in one direction, in one of the forms that a packet can have.
#[expect(clippy::too_many_lines, reason = "one form after the other")]
fn shaped(talk: Conversation, egress: bool) -> impl Strategy<Value = PacketBuilder> {
    let is_v4 = talk.local.is_ipv4();
    let plain = transported(talk, egress).boxed();
    let odd = (plain.clone(), 0..4_u8, 0..4_usize, any::<bool>()).prop_map(
        move |(packet, offset, words, more)| {
            let packet = packet.options(words);
            if offset == 0 || more {
                packet.fragment(u16::from(offset / 2), more)
            } else {
                packet
            }
        },
    );
    let places = sample::select(vec![0, 0, 0, 1, 8, 8, 9_u16]);
    let pieces = (plain.clone(), 1..4_u16, places).prop_map(|(packet, number, at)| {
        let packet = packet.numbered(number);
        packet.fragment(at, true).payload(4)
    });
    let extension = sample::select(vec![
        HOP_BY_HOP,
        ROUTING,
        DESTINATION_OPTIONS,
        AUTHENTICATION,
    ]);
    let extended = (
        plain.clone(),
        prop::collection::vec((extension, 0..3_u8), 1..6),
    )
        .prop_map(|(packet, extensions)| {
            extensions
                .into_iter()
                .fold(packet, |packet, (kind, units)| {
                    packet.extension(kind, units)
                })
        });
    // Test runs take no packet that ends within its network header (6.17 and later).
    let shortest: usize = if is_v4 { 14 + 20 } else { 14 + 40 };
    let cut =
        (plain.clone(), shortest..shortest + 40).prop_map(|(packet, bytes)| packet.cut(bytes));
    let wrong =
        (plain.clone(), any::<u8>()).prop_map(|(packet, first)| packet.version_and_length(first));
    let kinds: Vec<u8> = if is_v4 {
        vec![3, 11, 12]
    } else {
        vec![1, 2, 3, 4]
    };
    let about = transported(talk, !egress);
    let (from, to) = ends(&talk, egress);
    let error =
        (about, sample::select(kinds), 20..80_usize).prop_map(move |(about, kind, quoted)| {
            between(from, to).icmp_error(kind, 1, &about, quoted)
        });
    let routers = sample::select(vec![133, 134, 137, 143_u8]);
    let router = routers.prop_map(move |kind| between(from, to).icmp(kind, 0, 0));
    let ends_of = sample::select(vec![from, to, IpAddr::from([0; 16]), IpAddr::from([0; 4])]);
    let link = sample::select(vec![LINK, LINK, [4; 6]]);
    let neighbour = (
        sample::select(vec![135, 136_u8]),
        ends_of.clone(),
        0..3_u8,
        link.clone(),
    )
        .prop_map(move |(kind, target, option, link)| {
            let target = match target {
                IpAddr::V4(target) => target.to_ipv6_mapped(),
                IpAddr::V6(target) => target,
            };
            let message = between(from, to).neighbour(kind, target.octets());
            match option {
                0 => message,
                kind => message.link_option(kind, link),
            }
        });
    let arp =
        (0..4_u16, ends_of.clone(), ends_of, link).prop_map(|(operation, sender, target, link)| {
            match (sender, target) {
                (IpAddr::V4(sender), IpAddr::V4(target)) => {
                    PacketBuilder::arp(operation, sender.octets(), target.octets()).with_link(link)
                }
                _ => PacketBuilder::other(0x88cc),
            }
        });
    let (client, server) = if is_v4 { (68, 67) } else { (546, 547) };
    let dhcp = (any::<bool>(), any::<bool>()).prop_map(move |(afresh, asks)| {
        let (source, destination) = match (from, to) {
            _ if !afresh => (from, to),
            (IpAddr::V4(_), _) => ([0; 4].into(), [255; 4].into()),
            (IpAddr::V6(_), _) => ("fe80::3".parse().unwrap(), "ff02::1:2".parse().unwrap()),
        };
        let (source_port, port) = if asks == egress {
            (client, server)
        } else {
            (server, client)
        };
        between(source, destination).udp(source_port, port)
    });
    prop_oneof![
        30 => plain,
        4 => odd,
        8 => pieces,
        4 => extended,
        2 => cut,
        1 => wrong,
        4 => error,
        1 => router,
        2 => neighbour,
        2 => arp,
        1 => dhcp,
        1 => sample::select(vec![0x88cc, 0x88f7]).prop_map(PacketBuilder::other),
    ]
}

fn ends(talk: &Conversation, egress: bool) -> (IpAddr, IpAddr) {
    if egress {
        (talk.local, talk.peer)
    } else {
        (talk.peer, talk.local)
    }
}

fn transported(talk: Conversation, egress: bool) -> impl Strategy<Value = PacketBuilder> {
    let (from, to) = ends(&talk, egress);
    let (source, destination) = if egress {
        (talk.local_port, talk.peer_port)
    } else {
        (talk.peer_port, talk.local_port)
    };
    let flags = sample::select(vec![
        SYN,
        SYN,
        SYN | ACK,
        ACK,
        ACK,
        FIN | ACK,
        RST,
        SYN | FIN,
        0,
    ]);
    // Echo, time stamp, information, mask; a notice; each family has its own echo.
    let kinds = sample::select(if talk.local.is_ipv4() {
        vec![8, 8, 0, 13, 14, 17, 18, 40, 5, 9]
    } else {
        vec![128, 128, 129, 200]
    });
    (flags, kinds, 0..2_u8, 0..3_u16, 0..32_usize).prop_map(
        move |(flags, kind, code, id, payload)| {
            let packet = between(from, to);
            let packet = match talk.protocol {
                6 => packet.tcp(source, destination, flags),
                17 => packet.udp(source, destination),
                132 => packet.sctp(source, destination),
                1 => packet.icmp(kind, code, id),
                58 => {
                    let of_other = if from.is_ipv4() { 58 } else { 1 };
                    packet.protocol(of_other, vec![kind, code, 0, 0, 0, 0, 0, 1])
                }
                other => packet.protocol(other, vec![0; 12]),
            };
            packet.payload(payload)
        },
    )
}
