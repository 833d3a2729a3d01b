//! A value for every port of every protocol, as intervals.

mod set;

use std::collections::{BTreeMap, BTreeSet};

pub use self::set::{PortRange, PortSet};
use crate::connection::Port;

/// TCP, UDP and SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Total: every protocol has a value for every port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortMap<T> {
    /// Protocols that differ from the rest: where each value begins. The first one begins at 0.
    protocols: BTreeMap<u8, BTreeMap<u16, T>>,
    rest: T,
}

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

    /// With other values at single ports.
    pub(crate) fn with(&self, others: &BTreeMap<Port, T>) -> Self {
        let mut alone = PortMap::constant(None);
        for (&Port { protocol, number }, value) in others {
            let values: &mut BTreeMap<u16, Option<T>> =
                alone.protocols.entry(protocol).or_default();
            values.entry(0).or_default();
            values.insert(number, Some(value.clone()));
            if let Some(next) = number.checked_add(1) {
                values.entry(next).or_default();
            }
        }
        self.zip(&alone, |value, other| {
            other.as_ref().unwrap_or(value).clone()
        })
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

#[cfg(test)]
mod tests;
