//! Frames, one after the other: parsed and judged as in the kernel, with flows that remember.
//!
//! Each frame comes after a byte that says how it is seen, and its length.

use agent_common::{
    decide::Tables,
    parse::{Extent, Family, Headers, Network, network},
    protocol::Address,
    table::{
        Decision, Direction, Endpoint, OwnAddress, PolicyKey, PortKey, THIS_NODE, Versioned, WORLD,
        Word,
    },
    testing::{Slice, Twin},
    verdict::{Action, Reason, RuleId},
};

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const FLOWS: usize = 8;
const ENDPOINT: u16 = 3;
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

pub fn run(mut bytes: &[u8]) {
    let mut twin = Twin::new(EvenPorts, FLOWS);
    for address in [OWN_V4.mapped(), OWN_V6] {
        let endpoint = ENDPOINT.into();
        twin.own.insert(OwnAddress { endpoint, address });
    }
    let mut generation = 1;
    while let [how, length, rest @ ..] = bytes {
        let (frame, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = rest;
        let sighting = Sighting(*how);
        generation += u32::from(sighting.has(Sighting::NEW_POLICY));
        twin.words.insert(ENDPOINT, Word::new(1, generation));
        twin.jiffies += if sighting.has(Sighting::LONG_AFTER) {
            LONG
        } else {
            1
        };
        see(&twin, sighting, frame);
    }
}

fn see(twin: &Twin<EvenPorts>, sighting: Sighting, frame: &[u8]) {
    let endpoint = Endpoint {
        id: ENDPOINT,
        flags: if sighting.has(Sighting::SHARES_ADDRESSES) {
            0
        } else {
            Endpoint::OWNS_ADDRESSES | Endpoint::CHECK_SOURCE
        },
    };
    let direction = if sighting.has(Sighting::EGRESS) {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let made_here = sighting.has(Sighting::MADE_HERE);
    let verdict = twin.frame(endpoint, direction, frame, made_here);
    let packet = Slice(frame);
    let is_readable = match network(&packet) {
        Network::V4 => reads_alike::<[u8; 4]>(packet),
        Network::V6 => reads_alike::<[u8; 16]>(packet),
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
fn reads_alike<A: Family + PartialEq + std::fmt::Debug>(packet: Slice<'_>) -> bool {
    let (mut whole, mut plain) = (Headers::<A>::EMPTY, Headers::<A>::EMPTY);
    let result = A::whole(&packet, ETHERNET, &mut whole, Extent::Whole);
    if A::plain(&packet, ETHERNET, &mut plain) {
        assert_eq!((result, plain), (Ok(()), whole), "of {:02x?}", packet.0);
    }
    matches!(result, Ok(()) | Err(Reason::Fragment))
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
}
