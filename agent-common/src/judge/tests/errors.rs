//! Errors of `ICMPv6`, which have to find their flows as those of ICMP do.

use super::*;

const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const STRANGER: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
/// A header and the 8 bytes behind it.
const LEAST: usize = 48;

fn out() -> PacketBuilder {
    PacketBuilder::v6(LOCAL_V6, PEER_V6)
}

fn back() -> PacketBuilder {
    PacketBuilder::v6(PEER_V6, LOCAL_V6)
}

fn router() -> PacketBuilder {
    PacketBuilder::v6(STRANGER, LOCAL_V6)
}

#[test]
fn a_packet_that_is_too_big_is_told_if_it_is_of_a_live_flow() {
    let case = Case::new(&[], &[HTTPS]);
    let (asked, other) = (out().tcp(4000, 443, SYN), out().tcp(4001, 443, SYN));
    assert_eq!(case.sends(&asked), Reason::Rule);
    let too_big = |packet, bytes| router().icmp_error(TOO_BIG, 0, packet, bytes);
    assert_eq!(case.gets(&too_big(&asked, LEAST)), Reason::Related);
    assert_eq!(case.gets(&too_big(&other, LEAST)), Reason::DefaultDeny);
    assert_eq!(case.gets(&too_big(&asked, LEAST - 8)), Reason::DefaultDeny);
    // It travels against what it quotes.
    assert_eq!(
        case.sends(&out().icmp_error(TOO_BIG, 0, &asked, LEAST)),
        Reason::DefaultDeny
    );
    // An answer that the endpoint has not given.
    let echo = out().icmp(129, 0, 7);
    assert_eq!(case.gets(&too_big(&echo, LEAST)), Reason::DefaultDeny);
}

#[test]
fn the_flow_is_found_behind_extension_headers() {
    let case = Case::new(&[], &[HTTPS]);
    let asked = out().tcp(4000, 443, SYN).extension(60, 0).extension(43, 1);
    assert_eq!(case.sends(&asked), Reason::Rule);
    let error = router().icmp_error(UNREACHABLE, 0, &asked, LEAST + 24);
    assert_eq!(case.gets(&error), Reason::Related);
    let too_short = router().icmp_error(UNREACHABLE, 0, &asked, LEAST + 16);
    assert_eq!(case.gets(&too_short), Reason::DefaultDeny);
}

#[test]
fn it_goes_only_to_the_sender_of_what_it_quotes() {
    let case = Case::new(&[HTTPS], &[]);
    let asked = back().tcp(4000, 443, SYN);
    assert_eq!(case.gets(&asked), Reason::Rule);
    let error = |packet: PacketBuilder| packet.icmp_error(UNREACHABLE, 4, &asked, LEAST);
    assert_eq!(case.sends(&error(out())), Reason::Related);
    assert_eq!(
        case.sends(&error(PacketBuilder::v6(LOCAL_V6, STRANGER))),
        Reason::DefaultDeny
    );
    assert_eq!(
        case.sends(&error(PacketBuilder::v6(STRANGER, PEER_V6))),
        Reason::SpoofedSource
    );
}
