//! Flows: one connection or exchange, seen from one endpoint.

use crate::{
    abi::{Abi, Field, abi},
    parse::Headers,
    protocol::Address,
    rtt::RoundTrip,
    shared::Shared,
    table::Direction,
};

/// Which flow of which endpoint.
///
/// Local and remote, not source and destination: both directions have one key without sorting.
/// The ports of an ICMP exchange are the identifier at the initiator and, at the responder, type
/// × 256 + code of what the initiator sent.
///
/// Aligned, so that it is written by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey<A> {
    pub endpoint: u16,
    pub protocol: u8,
    pub zero: u8,
    pub local_port: u16,
    pub remote_port: u16,
    pub local: A,
    pub remote: A,
}

const _: () = assert!(size_of::<FlowKey<[u8; 4]>>() == 16 && size_of::<FlowKey<[u8; 16]>>() == 40);

macro_rules! flow_key_abi {
    ($($address:ty => $name:literal),*) => {$(
        // SAFETY: `repr(C)`; the fields fill the asserted size without gaps, and are integers.
        unsafe impl Abi for FlowKey<$address> {
            const NAME: &'static str = $name;
            const FIELDS: &'static [Field] = &[
                Field { name: "endpoint", offset: 0, size: 2 },
                Field { name: "protocol", offset: 2, size: 1 },
                Field { name: "zero", offset: 3, size: 1 },
                Field { name: "local_port", offset: 4, size: 2 },
                Field { name: "remote_port", offset: 6, size: 2 },
                Field { name: "local", offset: 8, size: size_of::<$address>() },
                Field {
                    name: "remote",
                    offset: 8 + size_of::<$address>(),
                    size: size_of::<$address>(),
                },
            ];
        }
    )*};
}
flow_key_abi!([u8; 4] => "FlowKeyV4", [u8; 16] => "FlowKeyV6");

/// What the kernel remembers of a permitted flow. Fits one cache line.
///
/// Shared between processors: every field that changes stands alone.
#[repr(C)]
#[derive(Debug)]
pub struct Flow {
    /// The endpoint's generation at which the verdict was last checked.
    pub generation: Shared<u32>,
    pub rule: Shared<u32>,
    /// [`crate::verdict::Reason`] as a number.
    pub reason: Shared<u8>,
    /// Bits of [`Flow`]'s constants; fixed when the flow is made.
    pub origin: u8,
    /// TCP flags seen from the initiator and from the responder, or-ed.
    pub tcp_flags: [Shared<u8>; 2],
    /// 1 once the end has been reported.
    pub closed: Shared<u16>,
    /// [`RoundTrip`] that the endpoint's socket measured last, smoothed; of TCP.
    pub rtt: Shared<u16>,
    /// Nanoseconds of the boot clock.
    pub opened: u64,
    /// Jiffies.
    pub last_seen: Shared<u64>,
    /// From the initiator and from the responder.
    pub packets: [Shared<u64>; 2],
    /// From the network header on.
    pub bytes: [Shared<u64>; 2],
}

const _: () = assert!(size_of::<Flow>() == 64);

abi! {
    /// A [`Flow`] as user space reads it out of the map: the same bytes, as plain values.
    pub struct FlowState: 64 {
        pub generation: u32,
        pub rule: u32,
        pub reason: u8,
        pub origin: u8,
        pub tcp_flags: [u8; 2],
        pub closed: u16,
        pub rtt: u16,
        pub opened: u64,
        pub last_seen: u64,
        pub packets: [u64; 2],
        pub bytes: [u64; 2],
    }
}

const _: () = {
    assert!(core::mem::offset_of!(Flow, reason) == core::mem::offset_of!(FlowState, reason));
    assert!(core::mem::offset_of!(Flow, closed) == core::mem::offset_of!(FlowState, closed));
    assert!(core::mem::offset_of!(Flow, rtt) == core::mem::offset_of!(FlowState, rtt));
    assert!(core::mem::offset_of!(Flow, opened) == core::mem::offset_of!(FlowState, opened));
    assert!(core::mem::offset_of!(Flow, packets) == core::mem::offset_of!(FlowState, packets));
    assert!(core::mem::offset_of!(Flow, bytes) == core::mem::offset_of!(FlowState, bytes));
};

/// Flags of the TCP header (RFC 9293, 3.1).
pub mod tcp {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;

    /// A segment that asks for a new connection.
    #[inline(always)]
    pub const fn is_syn(flags: u8) -> bool {
        flags & (SYN | ACK) == SYN
    }
}

/// The side of a flow that a packet comes from; also the index of its counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    Initiator = 0,
    Responder = 1,
}

/// What a packet does to a flow that the table already has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It belongs to the flow.
    Continue(Side),
    /// It starts another flow with the same addresses and ports.
    Reopen,
}

// === impl FlowKey ===

impl<A: Address> FlowKey<A> {
    #[inline(always)]
    pub fn new(endpoint: u16, headers: &Headers<A>, direction: Direction) -> Self {
        let Headers {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            ..
        } = *headers;
        match direction {
            Direction::Egress => Self {
                endpoint,
                protocol,
                zero: 0,
                local_port: source_port,
                remote_port: destination_port,
                local: source,
                remote: destination,
            },
            Direction::Ingress => Self {
                endpoint,
                protocol,
                zero: 0,
                local_port: destination_port,
                remote_port: source_port,
                local: destination,
                remote: source,
            },
        }
    }

    /// As `==`, by words.
    #[inline(always)]
    pub fn is_same(&self, other: &Self) -> bool {
        let words = |key: &Self| (&raw const *key).cast::<u64>();
        let mut differs = 0;
        let mut word = 0;
        while word < size_of::<Self>() / size_of::<u64>() {
            // SAFETY: integers without gaps, as many words as just counted, aligned to them.
            differs |= unsafe { *words(self).add(word) ^ *words(other).add(word) };
            word += 1;
        }
        differs == 0
    }

    /// The responder's port, which policy speaks about.
    #[inline(always)]
    pub fn responder_port(&self, direction: Direction) -> u16 {
        match direction {
            Direction::Egress => self.remote_port,
            Direction::Ingress => self.local_port,
        }
    }
}

// === impl Flow ===

impl Flow {
    /// No word has this generation: a flow that has it is judged again with every packet.
    ///
    /// Plans skip numbers whose lower 16 bits are zero; and [`crate::table::Word::UNSET`], which an
    /// endpoint has that is no more, is not this number either.
    pub const NEVER: u32 = 1 << 16;

    /// The endpoint is the responder.
    pub const INITIATED_BY_PEER: u8 = 1;
    /// The first packet was made by this node's own stack.
    pub const MADE_HERE: u8 = 2;
    /// Taken up in the middle: who started it is a guess.
    pub const ADOPTED: u8 = 4;

    /// The direction that policy judges: the initiator's.
    #[inline(always)]
    pub fn direction(&self) -> Direction {
        direction_of(self.origin)
    }

    /// The flow as it is now, field by field.
    #[inline(always)]
    pub fn state(&self) -> FlowState {
        FlowState {
            generation: self.generation.get(),
            rule: self.rule.get(),
            reason: self.reason.get(),
            origin: self.origin,
            tcp_flags: [self.tcp_flags[0].get(), self.tcp_flags[1].get()],
            closed: self.closed.get(),
            rtt: self.rtt.get(),
            opened: self.opened,
            last_seen: self.last_seen.get(),
            packets: [self.packets[0].get(), self.packets[1].get()],
            bytes: [self.bytes[0].get(), self.bytes[1].get()],
        }
    }

    /// What a packet in `direction` does to this flow.
    ///
    /// A SYN without ACK is never a reply: from the responder, or on a flow that is closing, it
    /// starts another flow.
    #[inline(always)]
    pub fn step(&self, tcp_flags: u8, direction: Direction) -> Step {
        let side = self.side(direction);
        if tcp::is_syn(tcp_flags) && (matches!(side, Side::Responder) || self.is_closing()) {
            return Step::Reopen;
        }
        Step::Continue(side)
    }

    /// Whose packets go in `direction`.
    #[inline(always)]
    pub fn side(&self, direction: Direction) -> Side {
        if direction as u8 == self.direction() as u8 {
            Side::Initiator
        } else {
            Side::Responder
        }
    }

    /// A packet neither starts nor ends anything: it is counted, and that is all.
    #[inline(always)]
    pub fn runs_on(&self, tcp_flags: u8) -> bool {
        tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) == 0 && !self.is_closing()
    }

    /// One end has sent FIN or RST.
    #[inline(always)]
    pub fn is_closing(&self) -> bool {
        let [initiator, responder] = &self.tcp_flags;
        (initiator.get() | responder.get()) & (tcp::FIN | tcp::RST) != 0
    }

    #[inline(always)]
    pub fn count(&self, tcp_flags: u8, side: Side, length: u32, jiffies: u64) {
        let index = side as usize & 1;
        self.packets[index].add(1);
        self.bytes[index].add(u64::from(length));
        self.last_seen.set(jiffies);
        let seen = self.tcp_flags[index].get();
        if seen | tcp_flags != seen {
            self.tcp_flags[index].set(seen | tcp_flags);
        }
    }

    /// Whether to ask the packet's socket how long round trips take: with one in so many packets of a side, and
    /// at first until it knows. Where one direction alone carries the endpoint's socket, the other must not
    /// use up its turn.
    #[inline(always)]
    pub fn is_measured_with(&self, side: Side) -> bool {
        const ONE_IN: u64 = 16;
        let packets = self.packets[side as usize & 1].get();
        packets.is_multiple_of(ONE_IN) || (packets < ONE_IN && self.rtt.get() == 0)
    }

    /// The same where both directions do: with the first packet of each stretch of 256 jiffies.
    #[inline(always)]
    pub fn is_measured_at(&self, jiffies: u64) -> bool {
        is_later_part(self.last_seen.get(), jiffies)
    }

    /// Notes what the endpoint's socket has measured, if it has.
    #[inline(always)]
    pub fn note_round_trip(&self, RoundTrip(measured): RoundTrip) {
        if measured != 0 {
            self.rtt.set(measured);
        }
    }

    /// Whether a packet that has been counted is the one that ends the flow; true once.
    ///
    /// A TCP flow ends with an RST, or with the first packet without FIN after both ends sent
    /// theirs: the acknowledgement that closes the exchange.
    #[inline(always)]
    pub fn closes(&self, tcp_flags: u8) -> bool {
        let both = self.tcp_flags[0].get() & self.tcp_flags[1].get();
        let ends = tcp_flags & tcp::RST != 0 || (both & tcp::FIN != 0 && tcp_flags & tcp::FIN == 0);
        if ends && self.closed.get() == 0 {
            self.closed.set(1);
            return true;
        }
        false
    }
}

impl FlowState {
    #[inline(always)]
    pub fn direction(&self) -> Direction {
        direction_of(self.origin)
    }
}

/// Whether two moments lie in different parts of 256 jiffies: of a quarter of a second to two and a half.
#[inline(always)]
pub(crate) fn is_later_part(last_seen: u64, jiffies: u64) -> bool {
    (last_seen ^ jiffies) >> 8 != 0
}

/// The direction that policy judges a flow of this origin in.
#[inline(always)]
pub(crate) fn direction_of(origin: u8) -> Direction {
    if origin & Flow::INITIATED_BY_PEER == 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}
