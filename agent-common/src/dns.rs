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

/// How much of an endpoint was told in a stretch of time: one that floods its resolver takes nobody else's room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken(pub u64);

impl Spoken {
    /// Packets in 256 jiffies, which are a quarter of a second to 2.6 s: more than what busy programs ask, and a
    /// small part of what the ring holds.
    pub const SHARE: u64 = 256;
    const COUNT: u32 = 16;

    /// Whether one more is told at a moment, and what is known then.
    #[inline(always)]
    pub const fn next(self, jiffies: u64) -> (bool, Self) {
        let Self(word) = self;
        let stretch = (jiffies >> 8) << Self::COUNT;
        let count = word & ((1 << Self::COUNT) - 1);
        if word - count != stretch {
            return (true, Self(stretch | 1));
        }
        if count >= Self::SHARE {
            return (false, self);
        }
        (true, Self(word + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Class;

    #[test]
    fn an_endpoint_has_its_share_of_each_stretch() {
        let mut spoken = Spoken::default();
        let mut told = |jiffies| {
            let (is_told, next) = spoken.next(jiffies);
            spoken = next;
            is_told
        };
        for _ in 0..Spoken::SHARE {
            assert!(told(1000));
        }
        assert!(!told(1000) && !told(1023));
        assert!(told(1024));
        // It is of no consequence what stood there before, or if the clock begins anew.
        assert!(Spoken(u64::MAX).next(5).0 && Spoken(0).next(5).0);
    }

    #[test]
    fn questions_go_to_a_resolver_and_answers_come_from_it() {
        let headers = |source_port, destination_port| Headers::<[u8; 4]> {
            source: [10, 0, 0, 1],
            destination: [10, 0, 0, 2],
            source_port,
            destination_port,
            protocol: crate::protocol::UDP,
            tcp_flags: 0,
            class: Class::Ordinary,
            further: 0,
        };
        assert!(is_spoken(&headers(4000, 53), Direction::Egress));
        assert!(is_spoken(&headers(53, 4000), Direction::Ingress));
        // Somebody asks the endpoint.
        assert!(!is_spoken(&headers(4000, 53), Direction::Ingress));
        assert!(!is_spoken(&headers(53, 4000), Direction::Egress));
    }
}
