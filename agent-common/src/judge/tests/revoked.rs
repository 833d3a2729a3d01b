//! What becomes of a flow that is no longer permitted, beyond its packets.

use super::*;
use crate::withdrawn::is_withdrawn;

impl Case {
    /// From the next generation on, nothing may be reached.
    fn withdraws(&mut self) {
        self.0.tables.egress.clear();
        self.follows();
    }

    fn follows(&mut self) {
        let generation = self.0.words[&ENDPOINT.id].generation();
        let word = Word::new(1, generation + 1);
        self.0.words.insert(ENDPOINT.id, word);
    }

    /// The local ports of flows that are no longer permitted.
    fn withdrawn(&self) -> Vec<u16> {
        let word = self.0.words[&ENDPOINT.id];
        let keys = self.0.flows_v4().into_keys();
        let withdrawn = keys.filter(|key| {
            let flow = self.0.flow(key).expect("it is in the table");
            is_withdrawn(&self.0, key, flow, ENDPOINT, word)
        });
        withdrawn.map(|key| key.local_port).collect()
    }
}

#[test]
fn the_endpoint_takes_leave_of_a_revoked_connection_once() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.withdraws();
    assert_eq!(case.gets(&back().tcp(443, 4000, RST)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(4000, 443, ACK)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(4000, 443, RST | ACK)), Reason::Rule);
    assert_eq!(
        case.sends(&out().tcp(4000, 443, RST | ACK)),
        Reason::Revoked
    );
    assert_eq!(case.gets(&back().tcp(443, 4000, RST)), Reason::Revoked);
    // Nothing else comes through behind it.
    assert_eq!(case.sends(&out().tcp(4000, 443, ACK)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::DefaultDeny);
    let close = EventKind::Close as u8;
    let is_close = |kind: &u8| *kind == close;
    assert_eq!(case.kinds().into_iter().filter(is_close).count(), 1);
}

#[test]
fn flows_of_an_address_that_was_taken_away_are_cut() {
    let mut case = Case::new(&[(6, 22)], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(5000, 22, SYN)), Reason::Rule);
    case.0.own.clear();
    case.follows();
    assert_eq!(case.withdrawn(), [22, 4000]);
    // Whoever began them, and whichever way the packet goes.
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(4000, 443, ACK)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(22, 5000, SYN | ACK)), Reason::Revoked);
    assert_eq!(
        case.sends(&out().tcp(4001, 443, SYN)),
        Reason::SpoofedSource
    );
}

#[test]
fn it_takes_leave_even_with_its_first_packet_since() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.withdraws();
    assert_eq!(case.sends(&out().tcp(4000, 443, RST)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(4000, 443, RST)), Reason::Revoked);
    let events = case.0.events();
    assert_eq!(events[1].kind, EventKind::Close as u8);
    assert_eq!(events[1].reason, Reason::Revoked as u8);
}

#[test]
fn a_reset_is_no_way_to_send_data() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.withdraws();
    let laden = out().tcp(4000, 443, RST).payload(200);
    assert_eq!(case.sends(&laden), Reason::Revoked);
}

#[test]
fn a_revoked_connection_that_the_endpoint_has_left_is_not_looked_for_again() {
    let mut case = Case::new(&[], &[HTTPS]);
    for port in [4000, 4001] {
        assert_eq!(case.sends(&out().tcp(port, 443, SYN)), Reason::Rule);
    }
    case.withdraws();
    assert_eq!(case.sends(&out().tcp(4000, 443, RST)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 4001, RST)), Reason::Revoked);
    case.withdraws();
    assert_eq!(case.withdrawn(), [4001]);
    // Asked once more, it says that it knows nothing of it: that keeps no entry.
    let before = case.0.flows_v4();
    case.0.jiffies += 1000;
    assert_eq!(case.sends(&out().tcp(4000, 443, RST)), Reason::Revoked);
    assert_eq!(case.0.flows_v4(), before);
}

#[test]
fn what_is_withdrawn_is_found_before_its_next_packet() {
    let dns = (protocol::UDP, 53);
    let mut case = Case::new(&[], &[HTTPS, dns]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.sends(&out().udp(4001, 53)), Reason::Rule);
    assert_eq!(case.withdrawn(), []);
    case.follows();
    assert_eq!(case.withdrawn(), []);
    case.withdraws();
    assert_eq!(case.withdrawn(), [4000, 4001]);
    // A packet has found it meanwhile: its socket is there still.
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
    assert_eq!(case.withdrawn(), [4000, 4001]);
}

#[test]
fn what_has_ended_or_was_taken_up_in_the_middle_is_not_withdrawn() {
    let mut case = Case::new(&[], &[HTTPS, ECHO]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(4000, 443, RST)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(4001, 443, ACK)), Reason::Rule);
    assert_eq!(case.sends(&out().icmp(8, 0, 7)), Reason::Rule);
    case.withdraws();
    assert_eq!(case.withdrawn(), []);
}
