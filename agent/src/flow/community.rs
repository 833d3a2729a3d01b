//! Community ID: the name of a flow by its addresses, ports and protocol, the same in every tool that knows it
//! ([specification](https://github.com/corelight/community-id-spec), version 1).

use std::net::IpAddr;

use agent_common::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

use super::record::Icmp;

/// Only flows of one number are told apart by it: that of everybody who sets none.
const SEED: [u8; 2] = [0; 2];

/// Questions and answers of ICMP, which are of one flow.
const PAIRS: [(u8, u8); 5] = [(8, 0), (13, 14), (15, 16), (10, 9), (17, 18)];
/// And of `ICMPv6`.
const PAIRS_V6: [(u8, u8); 6] = [
    (128, 129),
    (133, 134),
    (135, 136),
    (130, 131),
    (144, 145),
    (139, 140),
];

/// From the initiator to the responder. `None` of a protocol with ports of which one is not known.
pub(crate) fn id(
    (src, src_port): (IpAddr, Option<u16>),
    (dst, dst_port): (IpAddr, Option<u16>),
    protocol: u8,
    icmp: Option<Icmp>,
) -> Option<String> {
    let mut is_one_way = false;
    let ports = match (protocol, icmp) {
        (ICMP | ICMPV6, Some(Icmp { kind, code })) => {
            let answer = counterpart(protocol, kind);
            is_one_way = answer.is_none();
            Some((u16::from(kind), u16::from(answer.unwrap_or(code))))
        }
        (TCP | UDP | SCTP, _) => Some((src_port?, dst_port?)),
        _ => None,
    };
    let (first, second) = ports.unzip();
    let (mut one, mut other) = ((src, first), (dst, second));
    if !is_one_way && one > other {
        std::mem::swap(&mut one, &mut other);
    }
    let mut hash = Sha1::new();
    hash.update(SEED);
    for (address, _) in [one, other] {
        match address {
            IpAddr::V4(address) => hash.update(address.octets()),
            IpAddr::V6(address) => hash.update(address.octets()),
        }
    }
    hash.update([protocol, 0]);
    for port in [one.1, other.1].into_iter().flatten() {
        hash.update(port.to_be_bytes());
    }
    Some(format!("1:{}", STANDARD.encode(hash.finalize())))
}

fn counterpart(protocol: u8, kind: u8) -> Option<u8> {
    let pairs: &[(u8, u8)] = if protocol == ICMP { &PAIRS } else { &PAIRS_V6 };
    pairs.iter().find_map(|(asks, answers)| {
        if *asks == kind {
            Some(*answers)
        } else {
            (*answers == kind).then_some(*asks)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(
        src: &str,
        dst: &str,
        protocol: u8,
        ports: Option<(u16, u16)>,
        icmp: Option<(u8, u8)>,
    ) -> String {
        let (first, second) = ports.unzip();
        let icmp = icmp.map(|(kind, code)| Icmp { kind, code });
        let ends = (
            (src.parse().unwrap(), first),
            (dst.parse().unwrap(), second),
        );
        id(ends.0, ends.1, protocol, icmp).unwrap()
    }

    /// What the reference implementation says (communityid 1.5).
    #[test]
    fn it_is_what_others_say() {
        assert_eq!(
            of(
                "128.232.110.120",
                "66.35.250.204",
                TCP,
                Some((34855, 80)),
                None
            ),
            "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
        );
        assert_eq!(
            of(
                "66.35.250.204",
                "128.232.110.120",
                TCP,
                Some((80, 34855)),
                None
            ),
            "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
        );
        assert_eq!(
            of("192.168.1.52", "8.8.8.8", UDP, Some((54585, 53)), None),
            "1:d/FP5EW3wiY1vCndhwleRRKHowQ="
        );
        assert_eq!(
            of("192.168.170.8", "192.168.170.56", SCTP, Some((7, 80)), None),
            "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="
        );
        assert_eq!(
            of("fd00::1", "fd00::2", TCP, Some((40000, 443)), None),
            "1:Ym/kW2GhL/SXm1jZgAnyk7elLks="
        );
        assert_eq!(
            of("192.168.0.89", "192.168.0.1", ICMP, None, Some((8, 0))),
            "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="
        );
        assert_eq!(
            of("192.168.0.1", "192.168.0.89", ICMP, None, Some((0, 0))),
            "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="
        );
        assert_eq!(
            of("192.168.0.89", "192.168.0.1", ICMP, None, Some((20, 0))),
            "1:3o2RFccXzUgjl7zDpqmY7yJi8rI="
        );
        assert_eq!(
            of("192.168.0.89", "192.168.0.1", ICMP, None, Some((3, 1))),
            "1:LXCfhMUFbYXe+CEMrQuZCbiLY3o="
        );
        assert_eq!(
            of(
                "fe80::200:86ff:fe05:80da",
                "fe80::260:97ff:fe07:69ea",
                ICMPV6,
                None,
                Some((135, 0))
            ),
            "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="
        );
        assert_eq!(
            of(
                "3ffe:507:0:1:260:97ff:fe07:69ea",
                "3ffe:507:0:1:200:86ff:fe05:80da",
                ICMPV6,
                None,
                Some((3, 0))
            ),
            "1:NdobDX8PQNJbAyfkWxhtL2Pqp5w="
        );
        assert_eq!(
            of("10.1.24.4", "10.1.12.1", 46, None, None),
            "1:/nQI4Rh/TtY3mf0R2gJFBkVlgS4="
        );
    }

    #[test]
    fn both_directions_are_one_flow() {
        let there = of("10.0.0.1", "10.0.0.2", TCP, Some((1, 2)), None);
        assert_eq!(there, of("10.0.0.2", "10.0.0.1", TCP, Some((2, 1)), None));
        let asks = of("fd00::1", "fd00::2", ICMPV6, None, Some((128, 0)));
        assert_eq!(asks, of("fd00::2", "fd00::1", ICMPV6, None, Some((129, 0))));
        // What has no answer is not.
        let one = of("10.0.0.1", "10.0.0.2", ICMP, None, Some((3, 1)));
        assert_ne!(one, of("10.0.0.2", "10.0.0.1", ICMP, None, Some((3, 1))));
    }

    #[test]
    fn without_its_ports_a_connection_has_none() {
        let end = |port| ("10.0.0.1".parse().unwrap(), port);
        assert_eq!(id(end(None), end(Some(80)), TCP, None), None);
    }
}
