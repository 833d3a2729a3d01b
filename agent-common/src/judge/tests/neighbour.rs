//! ARP and neighbour messages: an endpoint speaks for itself.

use super::*;

const OTHER: [u8; 6] = [4; 6];
const NOBODY: [u8; 4] = [0; 4];
const NOBODY_V6: [u8; 16] = [0; 16];
const LINK_LOCAL: [u8; 4] = [169, 254, 7, 7];
const LINK_LOCAL_V6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const ROUTER_SOLICITATION: u8 = 133;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
/// Numbers of an option that claims nothing (RFC 3971, 5.3.2).
const NONCE: u8 = 14;

#[test]
fn arp_of_an_endpoint_is_about_itself() {
    let arp = PacketBuilder::arp;
    let (passes, forged) = (Reason::Arp, Reason::SpoofedNeighbour);
    let table: &[(&str, PacketBuilder, Reason)] = &[
        ("asks", arp(REQUEST, LOCAL, PEER), passes),
        ("answers", arp(REPLY, LOCAL, PEER), passes),
        ("announces itself", arp(REQUEST, LOCAL, LOCAL), passes),
        ("of its link", arp(REQUEST, LINK_LOCAL, PEER), passes),
        ("probes its own", arp(REQUEST, NOBODY, LOCAL), passes),
        (
            "probes one of its link",
            arp(REQUEST, NOBODY, LINK_LOCAL),
            passes,
        ),
        ("probes another's", arp(REQUEST, NOBODY, PEER), forged),
        ("probes nothing", arp(REQUEST, NOBODY, NOBODY), forged),
        ("answers as nobody", arp(REPLY, NOBODY, LOCAL), forged),
        ("asks as another", arp(REQUEST, PEER, NODE), forged),
        ("answers as another", arp(REPLY, PEER, NODE), forged),
        ("announces another", arp(REQUEST, PEER, PEER), forged),
        (
            "by another link address",
            arp(REPLY, LOCAL, PEER).with_link(OTHER),
            forged,
        ),
        ("asks backwards", arp(3, LOCAL, PEER), forged),
        (
            "of another hardware",
            arp(REPLY, LOCAL, PEER).patched(0, &[0, 6]),
            forged,
        ),
        (
            "of another protocol",
            arp(REPLY, LOCAL, PEER).patched(2, &[0x86, 0xdd]),
            forged,
        ),
        (
            "of other lengths",
            arp(REPLY, LOCAL, PEER).patched(4, &[8, 4]),
            forged,
        ),
        (
            "cut short",
            arp(REPLY, LOCAL, PEER).cut(14 + 27),
            Reason::Malformed,
        ),
    ];
    for (what, packet, expected) in table {
        let case = Case::new(&[], &[]);
        assert_eq!(case.sends(packet), *expected, "{what}");
        assert_eq!(case.gets(packet), Reason::Arp, "{what}, of others");
    }
}

#[test]
fn what_is_forged_is_reported_once() {
    let mut case = Case::new(&[], &[]);
    for _ in 0..3 {
        let forged = PacketBuilder::arp(REPLY, PEER, NODE);
        assert_eq!(case.sends(&forged), Reason::SpoofedNeighbour);
    }
    let forged = PacketBuilder::v6(LOCAL_V6, PEER_V6).neighbour(ADVERTISEMENT, PEER_V6);
    assert_eq!(case.sends(&forged), Reason::SpoofedNeighbour);
    let seen: Vec<_> = case
        .0
        .events()
        .iter()
        .map(|event| (event.kind, event.reason, event.family, event.protocol))
        .collect();
    let (kind, reason) = (EventKind::Deny as u8, Reason::SpoofedNeighbour as u8);
    assert_eq!(
        seen,
        [(kind, reason, 4, 0), (kind, reason, 6, protocol::ICMPV6)]
    );
    let counters = case.0.counters(ENDPOINT.id);
    assert_eq!(counters[&Reason::SpoofedNeighbour].packets, 4);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_neighbour_message_of_an_endpoint_is_about_itself() {
    let own = || PacketBuilder::v6(LOCAL_V6, PEER_V6);
    let to_all = |source| PacketBuilder::v6(source, ALL_NODES);
    let (passes, forged) = (Reason::NeighbourDiscovery, Reason::SpoofedNeighbour);
    let table: &[(&str, PacketBuilder, Reason)] = &[
        ("asks", own().neighbour(SOLICITATION, PEER_V6), passes),
        (
            "asks, and says where it is",
            own()
                .neighbour(SOLICITATION, PEER_V6)
                .link_option(SOURCE_LINK, LINK),
            passes,
        ),
        (
            "asks, and says where it is not",
            own()
                .neighbour(SOLICITATION, PEER_V6)
                .link_option(SOURCE_LINK, OTHER),
            forged,
        ),
        (
            "asks from its link",
            to_all(LINK_LOCAL_V6).neighbour(SOLICITATION, PEER_V6),
            passes,
        ),
        (
            "asks as another",
            to_all(PEER_V6).neighbour(SOLICITATION, LOCAL_V6),
            Reason::SpoofedSource,
        ),
        (
            "detects its own address twice",
            to_all(NOBODY_V6)
                .neighbour(SOLICITATION, LOCAL_V6)
                .link_option(NONCE, OTHER),
            passes,
        ),
        (
            "detects one of its link twice",
            to_all(NOBODY_V6).neighbour(SOLICITATION, LINK_LOCAL_V6),
            passes,
        ),
        (
            "detects another's address twice",
            to_all(NOBODY_V6).neighbour(SOLICITATION, PEER_V6),
            forged,
        ),
        (
            "answers",
            own()
                .neighbour(ADVERTISEMENT, LOCAL_V6)
                .link_option(TARGET_LINK, LINK),
            passes,
        ),
        (
            "announces itself",
            to_all(LOCAL_V6).neighbour(ADVERTISEMENT, LOCAL_V6),
            passes,
        ),
        (
            "announces one of its link",
            to_all(LINK_LOCAL_V6)
                .neighbour(ADVERTISEMENT, LINK_LOCAL_V6)
                .link_option(TARGET_LINK, LINK),
            passes,
        ),
        (
            "announces another",
            to_all(LOCAL_V6)
                .neighbour(ADVERTISEMENT, PEER_V6)
                .link_option(TARGET_LINK, LINK),
            forged,
        ),
        (
            "announces itself elsewhere",
            to_all(LOCAL_V6)
                .neighbour(ADVERTISEMENT, LOCAL_V6)
                .link_option(TARGET_LINK, OTHER),
            forged,
        ),
        (
            "says it right and then wrong",
            own()
                .neighbour(ADVERTISEMENT, LOCAL_V6)
                .link_option(NONCE, OTHER)
                .link_option(TARGET_LINK, LINK)
                .link_option(TARGET_LINK, OTHER),
            forged,
        ),
        (
            "behind another header",
            own()
                .extension(crate::testing::packet::HOP_BY_HOP, 1)
                .neighbour(ADVERTISEMENT, PEER_V6),
            forged,
        ),
        (
            "asks for routers",
            to_all(LINK_LOCAL_V6)
                .icmp(ROUTER_SOLICITATION, 0, 0)
                .link_option(SOURCE_LINK, LINK),
            passes,
        ),
        (
            "asks for routers from elsewhere",
            to_all(LINK_LOCAL_V6)
                .icmp(ROUTER_SOLICITATION, 0, 0)
                .link_option(SOURCE_LINK, OTHER),
            forged,
        ),
        ("without a target", own().icmp(ADVERTISEMENT, 0, 0), forged),
        (
            "an option of no length",
            own()
                .neighbour(ADVERTISEMENT, LOCAL_V6)
                .payload(8)
                .patched(25, &[0]),
            forged,
        ),
        (
            "an option that is longer than the message",
            own()
                .neighbour(ADVERTISEMENT, LOCAL_V6)
                .payload(8)
                .patched(25, &[2]),
            forged,
        ),
        (
            "an option that the packet ends in",
            own()
                .neighbour(ADVERTISEMENT, LOCAL_V6)
                .link_option(TARGET_LINK, LINK)
                .cut(14 + 40 + 24 + 4),
            forged,
        ),
        (
            "tells of its groups",
            to_all(LINK_LOCAL_V6).icmp(143, 0, 0).payload(20),
            passes,
        ),
    ];
    for (what, packet, expected) in table {
        let case = Case::new(&[], &[]);
        assert_eq!(case.sends(packet), *expected, "{what}");
        assert_eq!(case.gets(packet), passes, "{what}, of others");
    }
}

#[test]
fn options_of_a_message_are_walked_to_their_end_however_long_it_is() {
    // Policy permits it, and it would be judged as any other ICMP.
    let port = u16::from(ADVERTISEMENT) << 8;
    let case = Case::new(&[], &[(protocol::ICMPV6, port)]);
    let own = PacketBuilder::v6(LOCAL_V6, PEER_V6).neighbour(ADVERTISEMENT, LOCAL_V6);
    let long = |options| {
        let own = own.clone();
        (0..options).fold(own, |message, _| message.link_option(NONCE, OTHER))
    };
    assert_eq!(case.sends(&long(12)), Reason::NeighbourDiscovery);
    assert_eq!(case.sends(&long(14)), Reason::Rule);
    assert_eq!(case.sends(&long(15)), Reason::SpoofedNeighbour);
    let late = long(12).link_option(TARGET_LINK, OTHER);
    assert_eq!(case.sends(&late), Reason::SpoofedNeighbour);
    let other = PacketBuilder::v6(LOCAL_V6, PEER_V6).neighbour(ADVERTISEMENT, PEER_V6);
    let late = (0..13).fold(other, |message, _| message.link_option(NONCE, OTHER));
    assert_eq!(case.sends(&late), Reason::SpoofedNeighbour);
}

#[test]
fn an_endpoint_whose_source_is_not_checked_speaks_for_anybody() {
    let case = Case::new(&[], &[]);
    let unchecked = Endpoint {
        flags: 0,
        ..ENDPOINT
    };
    let sent = |packet: PacketBuilder| {
        let frame = packet.frame();
        case.0
            .frame(unchecked, Direction::Egress, &frame, false)
            .reason()
    };
    assert_eq!(sent(PacketBuilder::arp(REPLY, PEER, NODE)), Reason::Arp);
    let message = PacketBuilder::v6(PEER_V6, ALL_NODES).neighbour(ADVERTISEMENT, PEER_V6);
    assert_eq!(sent(message), Reason::NeighbourDiscovery);
}

#[test]
fn a_service_of_the_node_says_nothing_of_who_is_where() {
    let case = Case::new(&[], &[HTTPS]);
    let service = Endpoint {
        id: ENDPOINT.id,
        flags: Endpoint::NO_LINK,
    };
    let sent = |packet: PacketBuilder| {
        let frame = packet.frame();
        let verdict = case.0.frame(service, Direction::Egress, &frame, false);
        verdict.reason()
    };
    let forged = Reason::SpoofedNeighbour;
    assert_eq!(sent(PacketBuilder::arp(REPLY, LOCAL, PEER)), forged);
    let message = PacketBuilder::v6(LOCAL_V6, ALL_NODES).neighbour(ADVERTISEMENT, LOCAL_V6);
    assert_eq!(sent(message), forged);
    let router = PacketBuilder::v6(LOCAL_V6, ALL_NODES).icmp(134, 0, 0);
    assert_eq!(sent(router), Reason::RogueRouter);
    // What policy is about, it decides.
    assert_eq!(sent(out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(sent(out().tcp(4000, 444, SYN)), Reason::DefaultDeny);
}

#[test]
fn what_is_forged_passes_while_the_endpoint_is_only_observed() {
    let case = Case::new(&[], &[]);
    let forged = PacketBuilder::arp(REPLY, PEER, NODE).frame();
    let verdict = case
        .0
        .frame(ENDPOINT.observed(), Direction::Egress, &forged, false);
    assert_eq!(verdict.reason(), Reason::Observed);
}

#[test]
fn frames_beside_ip_pass_if_the_settings_name_them() {
    const LLDP: u16 = 0x88cc;
    const TIME: u16 = 0x88f7;
    let mut case = Case::new(&[], &[]);
    case.0.frames.insert(LLDP);
    for (kind, expected) in [(LLDP, Reason::AllowedFrame), (TIME, Reason::NotIp)] {
        assert_eq!(case.sends(&PacketBuilder::other(kind)), expected);
        assert_eq!(case.gets(&PacketBuilder::other(kind)), expected);
    }
}
