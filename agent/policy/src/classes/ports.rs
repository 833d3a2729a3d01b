//! A value for every port of every protocol, as intervals.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Serialize, Serializer};

use crate::{
    connection::Port,
    model::{IcmpVersion, Protocol},
};

/// TCP, UDP and SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Total: every protocol has a value for every port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortMap<T> {
    /// Protocols that differ from the rest: where each value begins. The first one begins at 0.
    protocols: BTreeMap<u8, BTreeMap<u16, T>>,
    rest: T,
}

/// Ports that belong together; prints as `TCP/80`, `TCP/8000-8080`, `UDP`, or a protocol's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// `None`: every protocol that no other range of the list names.
    pub protocol: Option<u8>,
    pub first: u16,
    pub last: u16,
}

/// Some ports. Prints as a list of ranges, or as all ports but some.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortSet(PortMap<bool>);

// === impl PortMap ===

impl<T: Clone + PartialEq> PortMap<T> {
    pub(crate) fn constant(value: T) -> Self {
        Self {
            protocols: BTreeMap::new(),
            rest: value,
        }
    }

    /// Asks once for each interval between `borders`, which name the first port of each, and once
    /// for a protocol that has none.
    pub(crate) fn ask(borders: &BTreeMap<u8, BTreeSet<u16>>, ask: impl Fn(Port) -> T) -> Self {
        let of_protocol = |(&protocol, starts): (&u8, &BTreeSet<u16>)| {
            let starts = starts.iter().copied().chain([0]);
            let values = starts.map(|number| (number, ask(Port { protocol, number })));
            (protocol, values.collect())
        };
        let other = (0..=u8::MAX).find(|protocol| !borders.contains_key(protocol));
        Self {
            protocols: borders.iter().map(of_protocol).collect(),
            rest: ask(Port {
                protocol: other.unwrap_or(u8::MAX),
                number: 0,
            }),
        }
        .joined()
    }

    pub(crate) fn zip<U: Clone, V: Clone + PartialEq>(
        &self,
        other: &PortMap<U>,
        both: impl Fn(&T, &U) -> V,
    ) -> PortMap<V> {
        let named: BTreeSet<u8> = self
            .protocols
            .keys()
            .chain(other.protocols.keys())
            .copied()
            .collect();
        let of_protocol = |protocol: u8| {
            let starts = |one: Option<BTreeSet<u16>>| one.unwrap_or_default();
            let ours = self.protocols.get(&protocol);
            let theirs = other.protocols.get(&protocol);
            let mut all = starts(ours.map(|map| map.keys().copied().collect()));
            all.extend(starts(theirs.map(|map| map.keys().copied().collect())));
            all.insert(0);
            let values = all.into_iter().map(|number| {
                let port = Port { protocol, number };
                (number, both(self.at(port), other.at(port)))
            });
            (protocol, values.collect())
        };
        PortMap {
            protocols: named.into_iter().map(of_protocol).collect(),
            rest: both(&self.rest, &other.rest),
        }
        .joined()
    }

    pub(crate) fn map<U: Clone + PartialEq>(&self, change: impl Fn(&T) -> U) -> PortMap<U> {
        self.zip(&PortMap::constant(()), |value, ()| change(value))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        let named = self.protocols.values().flat_map(BTreeMap::values);
        named.chain([&self.rest])
    }

    /// Without borders between the same values.
    fn joined(mut self) -> Self {
        for values in self.protocols.values_mut() {
            let mut before: Option<T> = None;
            values.retain(|_, value| {
                let differs = before.as_ref() != Some(value);
                before = Some(value.clone());
                differs
            });
        }
        let rest = &self.rest;
        self.protocols
            .retain(|_, values| values.values().any(|value| value != rest));
        self
    }
}

impl<T> PortMap<T> {
    pub(crate) fn at(&self, port: Port) -> &T {
        self.protocols
            .get(&port.protocol)
            .and_then(|values| values.range(..=port.number).next_back())
            .map_or(&self.rest, |(_, value)| value)
    }

    /// The first port with a value that will do, in the order of protocols.
    pub(crate) fn find(&self, wanted: impl Fn(&T) -> bool) -> Option<Port> {
        let named = self.protocols.iter().flat_map(|(&protocol, values)| {
            let port = move |(&number, value)| (Port { protocol, number }, value);
            values.iter().map(port)
        });
        named
            .filter(|(_, value)| wanted(value))
            .map(|(port, _)| port)
            // Nobody opens port 0: where there is the choice, a port that exists.
            .map(|port| self.beyond_zero(port))
            .next()
            .or_else(|| {
                let protocol = self.unnamed()?;
                let number = u16::from(WITH_PORTS.contains(&protocol));
                wanted(&self.rest).then_some(Port { protocol, number })
            })
    }

    fn beyond_zero(&self, port: Port) -> Port {
        let next = Port { number: 1, ..port };
        let has_ports = WITH_PORTS.contains(&port.protocol);
        let starts = self.protocols.get(&port.protocol);
        if port.number == 0 && has_ports && starts.is_some_and(|map| !map.contains_key(&1)) {
            next
        } else {
            port
        }
    }

    /// A protocol with the value of the rest; TCP, if it is one of them.
    fn unnamed(&self) -> Option<u8> {
        let known = WITH_PORTS.into_iter();
        known
            .chain(0..=u8::MAX)
            .find(|protocol| !self.protocols.contains_key(protocol))
    }
}

// === impl PortSet ===

impl PortSet {
    pub(crate) fn new(ports: PortMap<bool>) -> Self {
        Self(ports)
    }

    /// All ports of the listed ranges.
    pub(crate) fn of(ranges: &[PortRange]) -> Self {
        let empty = PortMap::constant(false);
        Self(ranges.iter().fold(empty, |all, range| {
            all.zip(&range.as_map(), |one, other| *one || *other)
        }))
    }

    pub(crate) fn every() -> Self {
        Self(PortMap::constant(true))
    }

    pub(crate) fn as_map(&self) -> &PortMap<bool> {
        &self.0
    }

    /// The ranges in order. That of all other protocols is the last.
    pub fn ranges(&self) -> Vec<PortRange> {
        self.listed(true)
    }

    fn listed(&self, wanted: bool) -> Vec<PortRange> {
        let Self(PortMap { protocols, rest }) = self;
        let mut all = Vec::new();
        for (&protocol, values) in protocols {
            let next = values.keys().skip(1).map(|start| start.saturating_sub(1));
            let ends = next.chain([u16::MAX]);
            let ranges = values
                .iter()
                .zip(ends)
                .filter(|((_, value), _)| **value == wanted);
            all.extend(ranges.map(|((&first, _), last)| PortRange {
                protocol: Some(protocol),
                first,
                last,
            }));
        }
        if *rest == wanted {
            all.push(PortRange {
                protocol: None,
                first: 0,
                last: u16::MAX,
            });
        }
        all
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(PortMap { protocols, rest }) = self;
        let words = |wanted| {
            let ranges = self.listed(wanted);
            let words: Vec<_> = ranges
                .iter()
                .filter(|range| range.protocol.is_some())
                .map(ToString::to_string)
                .collect();
            words.join(", ")
        };
        match (rest, protocols.is_empty()) {
            (true, true) => f.write_str("every port"),
            (true, false) => write!(f, "every port but {}", words(false)),
            (false, _) => f.write_str(&words(true)),
        }
    }
}

/// A list of texts, such as `["TCP/80", "UDP"]`.
impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.ranges())
    }
}

// === impl PortRange ===

impl PortRange {
    pub(crate) fn one(port: Port) -> Self {
        let Port { protocol, number } = port;
        Self {
            protocol: Some(protocol),
            first: number,
            last: number,
        }
    }

    /// Reads what it prints as, or a port.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let protocol = |name: &str| {
            let transport = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter();
            let found = transport.clone().find(|known| known.to_string() == name);
            found.map(Protocol::number)
        };
        let all = |protocol| Self {
            protocol: Some(protocol),
            first: 0,
            last: u16::MAX,
        };
        match text.split_once('/') {
            None if protocol(text).is_some() => return protocol(text).map(all),
            Some(("ICMP", "*")) => return Some(all(IcmpVersion::V4.number())),
            Some(("ICMPv6", "*")) => return Some(all(IcmpVersion::V6.number())),
            _ => {}
        }
        let Some((first, last)) = text.split_once('-') else {
            let port: Port = text.parse().ok()?;
            // What has no ports has no one to choose from.
            let has_parts = protocol(text.split_once('/').map_or(text, |(name, _)| name)).is_some()
                || text.starts_with("ICMP");
            return Some(if has_parts {
                Self::one(port)
            } else {
                all(port.protocol)
            });
        };
        let first: Port = first.parse().ok()?;
        let last: u16 = last.parse().ok()?;
        let is_range = WITH_PORTS.contains(&first.protocol) && first.number <= last;
        is_range.then_some(Self {
            protocol: Some(first.protocol),
            first: first.number,
            last,
        })
    }

    fn as_map(self) -> PortMap<bool> {
        let Self {
            protocol,
            first,
            last,
        } = self;
        let Some(protocol) = protocol else {
            return PortMap::constant(true);
        };
        let mut values = BTreeMap::from([(0, false), (first, true)]);
        if let Some(after) = last.checked_add(1) {
            values.insert(after, false);
        }
        PortMap {
            protocols: [(protocol, values)].into(),
            rest: false,
        }
        .joined()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            first,
            last,
        } = *self;
        let Some(protocol) = protocol else {
            return f.write_str("other protocols");
        };
        let port = |number| Port { protocol, number };
        if first == last {
            return port(first).fmt(f);
        }
        let name = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|known| known.number() == protocol)
            .map(|known| known.to_string());
        let icmp = [(IcmpVersion::V4, "ICMP"), (IcmpVersion::V6, "ICMPv6")]
            .into_iter()
            .find(|(version, _)| version.number() == protocol);
        match (name, icmp, (first, last)) {
            (Some(name), _, (0, u16::MAX)) => f.write_str(&name),
            (Some(name), _, _) => write!(f, "{name}/{first}-{last}"),
            (None, Some((_, name)), (0, u16::MAX)) => f.write_str(name).and(f.write_str("/*")),
            (None, Some((_, name)), _) => {
                let [first, last] = [first, last].map(u16::to_be_bytes);
                match (first, last) {
                    ([kind, 0], [other, u8::MAX]) if kind == other => write!(f, "{name}/{kind}"),
                    ([kind, code], [other, end]) => {
                        write!(f, "{name}/{kind}/{code}-{other}/{end}")
                    }
                }
            }
            (None, None, _) => write!(f, "protocol/{protocol}"),
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(first: u16, last: u16) -> PortRange {
        PortRange {
            protocol: Some(6),
            first,
            last,
        }
    }

    #[test]
    fn ranges_come_out_as_they_went_in_and_joined() {
        let set = PortSet::of(&[tcp(80, 80), tcp(81, 90), tcp(0, 0)]);
        assert_eq!(set.ranges(), [tcp(0, 0), tcp(80, 90)]);
        assert_eq!(set.to_string(), "TCP/0, TCP/80-90");
        assert_eq!(PortSet::every().to_string(), "every port");
        assert_eq!(PortSet::of(&[]).ranges(), []);
        let all = PortSet::every()
            .as_map()
            .zip(set.as_map(), |every, some| *every && !some);
        assert_eq!(
            PortSet::new(all).to_string(),
            "every port but TCP/0, TCP/80-90"
        );
    }

    #[test]
    fn a_map_answers_what_it_was_asked() {
        let borders = [(6, [80, 81].into()), (17, [53].into())].into();
        let map = PortMap::ask(&borders, |port| {
            (port.protocol, port.number) == (6, 80) || port.protocol == 17
        });
        for (protocol, number, expected) in [
            (6, 79, false),
            (6, 80, true),
            (6, 81, false),
            (17, 0, true),
            (47, 0, false),
        ] {
            assert_eq!(
                *map.at(Port { protocol, number }),
                expected,
                "{protocol} {number}"
            );
        }
        assert_eq!(map.find(|is_in| *is_in), Some("TCP/80".parse().unwrap()));
        assert_eq!(map.find(|is_in| !is_in), Some("TCP/1".parse().unwrap()));
        assert_eq!(PortSet::new(map).to_string(), "TCP/80, UDP");
    }

    #[test]
    fn a_range_is_read_as_it_is_printed() {
        for text in [
            "TCP/80",
            "TCP/80-90",
            "UDP",
            "ICMP",
            "ICMP/*",
            "ICMPv6/*",
            "ICMP/3/1",
            "protocol/47",
        ] {
            assert_eq!(PortRange::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "http", "TCP/90-80", "ICMP/1-2", "TCP/0", "TCP/1-", "-"] {
            assert_eq!(PortRange::parse(text), None, "{text}");
        }
    }

    #[test]
    fn icmp_types_have_their_own_way_to_be_written() {
        let icmp = |first, last| PortRange {
            protocol: Some(1),
            first,
            last,
        };
        assert_eq!(icmp(0x0800, 0x0800).to_string(), "ICMP");
        assert_eq!(icmp(0x0300, 0x03ff).to_string(), "ICMP/3");
        assert_eq!(icmp(0, u16::MAX).to_string(), "ICMP/*");
    }
}
