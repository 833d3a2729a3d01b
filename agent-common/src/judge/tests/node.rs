//! Nodes as subjects: their hooks see what is not theirs, too.

use super::*;

const HOST: Endpoint = Endpoint {
    id: ENDPOINT.id,
    flags: Endpoint::ONLY_OWN,
};

/// A node whose hooks see what its pods' sockets do, too.
fn host(case: &Case, direction: Direction, packet: &PacketBuilder, loopback: bool) -> Reason {
    let verdict = case.0.frame(HOST, direction, &packet.frame(), loopback);
    verdict.reason()
}

#[test]
fn a_node_is_judged_for_its_own_addresses_alone() {
    const POD: [u8; 4] = [10, 0, 0, 3];
    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
    let case = Case::new(&[], &[]);
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let syn = |from, to| PacketBuilder::v4(from, to).tcp(4000, 443, SYN);
    for (direction, packet, loopback, expected) in [
        (
            egress,
            out().tcp(4000, 443, SYN),
            false,
            Reason::DefaultDeny,
        ),
        (
            ingress,
            back().tcp(4000, 443, SYN),
            false,
            Reason::DefaultDeny,
        ),
        (egress, syn(POD, PEER), false, Reason::NotSubject),
        (ingress, syn(PEER, POD), false, Reason::NotSubject),
        (egress, syn(LOOPBACK, LOOPBACK), true, Reason::NotSubject),
        (ingress, syn(LOCAL, LOCAL), true, Reason::NotSubject),
        // Its own address as a source is no pass for what comes over a wire.
        (ingress, syn(LOCAL, LOCAL), false, Reason::DefaultDeny),
        (
            egress,
            syn(POD, PEER).fragment(3, false),
            false,
            Reason::NotSubject,
        ),
        (
            egress,
            out().udp(4000, 443).fragment(3, false),
            false,
            Reason::Fragment,
        ),
    ] {
        let seen = host(&case, direction, &packet, loopback);
        assert_eq!(seen, expected, "{direction:?} {packet:?}");
    }
    assert!(case.0.flows_v4().is_empty());
}

#[test]
fn a_node_adopts_a_live_connection_only_if_policy_permits_it() {
    let ssh = (protocol::TCP, 22);
    let case = Case::new(&[ssh], &[]);
    // What the node sends first is nobody's reply yet; what the operator sends makes it one.
    let answer = out().tcp(22, 5000, ACK);
    assert_eq!(
        host(&case, Direction::Egress, &answer, false),
        Reason::DefaultDeny
    );
    let typed = back().tcp(5000, 22, ACK);
    assert_eq!(host(&case, Direction::Ingress, &typed, false), Reason::Rule);
    assert_eq!(host(&case, Direction::Egress, &answer, false), Reason::Rule);
    let other = back().tcp(5000, 23, ACK);
    assert_eq!(
        host(&case, Direction::Ingress, &other, false),
        Reason::DefaultDeny
    );
}

#[test]
fn a_node_may_be_a_router() {
    let case = Case::new(&[], &[]);
    let advertisement = PacketBuilder::v6(LOCAL_V6, PEER_V6).icmp(134, 0, 0);
    let seen = host(&case, Direction::Egress, &advertisement, false);
    assert_eq!(seen, Reason::NeighbourDiscovery);
}

#[test]
fn a_node_answers_an_echo_request_that_policy_permits() {
    let reply = out().icmp(0, 0, 7);
    let asked = Case::new(&[ECHO], &[]);
    assert_eq!(host(&asked, Direction::Egress, &reply, false), Reason::Rule);
    let not_asked = Case::new(&[], &[ECHO]);
    assert_eq!(
        host(&not_asked, Direction::Egress, &reply, false),
        Reason::NoState
    );
    // What comes in must be an answer to somebody.
    let reply = back().icmp(0, 0, 7);
    assert_eq!(
        host(&asked, Direction::Ingress, &reply, false),
        Reason::NoState
    );
}
