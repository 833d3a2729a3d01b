//! An endpoint that was attached just now, and the flows that there were before.

use super::*;

const OBSERVED: Endpoint = ENDPOINT.observed();

fn judged(case: &Case, direction: Direction, packet: &PacketBuilder) -> Reason {
    let verdict = case.0.frame(OBSERVED, direction, &packet.frame(), false);
    assert!(verdict.allows(), "{verdict:?}");
    verdict.reason()
}

/// A flow that the agent found, begun by whoever the origin says.
fn found(case: &Case, origin: u8) {
    let key = FlowKey {
        endpoint: ENDPOINT.id,
        protocol: protocol::TCP,
        zero: 0,
        local_port: 443,
        remote_port: 4000,
        local: LOCAL,
        remote: PEER,
    };
    let state = FlowState {
        generation: Flow::NEVER,
        rule: 0,
        reason: Reason::Observed as u8,
        origin,
        tcp_flags: [SYN | ACK; 2],
        closed: 0,
        rtt: 0,
        opened: 1,
        last_seen: 1,
        packets: [0; 2],
        bytes: [0; 2],
    };
    assert!(case.0.remember(&key, &state, Place::New));
}

#[test]
fn what_is_denied_passes_and_leaves_nothing_behind() {
    let mut case = Case::new(&[], &[]);
    let spoofed = PacketBuilder::v4(PEER, PEER).tcp(4000, 443, SYN);
    let reply = back().icmp(0, 0, 7);
    for (direction, packet) in [
        (Direction::Egress, out().tcp(4000, 443, SYN)),
        (Direction::Ingress, back().tcp(443, 4000, ACK)),
        (Direction::Egress, spoofed),
        (Direction::Ingress, reply),
    ] {
        assert_eq!(judged(&case, direction, &packet), Reason::Observed);
    }
    let frame = [0_u8; 20];
    let short = case.0.frame(OBSERVED, Direction::Egress, &frame, false);
    assert_eq!(short.reason(), Reason::Observed);
    assert!(case.0.flows_v4().is_empty() && case.0.denials().is_empty());
    assert_eq!(case.kinds(), []);
    let counters = case.0.counters(ENDPOINT.id);
    assert_eq!(counters.keys().collect::<Vec<_>>(), [&Reason::Observed]);
}

#[test]
fn what_begins_is_remembered_and_what_goes_on_is_not() {
    let mut case = Case::new(&[HTTPS], &[HTTPS]);
    let on = out().tcp(4001, 443, ACK);
    assert_eq!(judged(&case, Direction::Egress, &on), Reason::Rule);
    assert!(case.0.flows_v4().is_empty());
    let begin = out().tcp(4000, 443, SYN);
    assert_eq!(judged(&case, Direction::Egress, &begin), Reason::Rule);
    assert_eq!(case.0.flows_v4().len(), 1);
    // Enforced, the reply finds it.
    assert_eq!(case.gets(&back().tcp(443, 4000, SYN | ACK)), Reason::Rule);
    assert_eq!(case.kinds(), [EventKind::Open as u8]);
}

#[test]
fn a_flow_of_before_goes_on_by_who_began_it() {
    let mut case = Case::new(&[HTTPS], &[]);
    found(&case, Flow::INITIATED_BY_PEER);
    // The responder speaks first, and may not begin a flow.
    assert_eq!(case.sends(&out().tcp(443, 4000, ACK)), Reason::Rule);
    let events = case.0.events();
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.kind, event.origin))
        .collect();
    assert_eq!(told, [(EventKind::Open as u8, Flow::INITIATED_BY_PEER)]);
    assert_eq!(case.gets(&back().tcp(4000, 443, ACK)), Reason::Rule);
    let flow = case.0.flows_v4().into_values().next().unwrap();
    assert_eq!((flow.packets, flow.reason), ([1, 1], Reason::Rule as u8));
    assert_eq!(flow.generation, 1);
}

#[test]
fn a_flow_of_before_that_is_denied_ends_though_its_responder_may_begin_some() {
    let mut case = Case::new(&[(protocol::TCP, 4000)], &[(protocol::TCP, 4000)]);
    found(&case, Flow::INITIATED_BY_PEER);
    // To port 4000, as a flow of the endpoint's own, it would be permitted.
    assert_eq!(case.sends(&out().tcp(443, 4000, ACK)), Reason::Revoked);
    assert_eq!(case.gets(&back().tcp(4000, 443, ACK)), Reason::Revoked);
    let close = EventKind::Close as u8;
    assert_eq!(case.kinds()[0], close);
    // While it is observed, it is judged all the same, and passes.
    let case = Case::new(&[], &[]);
    found(&case, 0);
    let sent = out().tcp(443, 4000, ACK);
    assert_eq!(judged(&case, Direction::Egress, &sent), Reason::Observed);
    assert_eq!(case.sends(&sent), Reason::Revoked);
}
