//! Some ports, as people write and read them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Serialize, Serializer};

use super::{PortMap, WITH_PORTS};
use crate::{
    connection::Port,
    model::{IcmpVersion, Protocol},
};

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

// === impl PortSet ===

impl PortSet {
    pub(crate) fn new(ports: PortMap<bool>) -> Self {
        Self(ports)
    }

    /// All ports of the listed ranges.
    pub(crate) fn of(ranges: &[PortRange]) -> Self {
        let mut of_protocol: BTreeMap<u8, Vec<(u16, u16)>> = BTreeMap::new();
        for range in ranges {
            let Some(protocol) = range.protocol else {
                return Self::every();
            };
            let listed = of_protocol.entry(protocol).or_default();
            listed.push((range.first, range.last));
        }
        let protocols = of_protocol.into_iter().map(|(protocol, mut listed)| {
            listed.sort_unstable();
            let mut open: Vec<(u16, u16)> = Vec::new();
            for (first, last) in listed {
                match open.last_mut() {
                    Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                    _ => open.push((first, last)),
                }
            }
            let mut values = BTreeMap::from([(0, false)]);
            for (first, last) in open {
                values.insert(first, true);
                values.extend(last.checked_add(1).map(|after| (after, false)));
            }
            (protocol, values)
        });
        let all = PortMap {
            protocols: protocols.collect(),
            rest: false,
        };
        Self(all.joined())
    }

    pub(crate) fn every() -> Self {
        Self(PortMap::constant(true))
    }

    /// Those that there are over a family: ICMP has a protocol for each.
    #[must_use]
    pub(crate) fn over(&self, is_v4: bool) -> Self {
        let version = if is_v4 {
            IcmpVersion::V6
        } else {
            IcmpVersion::V4
        };
        let foreign = PortRange {
            protocol: Some(version.number()),
            first: 0,
            last: u16::MAX,
        };
        let foreign = foreign.as_map();
        Self(
            self.0
                .zip(&foreign, |is_in, is_foreign| *is_in && !is_foreign),
        )
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.0.values().any(|is_in| *is_in)
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

/// A list of texts, such as `["TCP/80", "UDP"]`; `no TCP` beside other protocols.
impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(PortMap { protocols, rest }) = self;
        let ranges = self.ranges();
        let named: BTreeSet<u8> = ranges.iter().filter_map(|range| range.protocol).collect();
        let silent = protocols
            .keys()
            .filter(|protocol| *rest && !named.contains(protocol));
        let silent = silent.map(|protocol| {
            let all = PortRange {
                protocol: Some(*protocol),
                first: 0,
                last: u16::MAX,
            };
            format!("no {all}")
        });
        let words = silent.chain(ranges.iter().map(ToString::to_string));
        serializer.collect_seq(words)
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
