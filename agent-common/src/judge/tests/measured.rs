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
fn it_is_asked_until_it_is_known_and_then_with_one_packet_of_many() {
    let mut case = case();
    case.0.round_trip = 0;
    sends(&case, OPEN.1);
    sends(&case, ACK);
    assert_eq!(known(&case), 0, "there is nothing to measure yet");
    case.0.round_trip = 900;
    sends(&case, ACK);
    assert_eq!(known(&case), 900);
    case.0.round_trip = 800;
    for _ in 3..16 {
        sends(&case, ACK);
        assert_eq!(known(&case), 900);
    }
    // What the other end says in between takes no turn of these.
    for _ in 0..16 {
        assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
    }
    case.0.round_trip = 700;
    sends(&case, ACK);
    assert_eq!(known(&case), 700);
}

#[test]
fn where_nothing_is_ever_known_it_is_not_asked_for_ever() {
    let mut case = case();
    case.0.round_trip = 0;
    for _ in 0..17 {
        sends(&case, if known_flows(&case) == 0 { SYN } else { ACK });
    }
    case.0.round_trip = 900;
    sends(&case, ACK);
    assert_eq!(known(&case), 0);
}

fn known_flows(case: &Case) -> usize {
    case.0.flows_v4().len()
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
    sends(&case, ACK);
    assert_eq!(known(&case), 900);
    case.0.round_trip = 0;
    for _ in 0..32 {
        sends(&case, ACK);
    }
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
