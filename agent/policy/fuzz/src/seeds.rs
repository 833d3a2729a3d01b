//! Inputs to begin with: what people write, and what the strategies generate.

use agent_common::{
    flow::tcp::{ACK, RST, SYN},
    testing::{
        PacketBuilder,
        packet::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP, LINK},
    },
};

use crate::{
    packet::{OWN_V4, OWN_V6, Sighting},
    parse::{INVENTORY, KINDS},
};

const PEER_V4: [u8; 4] = [10, 0, 0, 2];
const PEER_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];

/// Worlds by number, then steps of four bytes.
pub fn decide() -> Vec<Vec<u8>> {
    (0..48)
        .map(|number| noise(number, 2 + usize::from(number % 4) * 4))
        .collect()
}

/// Each kind as it is, and with arbitrary edits.
pub fn parse() -> Vec<Vec<u8>> {
    let kinds = 0..u8::try_from(KINDS.len()).unwrap_or(u8::MAX);
    let alone = kinds.clone().map(|kind| vec![kind]);
    let edited = (0..8).flat_map(|salt| {
        kinds
            .clone()
            .map(move |kind| [vec![kind], noise(kind ^ salt << 4, 24)].concat())
    });
    alone.chain(edited).collect()
}

/// The examples, and the inventory around them.
pub fn yaml() -> Vec<Vec<u8>> {
    let odd: [&[u8]; 4] = [
        b"a: &a [*a]\n",
        b"? [x]\n: |-\n  y\n",
        b"%YAML 1.2\n---\n!!str \"\\ud800\"\n...\n",
        b"\xff\xfe",
    ];
    KINDS
        .iter()
        .copied()
        .chain([INVENTORY])
        .chain(INVENTORY.split("---\n"))
        .map(|text| text.as_bytes().to_vec())
        .chain(odd.map(<[u8]>::to_vec))
        .collect()
}

/// Short conversations, each frame behind how it is seen and its length in two bytes.
pub fn packet() -> Vec<Vec<u8>> {
    const IN: u8 = Sighting::INGRESS;
    const OUT: u8 = Sighting::EGRESS;
    let (to, from) = (
        || PacketBuilder::v4(PEER_V4, OWN_V4),
        || PacketBuilder::v4(OWN_V4, PEER_V4),
    );
    let (to_v6, from_v6) = (
        || PacketBuilder::v6(PEER_V6, OWN_V6),
        || PacketBuilder::v6(OWN_V6, PEER_V6),
    );
    let asked = from().udp(4000, 52);
    let asked_v6 = from_v6().udp(4000, 52);
    let conversations: Vec<Vec<(u8, PacketBuilder)>> = vec![
        vec![
            (IN, to().tcp(4001, 80, SYN)),
            (OUT, from().tcp(80, 4001, SYN | ACK)),
            (IN, to().tcp(4001, 80, ACK).payload(20)),
            (IN, to().tcp(4001, 80, RST)),
        ],
        vec![
            (OUT, asked.clone()),
            (IN, to().icmp_error(3, 3, &asked, 28)),
            (IN, to().udp(52, 4000)),
        ],
        vec![
            (OUT, asked_v6.clone()),
            (IN, to_v6().icmp_error(1, 4, &asked_v6, 48)),
            (IN, to_v6().udp(52, 4000)),
        ],
        vec![
            (OUT, from().icmp(8, 0, 7)),
            (IN, to().icmp(0, 0, 7)),
            (OUT, from_v6().icmp(128, 0, 7)),
            (IN, to_v6().icmp(129, 0, 7)),
        ],
        vec![
            (IN, to_v6().neighbour(135, OWN_V6)),
            (OUT, from_v6().neighbour(136, OWN_V6).link_option(2, LINK)),
            (OUT, from_v6().icmp(134, 0, 0)),
        ],
        vec![
            (IN, to().options(3).fragment(0, true).sctp(1, 2)),
            (IN, to().fragment(9, false).sctp(1, 2)),
        ],
        vec![
            (IN, to_v6().extension(HOP_BY_HOP, 0).tcp(1, 2, SYN)),
            (
                IN,
                to_v6()
                    .extension(AUTHENTICATION, 1)
                    .fragment(0, true)
                    .udp(1, 2),
            ),
            (
                IN,
                to_v6().extension(DESTINATION_OPTIONS, 2).fragment(9, false),
            ),
        ],
        vec![
            (IN, PacketBuilder::arp(1, PEER_V4, OWN_V4)),
            (OUT, PacketBuilder::arp(2, OWN_V4, PEER_V4)),
            (OUT, PacketBuilder::other(0x88cc)),
        ],
        vec![(IN, to().tcp(1, 2, SYN).cut(40))],
        // Over the end of a first piece, behind it, and behind none.
        vec![
            (IN, to().numbered(7).fragment(0, true).udp(1, 2).payload(16)),
            (IN, to().numbered(7).fragment(1, true).udp(1, 2)),
            (IN, to().numbered(7).fragment(3, false).udp(1, 2)),
            (IN, to().numbered(8).fragment(3, false).udp(1, 2)),
        ],
        // The responder begins, and somebody speaks for another.
        vec![
            (IN, to_v6().tcp(4001, 80, SYN)),
            (OUT, from_v6().tcp(80, 4001, SYN)),
            (OUT, to_v6().tcp(4001, 80, SYN)),
        ],
        // Longer than a byte can tell.
        vec![(IN, to().options(10).udp(1, 2).payload(1400))],
    ];
    let frame = |(how, packet): &(u8, PacketBuilder)| {
        let frame = packet.frame();
        let [high, low] = u16::try_from(frame.len()).unwrap_or(u16::MAX).to_be_bytes();
        [vec![*how, high, low], frame].concat()
    };
    conversations
        .iter()
        .map(|frames| frames.iter().flat_map(frame).collect())
        .collect()
}

/// Bytes that look like nothing, the same at every run: a generator by Marsaglia.
fn noise(salt: u8, length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32 ^ u32::from(salt) << 8;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(next).take(length).collect()
}
