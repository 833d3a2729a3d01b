//! Packets in pieces.

use super::*;
use crate::fragment::PLACES;

const DNS: (u8, u16) = (protocol::UDP, 53);
/// Bytes of the first piece, and where the next begins.
const FIRST: usize = 1200;
const NEXT: u16 = 150;

fn out_v6() -> PacketBuilder {
    PacketBuilder::v6(LOCAL_V6, PEER_V6)
}

/// The first of several pieces.
fn first(packet: PacketBuilder, port: u16) -> PacketBuilder {
    packet.fragment(0, true).udp(4000, port).payload(FIRST - 8)
}

/// A later one; what it carries looks like a header with a permitted port.
fn later(packet: PacketBuilder, offset: u16) -> PacketBuilder {
    packet.fragment(offset, false).udp(4000, 53).payload(100)
}

#[test]
fn later_pieces_go_where_the_first_went() {
    for packet in [out, out_v6] {
        let case = Case::new(&[], &[DNS]);
        assert_eq!(case.sends(&later(packet(), NEXT)), Reason::Fragment);
        assert_eq!(case.sends(&first(packet(), 53)), Reason::Rule);
        assert_eq!(case.sends(&later(packet(), NEXT)), Reason::Rule);
        assert_eq!(case.sends(&later(packet(), NEXT + 20)), Reason::Rule);
        // Of another packet, or the other way.
        let other = later(packet().numbered(2), NEXT);
        assert_eq!(case.sends(&other), Reason::Fragment);
        assert_eq!(case.gets(&later(packet(), NEXT)), Reason::Fragment);
    }
}

#[test]
fn later_pieces_of_a_denied_packet_are_dropped() {
    for packet in [out, out_v6] {
        let case = Case::new(&[], &[DNS]);
        assert_eq!(case.sends(&first(packet(), 54)), Reason::DefaultDeny);
        assert_eq!(case.sends(&later(packet(), NEXT)), Reason::Fragment);
    }
}

#[test]
fn a_piece_that_reaches_into_the_first_is_dropped() {
    for packet in [out, out_v6] {
        let case = Case::new(&[], &[DNS]);
        assert_eq!(case.sends(&first(packet(), 53)), Reason::Rule);
        for offset in [1, 2, NEXT - 1] {
            let overlapping = later(packet(), offset);
            assert_eq!(case.sends(&overlapping), Reason::Fragment, "at {offset}");
        }
        // Nor does a second first one open another port, and the packet goes on as it was.
        assert_eq!(case.sends(&first(packet(), 54)), Reason::DefaultDeny);
        assert_eq!(case.sends(&later(packet(), NEXT)), Reason::Rule);
    }
}

#[test]
fn a_first_piece_without_all_of_its_header_is_dropped() {
    let case = Case::new(&[], &[HTTPS]);
    let short = out().fragment(0, true).tcp(4000, 443, SYN).cut(14 + 28);
    assert_eq!(case.sends(&short), Reason::Malformed);
    assert_eq!(case.sends(&later(out(), 1)), Reason::Fragment);
    // With the flags, and no more: the rest of the header cannot be replaced in part.
    let whole = out().fragment(0, true).tcp(4000, 443, ACK);
    assert_eq!(case.sends(&whole), Reason::Rule);
    assert_eq!(case.sends(&later(out(), 1)), Reason::Fragment);
    assert_eq!(case.sends(&later(out(), 2)), Reason::Fragment);
    assert_eq!(case.sends(&later(out(), 3)), Reason::Rule);
}

#[test]
fn a_piece_is_judged_by_the_policy_of_now() {
    let mut case = Case::new(&[], &[DNS]);
    assert_eq!(case.sends(&first(out(), 53)), Reason::Rule);
    case.told(DNS, Decision::new(Action::Deny, RuleId(3)));
    assert_eq!(case.sends(&later(out(), NEXT)), Reason::Revoked);
}

#[test]
fn an_echo_in_pieces_is_answered_in_pieces() {
    for (there, back, ask, answer) in [
        (out(), back(), 8, 0),
        (out_v6(), PacketBuilder::v6(PEER_V6, LOCAL_V6), 128, 129),
    ] {
        let port = u16::from(ask) << 8;
        let protocol = if ask == 8 {
            protocol::ICMP
        } else {
            protocol::ICMPV6
        };
        let case = Case::new(&[], &[(protocol, port)]);
        let unasked = back.clone().fragment(0, true).icmp(answer, 0, 7);
        assert_eq!(case.gets(&unasked.payload(FIRST - 8)), Reason::NoState);
        let asks = there.clone().fragment(0, true).icmp(ask, 0, 7);
        assert_eq!(case.sends(&asks.payload(FIRST - 8)), Reason::Rule);
        assert_eq!(case.sends(&later(there, NEXT)), Reason::Rule);
        let answers = back.clone().fragment(0, true).icmp(answer, 0, 7);
        assert_eq!(case.gets(&answers.payload(FIRST - 8)), Reason::Rule);
        assert_eq!(case.gets(&later(back, NEXT)), Reason::Rule);
    }
}

#[test]
fn what_must_come_whole_does_not_pass_in_pieces() {
    let case = Case::new(&[], &[DNS]);
    let message = |kind| out_v6().fragment(0, true).icmp(kind, 0, 0).payload(16);
    assert_eq!(case.sends(&message(134)), Reason::RogueRouter);
    assert_eq!(case.sends(&message(135)), Reason::DefaultDeny);
    assert_eq!(case.sends(&later(out_v6(), 3)), Reason::Fragment);

    assert_eq!(case.sends(&out().udp(4000, 53)), Reason::Rule);
    let quoted = out().udp(4000, 53);
    let error = back().fragment(0, true).icmp_error(3, 3, &quoted, 28);
    assert_eq!(case.gets(&error), Reason::Related);
    assert_eq!(case.gets(&later(back(), 5)), Reason::Fragment);
}

#[test]
fn an_endpoint_forgets_its_own_packets_alone() {
    const OTHER: Endpoint = Endpoint { id: 4, flags: 0 };
    let mut case = Case::with_room(&[], &[DNS], 1000);
    case.0.words.insert(OTHER.id, Word::new(1, 1));
    let theirs = |packet: &PacketBuilder| {
        let verdict = case
            .0
            .frame(OTHER, Direction::Egress, &packet.frame(), false);
        verdict.reason()
    };
    assert_eq!(theirs(&first(out(), 53)), Reason::Rule);
    let all = 10 * u16::try_from(PLACES).unwrap();
    for number in 1..=all {
        let packet = first(out().numbered(number), 53);
        assert_eq!(case.sends(&packet), Reason::Rule);
    }
    let followed = (1..=all).filter(|number| {
        let packet = later(out().numbered(*number), NEXT);
        case.sends(&packet) == Reason::Rule
    });
    let followed = followed.count();
    assert!((16..=64).contains(&followed), "{followed}");
    assert_eq!(theirs(&later(out(), NEXT)), Reason::Rule);
}
