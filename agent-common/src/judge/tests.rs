//! The rules of judging, one test each, over plain collections.

mod dhcp;
mod errors;
mod measured;
mod neighbour;
mod node;
mod observed;
mod pieces;
mod process;
mod revoked;
mod time;

use std::vec::Vec;

use super::*;
use crate::{
    flow::tcp::{ACK, FIN, RST, SYN},
    table::{Decision, NO_TABLE, PolicyKey, PortKey, THIS_NODE, Versioned, WORLD},
    testing::{PacketBuilder, Twin, packet::LINK},
    verdict::Action,
};

const LOCAL: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];
const NODE: [u8; 4] = [10, 0, 0, 254];
const LOCAL_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PEER_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const ENDPOINT: Endpoint = Endpoint {
    id: 3,
    flags: Endpoint::OWNS_ADDRESSES | Endpoint::CHECK_SOURCE,
};

/// Ports that the endpoint may reach and be reached at, by anybody: one list for each direction.
#[derive(Debug, Default)]
struct Ports {
    ingress: Vec<(u8, u16)>,
    egress: Vec<(u8, u16)>,
    /// What is said of a port instead, in both directions.
    told: Vec<((u8, u16), Decision)>,
}

impl<A: crate::protocol::Address> Tables<A> for Ports {
    fn identity(&self, address: &A) -> Versioned {
        let is_node = address.mapped() == crate::protocol::Address::mapped(NODE);
        Versioned::settled(if is_node { THIS_NODE } else { WORLD })
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        if key.identity == THIS_NODE {
            return Versioned::settled(NO_TABLE);
        }
        Versioned::settled(key.direction + 1)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        let ports = if key.table == 1_u32.to_be_bytes() {
            &self.ingress
        } else {
            &self.egress
        };
        let port = (key.protocol, u16::from_be_bytes(key.port));
        if let Some((_, decision)) = self.told.iter().find(|(told, _)| *told == port) {
            *decision
        } else if ports.contains(&port) {
            Decision::new(Action::Allow, RuleId(9))
        } else {
            Decision::NO_MATCH
        }
    }

    fn now(&self) -> u64 {
        0
    }
}

struct Case(Twin<Ports>);

impl Case {
    fn new(ingress: &[(u8, u16)], egress: &[(u8, u16)]) -> Self {
        Self::with_room(ingress, egress, 4)
    }

    /// With room for so many flows of each family.
    fn with_room(ingress: &[(u8, u16)], egress: &[(u8, u16)], flows: usize) -> Self {
        let ports = Ports {
            ingress: ingress.to_vec(),
            egress: egress.to_vec(),
            told: Vec::new(),
        };
        let mut twin = Twin::new(ports, flows);
        twin.words.insert(ENDPOINT.id, Word::new(1, 1));
        twin.own.extend([
            crate::table::OwnAddress {
                endpoint: u32::from(ENDPOINT.id),
                address: crate::protocol::Address::mapped(LOCAL),
            },
            crate::table::OwnAddress {
                endpoint: u32::from(ENDPOINT.id),
                address: LOCAL_V6,
            },
        ]);
        Self(twin)
    }

    fn sends(&self, packet: &PacketBuilder) -> Reason {
        let verdict = self
            .0
            .frame(ENDPOINT, Direction::Egress, &packet.frame(), false);
        verdict.reason()
    }

    fn gets(&self, packet: &PacketBuilder) -> Reason {
        let verdict = self
            .0
            .frame(ENDPOINT, Direction::Ingress, &packet.frame(), false);
        verdict.reason()
    }

    /// From the next generation on, this is said of a port.
    fn told(&mut self, port: (u8, u16), decision: Decision) {
        self.0.tables.told = Vec::from([(port, decision)]);
        let generation = self.0.words[&ENDPOINT.id].generation();
        self.0
            .words
            .insert(ENDPOINT.id, Word::new(1, generation + 1));
    }

    fn kinds(&mut self) -> Vec<u8> {
        self.0.events().iter().map(|event| event.kind).collect()
    }
}

fn out() -> PacketBuilder {
    PacketBuilder::v4(LOCAL, PEER)
}

fn back() -> PacketBuilder {
    PacketBuilder::v4(PEER, LOCAL)
}

const HTTPS: (u8, u16) = (protocol::TCP, 443);
const ECHO: (u8, u16) = (protocol::ICMP, 8 << 8);

#[test]
fn a_reply_passes_without_a_rule_of_its_own() {
    let case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 4000, SYN | ACK)), Reason::Rule);
}

#[test]
fn an_address_of_the_link_is_nobody_s_own() {
    let case = Case::new(&[], &[]);
    let router = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for packet in [
        PacketBuilder::v6(router, router),
        PacketBuilder::v4([169, 254, 1, 1], [169, 254, 1, 1]),
        PacketBuilder::v4([0; 4], [0; 4]),
    ] {
        let packet = packet.udp(4000, 53);
        assert_eq!(case.sends(&packet), Reason::SpoofedSource, "{packet:?}");
    }
    let own = PacketBuilder::v6(LOCAL_V6, LOCAL_V6).udp(4000, 53);
    assert_eq!(case.sends(&own), Reason::OwnAddress);
}

#[test]
fn an_address_of_the_link_that_was_taken_away_is_no_longer_its_own() {
    let address = [169, 254, 1, 1];
    let mut case = Case::new(&[], &[]);
    let own = crate::table::OwnAddress {
        endpoint: u32::from(ENDPOINT.id),
        address: crate::protocol::Address::mapped(address),
    };
    case.0.own.insert(own);
    let packet = PacketBuilder::v4(address, address).udp(4000, 53);
    assert_eq!(case.sends(&packet), Reason::OwnAddress);
    case.0.own.remove(&own);
    case.0.words.insert(ENDPOINT.id, Word::new(1, 2));
    assert_eq!(case.sends(&packet), Reason::Revoked);
}

#[test]
fn a_syn_is_never_a_reply() {
    let case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 4000, SYN)), Reason::DefaultDeny);
    // And the flow that it named lives on.
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
}

#[test]
fn an_init_is_never_a_reply() {
    const DATA: u8 = 0;
    const INIT: u8 = 1;
    const INIT_ACK: u8 = 2;
    let case = Case::new(&[], &[(protocol::SCTP, 443)]);
    assert_eq!(case.sends(&out().sctp_chunk(4000, 443, INIT)), Reason::Rule);
    for chunk in [INIT_ACK, DATA] {
        let reply = back().sctp_chunk(443, 4000, chunk);
        assert_eq!(case.gets(&reply), Reason::Rule, "chunk {chunk}");
    }
    let other = back().sctp_chunk(443, 4000, INIT);
    assert_eq!(case.gets(&other), Reason::DefaultDeny);
    // And the association that it named lives on, and may be asked for again.
    assert_eq!(case.gets(&back().sctp(443, 4000)), Reason::Rule);
    assert_eq!(case.sends(&out().sctp_chunk(4000, 443, INIT)), Reason::Rule);
}

#[test]
fn a_port_that_is_used_again_is_another_flow() {
    let mut case = Case::new(&[], &[HTTPS]);
    let fin = FIN | ACK;
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(4000, 443, fin)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 4000, fin)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(4000, 443, ACK)), Reason::Rule);
    let (open, close) = (EventKind::Open as u8, EventKind::Close as u8);
    assert_eq!(case.kinds(), [open, close]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.kinds(), [open]);
    let flows = case.0.flows_v4();
    assert_eq!(
        flows.values().map(|flow| flow.packets).collect::<Vec<_>>(),
        [[1, 0]]
    );
}

#[test]
fn a_flow_that_is_cut_short_closes_once() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 4000, RST)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 4000, RST)), Reason::Rule);
    assert_eq!(
        case.kinds(),
        [EventKind::Open as u8, EventKind::Close as u8]
    );
}

#[test]
fn a_connection_is_adopted_only_if_policy_permits_its_sender() {
    let case = Case::new(&[HTTPS], &[]);
    // From an open port of its own to anybody: not as a reply that nobody asked for.
    assert_eq!(case.sends(&out().tcp(443, 4000, ACK)), Reason::DefaultDeny);
    assert_eq!(case.gets(&back().tcp(4000, 443, ACK)), Reason::Rule);
    let flows = case.0.flows_v4();
    assert!(flows.values().all(|flow| flow.origin & Flow::ADOPTED != 0));
    assert_eq!(case.sends(&out().tcp(443, 4000, ACK)), Reason::Rule);
}

#[test]
fn an_echo_reply_needs_a_request() {
    let case = Case::new(&[], &[ECHO]);
    assert_eq!(case.gets(&back().icmp(0, 0, 7)), Reason::NoState);
    assert_eq!(case.sends(&out().icmp(8, 0, 7)), Reason::Rule);
    assert_eq!(case.gets(&back().icmp(0, 0, 7)), Reason::Rule);
    assert_eq!(case.gets(&back().icmp(0, 0, 8)), Reason::NoState);
}

#[test]
fn an_error_passes_if_it_speaks_about_a_live_flow() {
    let case = Case::new(&[], &[HTTPS]);
    let (asked, other) = (out().tcp(4000, 443, SYN), out().tcp(4001, 443, SYN));
    assert_eq!(case.sends(&asked), Reason::Rule);
    let router = || PacketBuilder::v4(NODE, LOCAL);
    // No more than RFC 792 demands is quoted.
    assert_eq!(
        case.gets(&router().icmp_error(3, 4, &asked, 28)),
        Reason::Related
    );
    assert_eq!(
        case.gets(&router().icmp_error(3, 4, &other, 28)),
        Reason::DefaultDeny
    );
    assert_eq!(
        case.gets(&router().icmp_error(3, 4, &asked, 20)),
        Reason::DefaultDeny
    );
    // It travels against what it quotes.
    assert_eq!(
        case.sends(&out().icmp_error(3, 3, &asked, 28)),
        Reason::DefaultDeny
    );
}

#[test]
fn an_error_goes_only_to_the_sender_of_what_it_quotes() {
    const STRANGER: [u8; 4] = [192, 0, 2, 1];
    let case = Case::new(&[HTTPS], &[]);
    let asked = back().tcp(4000, 443, SYN);
    assert_eq!(case.gets(&asked), Reason::Rule);
    let error = |packet: PacketBuilder| packet.icmp_error(3, 1, &asked, 28);
    assert_eq!(case.sends(&error(out())), Reason::Related);
    assert_eq!(
        case.sends(&error(PacketBuilder::v4(LOCAL, STRANGER))),
        Reason::DefaultDeny
    );
    assert_eq!(
        case.sends(&error(PacketBuilder::v4(STRANGER, PEER))),
        Reason::SpoofedSource
    );
}

#[test]
fn a_flow_to_a_foreign_address_is_not_remembered() {
    const ANOTHER: [u8; 4] = [10, 0, 0, 3];
    let case = Case::new(&[HTTPS], &[HTTPS]);
    let lured = PacketBuilder::v4(PEER, ANOTHER).tcp(4000, 443, SYN);
    assert_eq!(case.gets(&lured), Reason::Rule);
    let answer = PacketBuilder::v4(ANOTHER, PEER).tcp(443, 4000, SYN | ACK);
    assert_eq!(case.sends(&answer), Reason::SpoofedSource);
}

#[test]
fn nobody_reaches_an_endpoint_in_its_own_name() {
    let case = Case::new(&[HTTPS], &[]);
    let forged = PacketBuilder::v6(LOCAL_V6, LOCAL_V6).udp(5, 9999);
    assert_eq!(case.gets(&forged), Reason::SpoofedSource);
}

#[test]
fn an_endpoint_speaks_only_for_itself() {
    let case = Case::new(&[], &[HTTPS]);
    let spoofed = PacketBuilder::v4([10, 0, 0, 77], PEER).tcp(4000, 443, SYN);
    assert_eq!(case.sends(&spoofed), Reason::SpoofedSource);
    let link_local = PacketBuilder::v4([169, 254, 1, 1], PEER).tcp(4000, 443, SYN);
    assert_eq!(case.sends(&link_local), Reason::Rule);
}

#[test]
fn a_revoked_flow_is_dropped_and_reported() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.0.tables.egress.clear();
    case.0.words.insert(ENDPOINT.id, Word::new(1, 2));
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
    assert_eq!(case.sends(&out().tcp(4000, 443, ACK)), Reason::Revoked);
    let events = case.0.events();
    let kinds: Vec<u8> = events.iter().map(|event| event.kind).collect();
    let (open, close, deny) = (EventKind::Open, EventKind::Close, EventKind::Deny);
    // Closed once; each direction of the denied packets is a kind of its own.
    assert_eq!(kinds, [open as u8, close as u8, deny as u8, deny as u8]);
    assert_eq!(events[1].reason, Reason::Revoked as u8);
}

#[test]
fn a_revoked_flow_is_not_taken_up_from_its_other_end() {
    // The peer may open connections from its port 443, and the endpoint may answer those.
    let mut case = Case::new(&[(protocol::TCP, 4000)], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.0.tables.egress.clear();
    case.0.words.insert(ENDPOINT.id, Word::new(1, 2));
    for _ in 0..3 {
        assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
        assert_eq!(case.sends(&out().tcp(4000, 443, ACK)), Reason::Revoked);
    }
    // A connection of the peer's own making is another flow.
    assert_eq!(case.gets(&back().tcp(443, 4000, SYN)), Reason::Rule);
}

#[test]
fn a_revoked_flow_goes_on_when_it_is_permitted_again() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    let permitted = std::mem::take(&mut case.0.tables.egress);
    case.0.words.insert(ENDPOINT.id, Word::new(1, 2));
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Revoked);
    case.0.tables.egress = permitted;
    case.0.words.insert(ENDPOINT.id, Word::new(1, 3));
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
    let kinds: Vec<u8> = case.0.events().iter().map(|event| event.kind).collect();
    assert_eq!(kinds.last(), Some(&(EventKind::Open as u8)));
}

#[test]
fn a_flow_that_stays_permitted_is_verified_once() {
    let mut case = Case::new(&[], &[HTTPS]);
    assert_eq!(case.sends(&out().tcp(4000, 443, SYN)), Reason::Rule);
    case.0.words.insert(ENDPOINT.id, Word::new(1, 2));
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
    // Were it verified again, it would be cut: the tables changed without a new generation.
    case.0.tables.egress.clear();
    assert_eq!(case.gets(&back().tcp(443, 4000, ACK)), Reason::Rule);
}

#[test]
fn a_full_table_still_judges() {
    let mut case = Case::new(&[], &[HTTPS]);
    for port in 1..=6 {
        assert_eq!(case.sends(&out().tcp(port, 443, SYN)), Reason::Rule);
        assert_eq!(case.sends(&out().tcp(port, 444, SYN)), Reason::DefaultDeny);
    }
    assert_eq!(case.0.flows_v4().len(), 3);
    assert_eq!(
        case.0.counters(ENDPOINT.id)[&Reason::FlowTableFull].packets,
        3
    );
    let opened = EventKind::Open as u8;
    let is_open = |kind: &u8| *kind == opened;
    assert_eq!(case.kinds().into_iter().filter(is_open).count(), 3);
    // A flow takes the place of one with the same ends, room or not.
    assert_eq!(case.sends(&out().tcp(1, 443, RST)), Reason::Rule);
    assert_eq!(case.sends(&out().tcp(1, 443, SYN)), Reason::Rule);
    assert_eq!(case.gets(&back().tcp(443, 1, SYN | ACK)), Reason::Rule);
}

#[test]
fn an_endpoint_that_takes_all_it_can_leaves_room_for_others() {
    const OTHER: Endpoint = Endpoint { id: 4, flags: 0 };
    let mut case = Case::with_room(&[], &[HTTPS], 90);
    case.0.words.insert(OTHER.id, Word::new(1, 1));
    for port in 1..=200 {
        assert_eq!(case.sends(&out().tcp(port, 443, SYN)), Reason::Rule);
    }
    assert_eq!(case.0.flows_v4().len(), 60, "two thirds");
    let frame = PacketBuilder::v4(PEER, NODE).tcp(1, 443, SYN).frame();
    let verdict = case.0.frame(OTHER, Direction::Egress, &frame, false);
    assert_eq!(verdict.reason(), Reason::Rule);
    let frame = PacketBuilder::v4(NODE, PEER).tcp(443, 1, SYN | ACK).frame();
    let verdict = case.0.frame(OTHER, Direction::Ingress, &frame, false);
    assert_eq!(verdict.reason(), Reason::Rule, "it was remembered");
}

#[test]
fn its_own_node_reaches_an_endpoint_but_nobody_in_the_nodes_name() {
    let case = Case::new(&[], &[]);
    let probe = PacketBuilder::v4(NODE, LOCAL).tcp(4000, 80, SYN).frame();
    let made_here = case.0.frame(ENDPOINT, Direction::Ingress, &probe, true);
    assert_eq!(made_here.reason(), Reason::OwnNode);
    let probe = PacketBuilder::v4(NODE, LOCAL).tcp(4001, 80, SYN);
    assert_eq!(case.gets(&probe), Reason::DefaultDeny);
}

#[test]
fn an_endpoint_is_no_router() {
    let case = Case::new(&[], &[]);
    let advertisement = PacketBuilder::v6(LOCAL_V6, PEER_V6).icmp(134, 0, 0);
    assert_eq!(case.sends(&advertisement), Reason::RogueRouter);
    let advertisement = PacketBuilder::v6(PEER_V6, LOCAL_V6).icmp(134, 0, 0);
    assert_eq!(case.gets(&advertisement), Reason::NeighbourDiscovery);
    let solicitation = PacketBuilder::v6(LOCAL_V6, PEER_V6).neighbour(135, PEER_V6);
    assert_eq!(case.sends(&solicitation), Reason::NeighbourDiscovery);
}

#[test]
fn a_neighbour_message_is_the_endpoints_own_short_and_of_its_link() {
    let case = Case::new(&[], &[]);
    let other = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let spoofed = PacketBuilder::v6(other, PEER_V6).icmp(136, 0, 0);
    assert_eq!(case.sends(&spoofed), Reason::SpoofedSource);
    let own = PacketBuilder::v6(LOCAL_V6, PEER_V6).neighbour(136, LOCAL_V6);
    assert_eq!(case.sends(&own), Reason::NeighbourDiscovery);
    assert_eq!(case.sends(&own.clone().with_hops(64)), Reason::DefaultDeny);
    let long = (0..13).fold(own, |message, _| message.link_option(2, LINK));
    assert_eq!(case.sends(&long), Reason::DefaultDeny);
}

#[test]
fn denied_packets_of_a_kind_are_one_event_and_one_count_of_the_others() {
    let mut case = Case::new(&[], &[]);
    for port in 1..=5 {
        assert_eq!(case.sends(&out().tcp(port, 443, SYN)), Reason::DefaultDeny);
    }
    assert_eq!(case.kinds(), [EventKind::Deny as u8]);
    let denials: Vec<u64> = case
        .0
        .denials()
        .values()
        .map(|count| count.packets)
        .collect();
    assert_eq!(denials, [4]);
}

#[test]
fn what_was_denied_once_is_no_more_than_an_event() {
    let mut case = Case::new(&[], &[]);
    for port in 1..=5 {
        assert_eq!(case.sends(&out().tcp(4000, port, SYN)), Reason::DefaultDeny);
    }
    assert_eq!(case.kinds(), [EventKind::Deny as u8; 5]);
    assert!(case.0.denials().is_empty());
}

#[test]
fn a_rule_that_denies_is_named_in_the_event_and_in_the_sums() {
    let mut case = Case::new(&[], &[HTTPS]);
    case.told(HTTPS, Decision::new(Action::Deny, RuleId(4)));
    for port in 1..=3 {
        assert_eq!(case.sends(&out().tcp(port, 443, SYN)), Reason::DenyRule);
    }
    let events = case.0.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].rule, events[0].generation), (4, 2));
    let kinds: Vec<(u32, u8)> = case
        .0
        .denials()
        .keys()
        .map(|kind| (kind.rule, kind.reason))
        .collect();
    assert_eq!(kinds, [(4, Reason::DenyRule as u8)]);
    // Another rule is another kind, and a first one again.
    case.told(HTTPS, Decision::new(Action::Reject, RuleId(5)));
    let verdict = case.0.frame(
        ENDPOINT,
        Direction::Egress,
        &out().tcp(9, 443, SYN).frame(),
        false,
    );
    assert!(verdict.rejects() && !verdict.allows());
    assert_eq!(case.kinds(), [EventKind::Deny as u8]);
}
