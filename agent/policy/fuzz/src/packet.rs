//! Frames, one after the other: parsed and judged as in the kernel, with flows that remember.
//!
//! Each frame comes after a byte that says how it is seen, and its length in two.

use std::{cell::Cell, fmt::Debug};

use agent_common::{
    decide::Tables,
    flow::tcp,
    parse::{Extent, Family, Headers, Network, network},
    protocol::{self, Address},
    table::{
        Decision, Direction, Endpoint, OwnAddress, PolicyKey, PortKey, THIS_NODE, Versioned, WORLD,
        Word,
    },
    testing::{Slice, Twin},
    verdict::{Action, Reason, RuleId, Verdict},
};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const FLOWS: usize = 8;
/// An endpoint whose sources are checked, and one that shares its addresses with others.
const CHECKED: u16 = 3;
const SHARING: u16 = 4;
/// Addresses of the endpoint.
pub(crate) const OWN_V4: [u8; 4] = [10, 0, 0, 1];
pub(crate) const OWN_V6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// Jiffies after which a flow may have ended by itself.
const LONG: u64 = 1 << 20;

/// Policy without a policy: even ports are open, and addresses that end in 254 are the node's.
#[derive(Clone, Copy, Debug)]
struct EvenPorts;

/// How a frame is seen, as bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sighting(u8);

/// One run, and what its promises depend on.
struct Run {
    twin: Twin<EvenPorts>,
    /// Whether a first piece has passed, by endpoint.
    began_pieces: [Cell<bool>; 2],
}

pub fn run(mut bytes: &[u8]) {
    let mut twin = Twin::new(EvenPorts, FLOWS);
    for address in [OWN_V4.mapped(), OWN_V6] {
        let endpoint = CHECKED.into();
        twin.own.insert(OwnAddress { endpoint, address });
    }
    let mut run = Run {
        twin,
        began_pieces: Default::default(),
    };
    let mut generation = 1;
    while let [how, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (frame, rest) = rest.split_at(length.min(rest.len()));
        bytes = rest;
        let sighting = Sighting(*how);
        generation += u32::from(sighting.has(Sighting::NEW_POLICY));
        for endpoint in [CHECKED, SHARING] {
            run.twin.words.insert(endpoint, Word::new(1, generation));
        }
        run.twin.jiffies += if sighting.has(Sighting::LONG_AFTER) {
            LONG
        } else {
            1
        };
        run.sees(sighting, frame);
    }
}

fn is_own<A: Address>(address: &A) -> bool {
    [OWN_V4.mapped(), OWN_V6].contains(&address.mapped())
}

// === impl Run ===

impl Run {
    fn sees(&self, sighting: Sighting, frame: &[u8]) {
        let made_here = sighting.has(Sighting::MADE_HERE);
        let (endpoint, direction) = (sighting.endpoint(), sighting.direction());
        let verdict = self.twin.frame(endpoint, direction, frame, made_here);
        let packet = Slice(frame);
        let is_readable = match network(&packet) {
            Network::V4 => self.keeps_promises::<[u8; 4]>(packet, sighting, verdict),
            Network::V6 => self.keeps_promises::<[u8; 16]>(packet, sighting, verdict),
            Network::Arp | Network::Other => true,
            Network::Short => false,
        };
        assert!(
            is_readable || !verdict.allows(),
            "{verdict:?} of what nobody can read: {frame:02x?}"
        );
    }

    /// Whether the packet can be read, or is a piece of one that was. The two readings never differ where
    /// both give one.
    fn keeps_promises<A: Family + PartialEq + Debug>(
        &self,
        packet: Slice<'_>,
        sighting: Sighting,
        verdict: Verdict,
    ) -> bool {
        let (mut whole, mut plain) = (Headers::<A>::EMPTY, Headers::<A>::EMPTY);
        let result = A::whole(&packet, ETHERNET, &mut whole, Extent::Whole);
        if A::plain(&packet, ETHERNET, &mut plain) {
            assert_eq!((result, plain), (Ok(()), whole), "of {:02x?}", packet.0);
        }
        let is_piece = result == Err(Reason::Fragment);
        if verdict.allows() && (is_piece || result.is_ok()) {
            let what = || format!("{verdict:?} of {:02x?}, {sighting:?}", packet.0);
            assert!(sighting.may_come_from(&whole.source), "{}", what());
            // What its node sends to it is the node's affair.
            let is_to_itself = verdict.reason() == Reason::OwnAddress && sighting.is_sent();
            assert!(!is_to_itself || is_own(&whole.source), "{}", what());
            let begin = &self.began_pieces[usize::from(sighting.has(Sighting::SHARES_ADDRESSES))];
            assert!(!is_piece || begin.get(), "behind nothing: {}", what());
            begin.set(begin.get() || result.is_ok() && whole.begins_pieces());
            // Whoever sends it begins, whatever was there before. What passes by no rule, as to itself, has none
            // in the flow either.
            let begins = result.is_ok()
                && whole.protocol == protocol::TCP
                && tcp::is_syn(whole.tcp_flags)
                && verdict.rule() != RuleId::NONE;
            let is_open = whole.destination_port.is_multiple_of(2);
            assert!(!begins || is_open, "to a closed port: {}", what());
        }
        is_piece || result.is_ok()
    }
}

// === impl EvenPorts ===

impl<A: Address> Tables<A> for EvenPorts {
    fn identity(&self, address: &A) -> Versioned {
        let [.., last] = address.mapped();
        Versioned::settled(if last == 254 { THIS_NODE } else { WORLD })
    }

    fn port_table(&self, key: &PolicyKey) -> Versioned {
        Versioned::settled(key.direction + 1)
    }

    fn decision(&self, key: &PortKey) -> Decision {
        let [_, low] = key.port;
        if low % 2 == 0 {
            Decision::new(Action::Allow, RuleId(9))
        } else {
            Decision::NO_MATCH
        }
    }

    fn now(&self) -> u64 {
        0
    }
}

// === impl Sighting ===

impl Sighting {
    pub(crate) const INGRESS: u8 = 0;
    pub(crate) const EGRESS: u8 = 1;
    const MADE_HERE: u8 = 1 << 1;
    const SHARES_ADDRESSES: u8 = 1 << 2;
    const NEW_POLICY: u8 = 1 << 3;
    const LONG_AFTER: u8 = 1 << 4;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn direction(self) -> Direction {
        if self.has(Self::EGRESS) {
            Direction::Egress
        } else {
            Direction::Ingress
        }
    }

    fn endpoint(self) -> Endpoint {
        if self.has(Self::SHARES_ADDRESSES) {
            Endpoint {
                id: SHARING,
                flags: 0,
            }
        } else {
            Endpoint {
                id: CHECKED,
                flags: Endpoint::OWNS_ADDRESSES | Endpoint::CHECK_SOURCE,
            }
        }
    }

    fn is_sent(self) -> bool {
        matches!(self.direction(), Direction::Egress)
    }

    /// Whether a packet that passes may have this source.
    fn may_come_from<A: Address>(self, source: &A) -> bool {
        !self.is_sent()
            || self.has(Self::SHARES_ADDRESSES)
            || is_own(source)
            || source.is_local_scope()
    }
}
