//! Denied packets by kind: the first is told at once, the others are counted.
//!
//! Whoever scans makes a million kinds of one packet each. An entry for each would cost more than all else that is
//! done for the packet, and take the room of kinds that others make. So the first of a kind leaves a number at a
//! place that follows from it, and an entry is made when the number is found there.
//!
//! Whoever finds another number of the same place there is taken for a first one again: each packet is told or
//! counted, and none both. Two kinds of one number, of 2^64, are counted without having been told.

use crate::{abi::abi, event::DenialKey, refusal};

abi! {
    /// Packets of one kind that have not been told by themselves.
    pub struct Denied: 24 {
        pub packets: u64,
        /// From the network header on.
        pub bytes: u64,
        /// When the entry was made, in nanoseconds of the boot clock: an entry that makes room may be made anew.
        pub since: u64,
    }
}

/// Places of numbers.
pub const PLACES: u32 = 8192;

/// The number of a kind; never 0, which is nobody's.
#[inline(always)]
pub fn number(kind: &DenialKey) -> u64 {
    let DenialKey {
        endpoint,
        port,
        protocol,
        direction,
        reason,
        family,
        rule,
        remote,
    } = *kind;
    let [p0, p1] = port.to_ne_bytes();
    let [e0, e1] = endpoint.to_ne_bytes();
    let head = u64::from_ne_bytes([e0, e1, p0, p1, protocol, direction, reason, family]);
    let remote = u128::from_ne_bytes(remote);
    #[expect(clippy::cast_possible_truncation, reason = "one half, then the other")]
    let (low, high) = (remote as u64, (remote >> 64) as u64);
    refusal::mixed(&[head, low, high], u64::from(rule)) | 1
}

/// Where it is left.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is cut off is not needed"
)]
pub const fn place(number: u64) -> u32 {
    (number >> 1) as u32 % PLACES
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KIND: DenialKey = DenialKey {
        endpoint: 1,
        port: 2,
        protocol: 3,
        direction: 1,
        reason: 5,
        family: 4,
        rule: 7,
        remote: [8; 16],
    };

    #[test]
    fn whatever_makes_a_kind_makes_its_number() {
        let mut kinds = std::vec![
            KIND,
            DenialKey {
                endpoint: 2,
                ..KIND
            },
            DenialKey { port: 1, ..KIND },
            DenialKey {
                protocol: 4,
                ..KIND
            },
            DenialKey {
                direction: 0,
                ..KIND
            },
            DenialKey { reason: 4, ..KIND },
            DenialKey { family: 6, ..KIND },
            DenialKey { rule: 8, ..KIND },
        ];
        for at in 0..16 {
            let mut kind = KIND;
            kind.remote[at] = 9;
            kinds.push(kind);
        }
        let numbers: BTreeSet<_> = kinds.iter().map(number).collect();
        assert_eq!(numbers.len(), kinds.len());
        assert!(!numbers.contains(&0));
    }

    #[test]
    fn the_ports_of_a_scan_are_spread() {
        let places = (0..1000).map(|port| place(number(&DenialKey { port, ..KIND })));
        let places: BTreeSet<_> = places.collect();
        assert!(places.len() > 900, "{}", places.len());
    }
}
