//! Packets and what they are read as.

use std::vec::Vec;

use super::*;
use crate::{
    flow::tcp::{ACK, SYN},
    testing::{
        PacketBuilder,
        packet::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP, ROUTING},
    },
};

const V4: ([u8; 4], [u8; 4]) = ([10, 0, 0, 1], [10, 0, 0, 2]);
const V6: ([u8; 16], [u8; 16]) = ([1; 16], [2; 16]);

struct Slice(Vec<u8>);

impl Packet for Slice {
    fn load<T: Header>(&self, offset: usize) -> Option<T> {
        let bytes = self.0.get(offset..)?.get(..size_of::<T>())?;
        // SAFETY: as many bytes as `T` has, read unaligned; `Header` promises that any will do.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
}

/// Protocol, ports, TCP flags, class.
type Read = (u8, u16, u16, u8, Class);

fn read<A: Family>(packet: &PacketBuilder) -> Result<Read, Reason> {
    let packet = Slice(packet.frame());
    let (mut whole, mut plain) = (Headers::<A>::EMPTY, Headers::<A>::EMPTY);
    let result = A::whole(&packet, 14, &mut whole, Extent::Whole);
    if A::plain(&packet, 14, &mut plain) {
        assert_eq!(
            (result, plain),
            (Ok(()), whole),
            "two readings of one packet"
        );
    }
    result?;
    Ok((
        whole.protocol,
        whole.source_port,
        whole.destination_port,
        whole.tcp_flags,
        whole.class,
    ))
}

#[test]
fn ipv4_packets_are_read_as_they_are() {
    let v4 = || PacketBuilder::v4(V4.0, V4.1);
    let quoted = v4().udp(5, 6);
    let ordinary = Class::Ordinary;
    let syn = Ok((6, 1, 2, SYN, ordinary));
    let table: &[(&str, PacketBuilder, Result<Read, Reason>)] = &[
        ("TCP", v4().tcp(1, 2, SYN), syn),
        ("UDP", v4().udp(1, 2), Ok((17, 1, 2, 0, ordinary))),
        ("SCTP", v4().sctp(1, 2), Ok((132, 1, 2, 0, ordinary))),
        (
            "an association that starts",
            v4().sctp_chunk(1, 2, 1),
            Ok((132, 1, 2, SYN, ordinary)),
        ),
        ("no chunk", v4().sctp(1, 2).cut(46), Err(Reason::Malformed)),
        (
            "a protocol without ports",
            v4().protocol(47, Vec::new()),
            Ok((47, 0, 0, 0, ordinary)),
        ),
        (
            "a router alert before TCP",
            v4().options(1).tcp(1, 2, SYN),
            syn,
        ),
        ("all options", v4().options(10).tcp(1, 2, SYN), syn),
        (
            "a first fragment",
            v4().fragment(0, true).tcp(1, 2, SYN),
            syn,
        ),
        (
            "a later fragment",
            v4().fragment(1, true).tcp(1, 2, SYN),
            Err(Reason::Fragment),
        ),
        (
            "the last fragment",
            v4().fragment(9, false).tcp(1, 2, SYN),
            Err(Reason::Fragment),
        ),
        (
            "a short network header",
            v4().tcp(1, 2, SYN).cut(30),
            Err(Reason::Malformed),
        ),
        (
            "no ports",
            v4().tcp(1, 2, SYN).cut(37),
            Err(Reason::Malformed),
        ),
        (
            "no TCP flags",
            v4().tcp(1, 2, SYN).cut(46),
            Err(Reason::Malformed),
        ),
        (
            "a length below the least",
            v4().tcp(1, 2, SYN).version_and_length(0x44),
            Err(Reason::Malformed),
        ),
        (
            "another version",
            v4().tcp(1, 2, SYN).version_and_length(0x65),
            Err(Reason::Malformed),
        ),
        (
            "echo request",
            v4().icmp(8, 0, 77),
            Ok((1, 77, 0x0800, 0, ordinary)),
        ),
        (
            "echo reply",
            v4().icmp(0, 0, 77),
            Ok((1, 0x0800, 77, 0, Class::Reply)),
        ),
        (
            "time stamp reply",
            v4().icmp(14, 0, 77),
            Ok((1, 0x0d00, 77, 0, Class::Reply)),
        ),
        (
            "unreachable",
            v4().icmp_error(3, 1, &quoted, 28),
            Ok((1, 0, 0x0301, 0, Class::Error)),
        ),
        (
            "redirect",
            v4().icmp(5, 0, 0),
            Ok((1, 0, 0x0500, 0, Class::Router)),
        ),
        (
            "short ICMP",
            v4().icmp(8, 0, 77).cut(38),
            Err(Reason::Malformed),
        ),
    ];
    for (what, packet, expected) in table {
        assert_eq!(&read::<[u8; 4]>(packet), expected, "{what}");
    }
}

#[test]
fn ipv6_packets_are_read_as_they_are() {
    let v6 = || PacketBuilder::v6(V6.0, V6.1);
    let ordinary = Class::Ordinary;
    let ack = Ok((6, 1, 2, ACK, ordinary));
    let four = || {
        v6().extension(HOP_BY_HOP, 0)
            .extension(ROUTING, 1)
            .extension(AUTHENTICATION, 2)
            .extension(DESTINATION_OPTIONS, 3)
    };
    let table: &[(&str, PacketBuilder, Result<Read, Reason>)] = &[
        ("TCP", v6().tcp(1, 2, ACK), ack),
        ("UDP", v6().udp(1, 2), Ok((17, 1, 2, 0, ordinary))),
        (
            "hop-by-hop before TCP",
            v6().extension(HOP_BY_HOP, 0).tcp(1, 2, ACK),
            ack,
        ),
        (
            "authentication before TCP",
            v6().extension(AUTHENTICATION, 4).tcp(1, 2, ACK),
            ack,
        ),
        ("four extensions", four().tcp(1, 2, ACK), ack),
        (
            "five extensions",
            four().extension(ROUTING, 0).tcp(1, 2, ACK),
            Err(Reason::ExtensionHeader),
        ),
        (
            "a first fragment",
            v6().fragment(0, true).tcp(1, 2, ACK),
            ack,
        ),
        (
            "a later fragment",
            v6().fragment(1, false).tcp(1, 2, ACK),
            Err(Reason::Fragment),
        ),
        (
            "a short extension",
            v6().extension(ROUTING, 0).tcp(1, 2, ACK).cut(55),
            Err(Reason::Malformed),
        ),
        (
            "another version",
            v6().tcp(1, 2, ACK).version_and_length(0x40),
            Err(Reason::Malformed),
        ),
        (
            "echo request",
            v6().icmp(128, 0, 77),
            Ok((58, 77, 0x8000, 0, ordinary)),
        ),
        (
            "echo reply",
            v6().icmp(129, 0, 77),
            Ok((58, 0x8000, 77, 0, Class::Reply)),
        ),
        (
            "packet too big",
            v6().icmp(2, 0, 0),
            Ok((58, 0, 0x0200, 0, Class::Error)),
        ),
        (
            "neighbour solicitation",
            v6().icmp(135, 0, 0),
            Ok((58, 0, 0x8700, 0, Class::Neighbour)),
        ),
        (
            "router advertisement",
            v6().icmp(134, 0, 0),
            Ok((58, 0, 0x8600, 0, Class::Router)),
        ),
    ];
    for (what, packet, expected) in table {
        assert_eq!(&read::<[u8; 16]>(packet), expected, "{what}");
    }
}

#[test]
fn a_frame_names_its_network() {
    let network_of = |packet: PacketBuilder| network(&Slice(packet.frame()));
    assert_eq!(network_of(PacketBuilder::v4(V4.0, V4.1)), Network::V4);
    assert_eq!(network_of(PacketBuilder::v6(V6.0, V6.1)), Network::V6);
    let arp = || PacketBuilder::arp(1, V4.0, V4.1);
    assert_eq!(network_of(arp()), Network::Arp);
    assert_eq!(network_of(PacketBuilder::other(0x88cc)), Network::Other);
    let lldp = Slice(PacketBuilder::other(0x88cc).frame());
    assert_eq!(frame_type(&lldp), 0x88cc);
    assert_eq!(network_of(arp().cut(13)), Network::Short);
}
