//! When a flow learns how long its round trips take.

use super::*;
use crate::rtt::RoundTrip;

const OPEN: (Direction, u8) = (Direction::Egress, SYN);

fn case() -> Case {
    let mut case = Case::new(&[], &[HTTPS]);
    case.0.round_trip = 900;
    case
}

fn sends(case: &Case, flags: u8) {
    assert_eq!(case.sends(&out().tcp(4000, 443, flags)), Reason::Rule);
}

/// What the one flow knows, in microseconds.
fn known(case: &Case) -> u32 {
    let flows = case.0.flows_v4();
    assert_eq!(flows.len(), 1);
    RoundTrip(flows.values().next().unwrap().rtt).micros()
}

#[test]
fn it_is_asked_now_and_then_and_not_with_every_packet() {
    let mut case = case();
    sends(&case, OPEN.1);
    assert_eq!(known(&case), 0, "there is nothing to measure yet");
    case.0.jiffies = 255;
    sends(&case, ACK);
    assert_eq!(known(&case), 0);
    case.0.jiffies = 256;
    sends(&case, ACK);
    assert_eq!(known(&case), 900);
    case.0.round_trip = 800;
    case.0.jiffies = 511;
    sends(&case, ACK);
    assert_eq!(known(&case), 900);
    case.0.jiffies = 512;
    sends(&case, ACK);
    assert_eq!(known(&case), 800);
}

#[test]
fn the_end_has_the_last_one() {
    for last in [FIN | ACK, RST] {
        let mut case = case();
        sends(&case, SYN);
        sends(&case, last);
        assert_eq!(known(&case), 900);
        if last == RST {
            let events = case.0.events();
            let close = events.last().unwrap();
            assert_eq!(close.kind, EventKind::Close as u8);
            assert_eq!(RoundTrip(close.rtt).micros(), 900);
        }
    }
}

#[test]
fn what_a_socket_does_not_know_changes_nothing() {
    let mut case = case();
    sends(&case, SYN);
    case.0.jiffies = 256;
    sends(&case, ACK);
    case.0.round_trip = 0;
    case.0.jiffies = 512;
    sends(&case, ACK);
    assert_eq!(known(&case), 900);
}

#[test]
fn only_tcp_is_measured() {
    let mut case = Case::new(&[], &[(protocol::UDP, 53)]);
    case.0.round_trip = 900;
    for jiffies in [1, 256, 512] {
        case.0.jiffies = jiffies;
        assert_eq!(case.sends(&out().udp(5000, 53)), Reason::Rule);
    }
    assert_eq!(known(&case), 0);
}
