//! Which connections are refused before there is a packet.

use super::*;
use crate::{
    decide::Tables,
    event::EventKind,
    table::{
        Decision, Direction, Endpoint, OwnAddress, PolicyKey, PortKey, Versioned, WORLD, Word,
    },
    testing::Twin,
    verdict::{Action, Reason, RuleId},
};
use std::vec::Vec;

const ENDPOINT: Endpoint = Endpoint { id: 3, flags: 0 };
const PEER: [u8; 4] = [10, 0, 0, 2];
const NODE: [u8; 4] = [10, 0, 0, 254];
const SERVICE: [u8; 4] = [10, 96, 0, 1];

/// The same decision for every address; but the identities differ.
struct Everybody(Decision);

impl Tables<[u8; 4]> for Everybody {
    fn identity(&self, address: &[u8; 4]) -> Versioned {
        Versioned::settled(match *address {
            NODE => THIS_NODE,
            SERVICE => TRANSLATED | 7,
            _ => WORLD,
        })
    }

    fn port_table(&self, _: &PolicyKey) -> Versioned {
        Versioned::settled(1)
    }

    fn decision(&self, _: &PortKey) -> Decision {
        self.0
    }

    fn now(&self) -> u64 {
        0
    }
}

fn twin(action: Action) -> Twin<Everybody> {
    let mut twin = Twin::new(Everybody(Decision::new(action, RuleId(5))), 4);
    twin.words.insert(ENDPOINT.id, Word::new(1, 1));
    twin
}

fn asks(twin: &Twin<Everybody>, endpoint: Endpoint, to: [u8; 4]) -> bool {
    let sight = twin.sight(endpoint, Direction::Egress, 0, false);
    refuses(twin, &sight, to, 443)
}

#[test]
fn a_refused_connection_is_a_denial_like_any_other() {
    let mut twin = twin(Action::Reject);
    for _ in 0..3 {
        assert!(asks(&twin, ENDPOINT, PEER));
    }
    let counters = twin.counters(ENDPOINT.id);
    assert_eq!(counters[&Reason::DenyRule].packets, 3);
    let events = twin.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, EventKind::Deny as u8);
    assert_eq!((events[0].rule, events[0].remote_port), (5, 443));
    let denied: Vec<_> = twin.denials().into_values().collect();
    assert_eq!(denied.len(), 1);
    // The first is the event.
    assert_eq!(denied[0].packets, 2);
    assert!(twin.flows_v4().is_empty());
}

#[test]
fn what_is_permitted_or_only_dropped_leaves_no_trace() {
    for action in [Action::Allow, Action::Deny, Action::Stale] {
        let mut twin = twin(action);
        assert!(!asks(&twin, ENDPOINT, PEER));
        assert!(twin.events().is_empty() && twin.counters(ENDPOINT.id).is_empty());
    }
}

#[test]
fn in_doubt_the_packet_is_to_tell() {
    let mut twin = twin(Action::Reject);
    let own = [10, 9, 9, 9];
    twin.own.insert(OwnAddress {
        endpoint: u32::from(ENDPOINT.id),
        address: crate::protocol::Address::mapped(own),
    });
    for to in [NODE, SERVICE, own, [127, 0, 0, 1], [127, 3, 2, 1], [0; 4]] {
        assert!(!asks(&twin, ENDPOINT, to), "{to:?}");
    }
    assert!(!asks(&twin, ENDPOINT.observed(), PEER));
    assert!(twin.events().is_empty() && twin.counters(ENDPOINT.id).is_empty());
}
