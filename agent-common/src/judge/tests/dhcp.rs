//! DHCP, of an endpoint that gets its addresses by it.

use super::*;

const CLIENT: Endpoint = ENDPOINT.with(Endpoint::DHCP_CLIENT);
const NOBODY: [u8; 4] = [0; 4];
const EVERYBODY: [u8; 4] = [255; 4];
const OWN_LINK: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const SERVERS_LINK: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const SERVERS: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2];

fn v4(source: [u8; 4], destination: [u8; 4], ports: (u16, u16)) -> PacketBuilder {
    PacketBuilder::v4(source, destination).udp(ports.0, ports.1)
}

fn v6(source: [u8; 16], destination: [u8; 16], ports: (u16, u16)) -> PacketBuilder {
    PacketBuilder::v6(source, destination).udp(ports.0, ports.1)
}

#[test]
fn a_client_asks_and_is_answered_without_a_rule() {
    use Direction::{Egress, Ingress};
    let (asks, answers) = ((68, 67), (67, 68));
    let (asks_v6, answers_v6) = ((546, 547), (547, 546));
    let (passes, denied) = (Reason::Dhcp, Reason::DefaultDeny);
    let table = [
        ("asks all", Egress, v4(NOBODY, EVERYBODY, asks), passes),
        ("renews", Egress, v4(LOCAL, PEER, asks), passes),
        ("rebinds", Egress, v4(LOCAL, EVERYBODY, asks), passes),
        ("is told", Ingress, v4(PEER, LOCAL, answers), passes),
        (
            "is told with all",
            Ingress,
            v4(PEER, EVERYBODY, answers),
            passes,
        ),
        ("asks one as nobody", Egress, v4(NOBODY, PEER, asks), denied),
        (
            "asks as another",
            Egress,
            v4(PEER, EVERYBODY, asks),
            Reason::SpoofedSource,
        ),
        ("serves", Egress, v4(LOCAL, PEER, answers), denied),
        ("serves all", Egress, v4(LOCAL, EVERYBODY, answers), denied),
        ("is asked", Ingress, v4(PEER, LOCAL, asks), denied),
        ("another's", Ingress, v4(PEER, NODE, answers), denied),
        (
            "from another port",
            Egress,
            v4(NOBODY, EVERYBODY, (69, 67)),
            denied,
        ),
        (
            "to another port",
            Egress,
            v4(NOBODY, EVERYBODY, (68, 53)),
            denied,
        ),
        ("asks all", Egress, v6(OWN_LINK, SERVERS, asks_v6), passes),
        (
            "is told",
            Ingress,
            v6(SERVERS_LINK, OWN_LINK, answers_v6),
            passes,
        ),
        ("asks one", Egress, v6(OWN_LINK, PEER_V6, asks_v6), denied),
        ("asks afar", Egress, v6(LOCAL_V6, SERVERS, asks_v6), denied),
        (
            "asks as nobody",
            Egress,
            v6([0; 16], SERVERS, asks_v6),
            denied,
        ),
        (
            "from afar",
            Ingress,
            v6(PEER_V6, OWN_LINK, answers_v6),
            denied,
        ),
        (
            "serves",
            Egress,
            v6(OWN_LINK, SERVERS_LINK, answers_v6),
            denied,
        ),
    ];
    for (what, direction, packet, expected) in table {
        let case = Case::new(&[], &[]);
        let frame = packet.frame();
        let verdict = case.0.frame(CLIENT, direction, &frame, false);
        assert_eq!(verdict.reason(), expected, "{what}: {packet:?}");
        // By default nobody is a client.
        let verdict = case.0.frame(ENDPOINT, direction, &frame, false);
        assert!(!verdict.allows(), "{what}: {packet:?}");
    }
}

#[test]
fn dhcp_over_tcp_is_none() {
    let case = Case::new(&[], &[]);
    let frame = PacketBuilder::v4(LOCAL, PEER).tcp(68, 67, SYN).frame();
    let verdict = case.0.frame(CLIENT, Direction::Egress, &frame, false);
    assert_eq!(verdict.reason(), Reason::DefaultDeny);
}
