//! What the programs tell the agent, by ring buffer.

use crate::abi::abi;

abi! {
    /// One event. Counters and times are those of the moment it was made.
    pub struct Event: 112 {
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
        pub zero: u16,
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
    }

    /// Key of the denials map: denied packets of one kind, their source port folded.
    pub struct DenialKey: 24 {
        pub endpoint: u16,
        /// The responder's port.
        pub port: u16,
        pub protocol: u8,
        pub direction: u8,
        pub reason: u8,
        pub family: u8,
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
    /// A permitted packet that the full table could not remember.
    Unremembered = 5,
}

impl EventKind {
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Open),
            2 => Some(Self::Close),
            3 => Some(Self::Deny),
            4 => Some(Self::Change),
            5 => Some(Self::Unremembered),
            _ => None,
        }
    }
}
