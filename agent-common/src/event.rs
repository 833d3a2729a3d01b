//! What the programs tell the agent, by ring buffer.

use crate::{
    abi::abi,
    flow::{FlowKey, FlowState},
    judge::Sight,
    process::Process,
    protocol::Address,
    verdict::Verdict,
};

abi! {
    /// One event. Counters and times are those of the moment it was made.
    pub struct Event: 152 {
        /// [`EventKind`] as a number.
        pub kind: u8,
        /// [`crate::verdict::Reason`] as a number.
        pub reason: u8,
        /// [`crate::table::Direction`] as a number: the initiator's, seen from the endpoint.
        pub direction: u8,
        pub protocol: u8,
        /// 4 or 6.
        pub family: u8,
        /// [`crate::flow::Flow`]'s origin bits.
        pub origin: u8,
        /// From the initiator and from the responder.
        pub tcp_flags: [u8; 2],
        pub endpoint: u16,
        pub local_port: u16,
        pub remote_port: u16,
        /// [`crate::rtt::RoundTrip`] of the flow.
        pub rtt: u16,
        pub rule: u32,
        pub generation: u32,
        /// The interface that the packet was seen at, or 0 in a cgroup.
        pub ifindex: u32,
        pub zero2: u32,
        /// Nanoseconds of the boot clock.
        pub time: u64,
        /// As [`Event::time`]; for a denied packet the same.
        pub opened: u64,
        /// IPv4 as `::ffff:a.b.c.d`.
        pub local: [u8; 16],
        pub remote: [u8; 16],
        pub packets: [u64; 2],
        pub bytes: [u64; 2],
        /// Whose socket of the endpoint's the packet is of; nobody if that is not known, and of events
        /// that do not name one: [`EventKind::names_process`].
        pub process: Process,
    }

    /// Key of the denials map, see [`crate::denial`]: denied packets of one kind, their source port folded.
    pub struct DenialKey: 28 {
        pub endpoint: u16,
        /// The responder's port.
        pub port: u16,
        pub protocol: u8,
        pub direction: u8,
        pub reason: u8,
        pub family: u8,
        /// The rule that denies them, or 0.
        pub rule: u32,
        pub remote: [u8; 16],
    }
}

/// What has happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// A permitted flow entered the table.
    Open = 1,
    /// It ended: FIN, RST, taken over by another flow, or revoked.
    Close = 2,
    /// The first denied packet of its kind; more are only counted.
    Deny = 3,
    /// Permitted still, but by another rule.
    Change = 4,
    /// The responder has answered, and by whose socket is known: that was not so when it opened.
    Answer = 5,
}

/// What found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// An event in the ring buffer.
    Event = 0,
    /// A permitted packet's flow in the table.
    Flow = 1,
    /// Whose a socket is, in the socket.
    Process = 2,
    /// What an endpoint and its resolver have said, in the ring buffer for that.
    Name = 3,
}

impl Loss {
    pub const KINDS: u32 = 4;
}

impl EventKind {
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Open),
            2 => Some(Self::Close),
            3 => Some(Self::Deny),
            4 => Some(Self::Change),
            5 => Some(Self::Answer),
            _ => None,
        }
    }

    /// Whether the packet's socket is that of the flow. The last packet of a flow may be the first of
    /// the one that takes its place.
    #[inline(always)]
    pub const fn names_process(number: u8) -> bool {
        number == Self::Open as u8 || number == Self::Deny as u8
    }
}

impl Event {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const EMPTY: Self = Self {
        kind: 0,
        reason: 0,
        direction: 0,
        protocol: 0,
        family: 0,
        origin: 0,
        tcp_flags: [0; 2],
        endpoint: 0,
        local_port: 0,
        remote_port: 0,
        rtt: 0,
        rule: 0,
        generation: 0,
        ifindex: 0,
        zero2: 0,
        time: 0,
        opened: 0,
        local: [0; 16],
        remote: [0; 16],
        packets: [0; 2],
        bytes: [0; 2],
        process: Process::NOBODY,
    };

    /// Becomes what happened at `time`, of the boot clock, to a flow in this state.
    ///
    /// In place, because an event is a quarter of a program's stack.
    #[inline(always)]
    pub fn fill<A: Address>(
        &mut self,
        kind: EventKind,
        key: &FlowKey<A>,
        state: &FlowState,
        ifindex: u32,
        time: u64,
    ) {
        self.kind = kind as u8;
        self.reason = state.reason;
        self.direction = state.direction() as u8;
        self.protocol = key.protocol;
        self.family = A::FAMILY;
        self.origin = state.origin;
        self.tcp_flags = state.tcp_flags;
        self.endpoint = key.endpoint;
        self.local_port = key.local_port;
        self.remote_port = key.remote_port;
        self.rtt = state.rtt;
        self.rule = state.rule;
        self.generation = state.generation;
        self.ifindex = ifindex;
        self.zero2 = 0;
        self.time = time;
        self.opened = state.opened;
        self.local = key.local.mapped();
        self.remote = key.remote.mapped();
        self.packets = state.packets;
        self.bytes = state.bytes;
        self.process = Process::NOBODY;
    }
}

impl DenialKey {
    /// The kind of a denied packet.
    #[inline(always)]
    pub fn new<A: Address>(key: &FlowKey<A>, sight: &Sight, verdict: Verdict) -> Self {
        Self {
            endpoint: key.endpoint,
            port: key.responder_port(sight.direction),
            protocol: key.protocol,
            direction: sight.direction as u8,
            reason: verdict.reason() as u8,
            family: A::FAMILY,
            rule: verdict.rule().0,
            remote: key.remote.mapped(),
        }
    }
}
