//! What an endpoint and its resolvers say to each other, as the agent is told it: names for addresses.

use crate::{abi::abi, parse::Headers, table::Direction};

/// Of a resolver, over UDP and TCP (RFC 1035, 4.2).
pub const PORT: u16 = 53;

/// Nearly all messages are no longer.
pub const SHORT: usize = 512;
/// What is longer is not told, but counted.
pub const LONG: usize = 4096;

abi! {
    /// Ahead of the payload of a packet that was permitted.
    pub struct DnsHead: 56 {
        pub endpoint: u16,
        pub protocol: u8,
        /// [`Direction`] as a number: of the packet, seen from the endpoint.
        pub direction: u8,
        pub local_port: u16,
        /// 4 or 6.
        pub family: u8,
        pub zero: u8,
        /// Of the payload, in bytes.
        pub length: u32,
        pub zero2: u32,
        /// Nanoseconds of the boot clock.
        pub time: u64,
        /// IPv4 as `::ffff:a.b.c.d`.
        pub local: [u8; 16],
        pub remote: [u8; 16],
    }
}

/// A packet as the ring has it: of the payload, as much counts as its head says.
#[repr(C)]
#[derive(Debug)]
pub struct DnsPacket<const ROOM: usize> {
    pub head: DnsHead,
    pub payload: [u8; ROOM],
}

/// Whether a packet of TCP or UDP may be a question to a resolver, or the answer to one. What is asked of the
/// endpoint itself is not.
#[inline(always)]
pub fn is_spoken<A>(headers: &Headers<A>, direction: Direction) -> bool {
    let port = match direction {
        Direction::Egress => headers.destination_port,
        Direction::Ingress => headers.source_port,
    };
    port == PORT
}
