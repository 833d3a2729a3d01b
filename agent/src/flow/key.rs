//! Flow keys of both families as one type, and the id made from them.

use std::{fmt, net::IpAddr, str::FromStr};

use agent_common::{
    event::{DenialKey, Event},
    flow::FlowKey,
    table::Direction,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A key of one of the two flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    V4(FlowKey<[u8; 4]>),
    V6(FlowKey<[u8; 16]>),
}

/// Stable for a flow: the same in each of its records. Written as 16 hexadecimal digits, because
/// many readers of JSON cut 64-bit numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowId(pub(crate) u64);

impl Key {
    pub(crate) fn of_event(event: &Event) -> Self {
        let Event {
            endpoint,
            protocol,
            local_port,
            remote_port,
            family,
            local,
            remote,
            ..
        } = *event;
        if family == 4 {
            Self::V4(FlowKey {
                endpoint,
                protocol,
                zero: 0,
                local_port,
                remote_port,
                local: unmapped(local),
                remote: unmapped(remote),
            })
        } else {
            let zero = 0;
            Self::V6(FlowKey {
                endpoint,
                protocol,
                zero,
                local_port,
                remote_port,
                local,
                remote,
            })
        }
    }

    /// The flow that stands for all denied packets of one kind, their source port folded to 0 and
    /// the endpoint's address, which is not known, to none.
    pub(crate) fn of_denial(denial: &DenialKey) -> Self {
        let (local_port, remote_port) = if denial.direction == Direction::Ingress as u8 {
            (denial.port, 0)
        } else {
            (0, denial.port)
        };
        Self::V6(FlowKey {
            endpoint: denial.endpoint,
            protocol: denial.protocol,
            zero: 0,
            local_port,
            remote_port,
            local: [0; 16],
            remote: denial.remote,
        })
    }

    /// As [`Key::of_denial`], by the family of the packets.
    pub(crate) fn of_denied(denial: &DenialKey) -> Self {
        match Self::of_denial(denial) {
            Self::V6(key) if denial.family == 4 => Self::V4(FlowKey {
                endpoint: key.endpoint,
                protocol: key.protocol,
                zero: 0,
                local_port: key.local_port,
                remote_port: key.remote_port,
                local: [0; 4],
                remote: unmapped(key.remote),
            }),
            key => key,
        }
    }

    pub(crate) fn endpoint(&self) -> u16 {
        match self {
            Self::V4(key) => key.endpoint,
            Self::V6(key) => key.endpoint,
        }
    }

    pub(crate) fn protocol(&self) -> u8 {
        match self {
            Self::V4(key) => key.protocol,
            Self::V6(key) => key.protocol,
        }
    }

    /// Address and port of the endpoint's side.
    pub(crate) fn local(&self) -> (IpAddr, u16) {
        match self {
            Self::V4(key) => (key.local.into(), key.local_port),
            Self::V6(key) => (key.local.into(), key.local_port),
        }
    }

    /// Address and port of the peer's side.
    pub(crate) fn remote(&self) -> (IpAddr, u16) {
        match self {
            Self::V4(key) => (key.remote.into(), key.remote_port),
            Self::V6(key) => (key.remote.into(), key.remote_port),
        }
    }

    pub(crate) fn responder_port(&self, direction: Direction) -> u16 {
        match self {
            Self::V4(key) => key.responder_port(direction),
            Self::V6(key) => key.responder_port(direction),
        }
    }
}

/// The address of [`Event`] or of a denial as its family writes it.
pub(crate) fn address(family: u8, bytes: [u8; 16]) -> IpAddr {
    if family == 4 {
        unmapped(bytes).into()
    } else {
        bytes.into()
    }
}

fn unmapped(bytes: [u8; 16]) -> [u8; 4] {
    let [.., a, b, c, d] = bytes;
    [a, b, c, d]
}

impl FlowId {
    /// `opened` in nanoseconds of the boot clock; 0 for what has no beginning.
    pub(crate) fn new(key: &Key, opened: u64) -> Self {
        let mut hash = Fnv::default();
        let (endpoint, protocol) = (key.endpoint(), key.protocol());
        hash.add(&endpoint.to_le_bytes()).add(&[protocol]);
        for (address, port) in [key.local(), key.remote()] {
            match address {
                IpAddr::V4(address) => hash.add(&address.octets()),
                IpAddr::V6(address) => hash.add(&address.octets()),
            }
            .add(&port.to_le_bytes());
        }
        hash.add(&opened.to_le_bytes());
        Self(hash.finish())
    }
}

/// FNV-1a. The standard library's hasher may change with any release; an id must not.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) -> &mut Self {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    /// FNV leaves the upper bits weak for short input; one multiplicative fold mends that.
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 29)
    }
}

impl FlowId {
    /// Appends what [`fmt::Display`] shows.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        let digits = (0..16).rev().map(|digit| (self.0 >> (digit * 4)) & 0xf);
        out.extend(digits.map(|digit| {
            let digit = u8::try_from(digit).unwrap_or_default();
            if digit < 10 {
                b'0' + digit
            } else {
                b'a' + (digit - 10)
            }
        }));
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for FlowId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for FlowId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FlowId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_id_is_stable_and_differs_by_key_and_opening() {
        let key = |port| {
            Key::V4(FlowKey {
                endpoint: 1,
                protocol: 6,
                zero: 0,
                local_port: port,
                remote_port: 80,
                local: [10, 0, 0, 1],
                remote: [10, 0, 0, 2],
            })
        };
        let id = FlowId::new(&key(1), 5);
        assert_eq!(id, FlowId::new(&key(1), 5));
        assert_ne!(id, FlowId::new(&key(1), 6));
        assert_ne!(id, FlowId::new(&key(2), 5));
        assert_eq!(id.to_string().parse::<FlowId>().unwrap(), id);
        for id in [
            id,
            FlowId(0),
            FlowId(u64::MAX),
            FlowId(0x0123_4567_89ab_cdef),
        ] {
            let mut text = Vec::new();
            id.put(&mut text);
            assert_eq!(text, id.to_string().into_bytes());
        }
    }
}
