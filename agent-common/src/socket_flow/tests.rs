use super::*;
use crate::{
    flow::{
        FlowState,
        tcp::{ACK, FIN, RST, SYN},
    },
    parse::Class,
    protocol::{TCP, UDP},
    table::{Endpoint, Word},
    testing::flows,
};

const PSH: u8 = 8;
const LOCAL: [u8; 4] = [10, 0, 0, 1];
const PEER: [u8; 4] = [10, 0, 0, 2];

/// A connection that the endpoint's peer has begun, seen by the table.
const STATE: FlowState = FlowState {
    generation: 7,
    rule: 5,
    reason: 0,
    origin: Flow::INITIATED_BY_PEER,
    tcp_flags: [SYN | ACK, SYN | ACK | PSH],
    closed: 0,
    rtt: 0,
    opened: 1,
    last_seen: 100,
    packets: [16, 3],
    bytes: [1600, 300],
};

fn sight(direction: Direction) -> Sight {
    Sight {
        endpoint: Endpoint { id: 3, flags: 0 },
        word: Word::new(1, 7),
        direction,
        length: 60,
        made_here: false,
        ifindex: 0,
    }
}

fn packet(direction: Direction, tcp_flags: u8) -> Headers<[u8; 4]> {
    let headers = Headers {
        source: LOCAL,
        destination: PEER,
        source_port: 443,
        destination_port: 40_000,
        protocol: TCP,
        tcp_flags,
        class: Class::Ordinary,
        further: 0,
    };
    match direction {
        Direction::Egress => headers,
        Direction::Ingress => Headers {
            source: headers.destination,
            destination: headers.source,
            source_port: headers.destination_port,
            destination_port: headers.source_port,
            ..headers
        },
    }
}

fn key() -> FlowKey<[u8; 4]> {
    FlowKey::new(3, &packet(Direction::Egress, ACK), Direction::Egress)
}

fn noted() -> SocketFlow<[u8; 4]> {
    SocketFlow::new(&key(), &flows::flow(&STATE))
}

fn counts(noted: &SocketFlow<[u8; 4]>, direction: Direction, tcp_flags: u8) -> bool {
    noted.count(&packet(direction, tcp_flags), &sight(direction), || 200)
}

#[test]
fn what_it_counts_the_table_is_told_once() {
    let (noted, flow) = (noted(), flows::flow(&STATE));
    for _ in 0..10 {
        assert!(counts(&noted, Direction::Egress, ACK));
    }
    for _ in 0..4 {
        assert!(counts(&noted, Direction::Ingress, ACK));
    }
    for _ in 0..2 {
        noted.tell(&flow);
        // The peer has begun: what arrives is the initiator's.
        let told = flow.state();
        assert_eq!(told.packets, [16 + 4, 3 + 10]);
        assert_eq!(told.bytes, [1600 + 4 * 60, 300 + 10 * 60]);
        assert_eq!(told.last_seen, 200);
    }
    assert!(counts(&noted, Direction::Egress, ACK));
    noted.tell(&flow);
    assert_eq!(flow.state().packets, [20, 14]);
}

#[test]
fn what_the_table_has_seen_later_stays() {
    let (noted, flow) = (noted(), flows::flow(&STATE));
    assert!(counts(&noted, Direction::Egress, ACK));
    flow.last_seen.set(300);
    noted.tell(&flow);
    assert_eq!(flow.last_seen.get(), 300);
}

#[test]
fn the_table_is_asked_about_every_other_flow() {
    let noted = noted();
    let (egress, ingress) = (Direction::Egress, Direction::Ingress);
    let ours = packet(egress, ACK);
    let others = [
        Headers {
            source: [10, 0, 0, 3],
            ..ours
        },
        Headers {
            destination: [10, 0, 0, 3],
            ..ours
        },
        Headers {
            source_port: 444,
            ..ours
        },
        Headers {
            destination_port: 40_001,
            ..ours
        },
        Headers {
            protocol: UDP,
            ..ours
        },
        packet(ingress, ACK),
    ];
    for other in others {
        assert!(!noted.count(&other, &sight(egress), || 200), "{other:?}");
    }
    let of_another = Sight {
        endpoint: Endpoint { id: 4, flags: 0 },
        ..sight(egress)
    };
    assert!(!noted.count(&ours, &of_another, || 200));
    assert!(noted.count(&ours, &sight(egress), || 200));
}

#[test]
fn a_change_of_policy_sends_the_next_packet_to_the_table() {
    let noted = noted();
    let changed = Sight {
        word: Word::new(1, 8),
        ..sight(Direction::Egress)
    };
    let packet = packet(Direction::Egress, ACK);
    assert!(!noted.count(&packet, &changed, || 200));
    noted.note(&flows::flow(&FlowState {
        generation: 8,
        ..STATE
    }));
    assert!(noted.count(&packet, &changed, || 200));
    assert!(!counts(&noted, Direction::Egress, ACK), "of before");
}

#[test]
fn what_is_judged_with_every_packet_never_passes_here() {
    let timed = FlowState {
        generation: Flow::NEVER,
        ..STATE
    };
    let noted = SocketFlow::new(&key(), &flows::flow(&timed));
    assert!(!counts(&noted, Direction::Egress, ACK));
}

#[test]
fn the_table_sees_each_beginning_each_end_and_each_new_flag() {
    let noted = noted();
    for flags in [SYN, SYN | ACK, FIN | ACK, RST, RST | ACK] {
        for direction in [Direction::Egress, Direction::Ingress] {
            assert!(!counts(&noted, direction, flags), "{flags}");
        }
    }
    // The endpoint has pushed before, its peer has not.
    assert!(counts(&noted, Direction::Egress, ACK | PSH));
    assert!(!counts(&noted, Direction::Ingress, ACK | PSH));
    noted.note(&flows::flow(&FlowState {
        tcp_flags: [SYN | ACK | PSH; 2],
        ..STATE
    }));
    assert!(counts(&noted, Direction::Ingress, ACK | PSH));
}

#[test]
fn one_that_rests_counts_nothing() {
    let (noted, flow) = (noted(), flows::flow(&STATE));
    assert!(counts(&noted, Direction::Egress, ACK));
    noted.rest();
    assert!(!counts(&noted, Direction::Egress, ACK));
    noted.tell(&flow);
    assert_eq!(flow.state().packets, [16, 4]);
}

#[test]
fn a_note_agrees_with_the_flow_that_it_is_of_until_that_is_another_or_ends() {
    let noted = noted();
    assert!(noted.agrees(&flows::flow(&STATE)));
    let others = [
        FlowState {
            generation: Flow::NEVER,
            ..STATE
        },
        FlowState {
            generation: 8,
            ..STATE
        },
        FlowState {
            tcp_flags: [ACK | FIN, ACK],
            ..STATE
        },
        FlowState {
            tcp_flags: [ACK, ACK | RST],
            ..STATE
        },
    ];
    for other in others {
        assert!(!noted.agrees(&flows::flow(&other)), "{other:?}");
    }
    noted.rest();
    assert!(!noted.agrees(&flows::flow(&STATE)));
}

#[test]
fn a_flow_is_noted_when_it_has_lasted_and_only_if_it_is_of_tcp() {
    let is_to_be = |key: &FlowKey<[u8; 4]>, direction, packets| {
        let state = FlowState { packets, ..STATE };
        is_to_be_noted(key, &sight(direction), &flows::flow(&state))
    };
    let (ingress, egress) = (Direction::Ingress, Direction::Egress);
    assert!(is_to_be(&key(), ingress, [16, 3]));
    assert!(!is_to_be(&key(), egress, [16, 3]));
    assert!(!is_to_be(&key(), ingress, [15, 16]));
    assert!(is_to_be(&key(), egress, [15, 32]));
    let datagrams = FlowKey {
        protocol: UDP,
        ..key()
    };
    assert!(!is_to_be(&datagrams, ingress, [16, 3]));
}
