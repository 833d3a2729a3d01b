//! Ports as sets: whether one list takes in all of another, and whether two can meet.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{IcmpVersion, PortMatch, PortSpec, Ports, Protocol};

const TRANSPORTS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// One item of a rule's ports; `None` is every port of every protocol.
pub(super) type Item<'a> = Option<&'a PortMatch>;

/// All ports of a rule, made to be asked often.
#[derive(Debug, Default)]
pub(super) struct PortSet<'a> {
    every: bool,
    /// Protocols that are in with all they have, by number.
    whole: BTreeSet<u8>,
    /// Sorted, and none touches the next.
    ranges: BTreeMap<Protocol, Vec<(u16, u16)>>,
    names: BTreeSet<(&'a str, Protocol)>,
    icmp: BTreeSet<(IcmpVersion, u8, Option<u8>)>,
}

pub(super) fn items(ports: &Ports) -> Vec<Item<'_>> {
    match ports {
        Ports::Every => vec![None],
        Ports::Listed(listed) => listed.iter().map(Some).collect(),
    }
}

/// Whether some packet is matched by both. Names count as any port: what they stand for is not
/// known here.
pub(super) fn meet(a: &Ports, b: &Ports) -> bool {
    items(a)
        .into_iter()
        .any(|a| items(b).into_iter().any(|b| item_meets(a, b)))
}

/// Whether the ports are so many that nobody can have meant each: all, or all of TCP or UDP.
pub(super) fn are_wide(ports: &Ports) -> bool {
    let ports = PortSet::of(ports);
    [Protocol::Tcp, Protocol::Udp].into_iter().any(|protocol| {
        ports.every
            || ports.whole.contains(&protocol.number())
            || ports.covers_range(protocol, 1, u16::MAX)
    })
}

fn item_meets(a: Item<'_>, b: Item<'_>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return true;
    };
    match (a, b) {
        (PortMatch::Protocol(a), PortMatch::Protocol(b)) => a == b,
        (PortMatch::Protocol(number), other) | (other, PortMatch::Protocol(number)) => {
            numbers(other).contains(number)
        }
        (
            PortMatch::Icmp {
                version,
                kind,
                code,
            },
            PortMatch::Icmp {
                version: other_version,
                kind: other_kind,
                code: other_code,
            },
        ) => version == other_version && agree(*kind, *other_kind) && agree(*code, *other_code),
        (
            PortMatch::Transport {
                protocol: a,
                port: PortSpec::Range { first, last },
            },
            PortMatch::Transport {
                protocol: b,
                port:
                    PortSpec::Range {
                        first: other_first,
                        last: other_last,
                    },
            },
        ) => a == b && first <= other_last && other_first <= last,
        (a, b) => numbers(a).iter().any(|number| numbers(b).contains(number)),
    }
}

/// `None` is any value.
fn agree(a: Option<u8>, b: Option<u8>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// The protocols that an item may match, by number.
fn numbers(item: &PortMatch) -> Vec<u8> {
    match item {
        PortMatch::Transport { protocol, .. } => vec![protocol.number()],
        PortMatch::Named(_) => TRANSPORTS.map(Protocol::number).to_vec(),
        PortMatch::Icmp { version, .. } => vec![version.number()],
        PortMatch::Protocol(number) => vec![*number],
    }
}

// === impl PortSet ===

impl<'a> PortSet<'a> {
    pub(super) fn of(ports: &'a Ports) -> Self {
        let mut set = Self::default();
        for item in items(ports) {
            set.add(item);
        }
        for ranges in set.ranges.values_mut() {
            ranges.sort_unstable();
            let mut merged: Vec<(u16, u16)> = Vec::new();
            for (first, last) in ranges.drain(..) {
                match merged.last_mut() {
                    Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                    _ => merged.push((first, last)),
                }
            }
            *ranges = merged;
        }
        set
    }

    fn add(&mut self, item: Item<'a>) {
        match item {
            None => self.every = true,
            Some(PortMatch::Protocol(number)) => {
                self.whole.insert(*number);
            }
            Some(PortMatch::Named(name)) => {
                self.names
                    .extend(TRANSPORTS.map(|protocol| (name.as_str(), protocol)));
            }
            Some(PortMatch::Icmp {
                version,
                kind,
                code,
            }) => {
                match kind {
                    None => self.whole.insert(version.number()),
                    Some(kind) => self.icmp.insert((*version, *kind, *code)),
                };
            }
            Some(PortMatch::Transport { protocol, port }) => match port {
                PortSpec::Every => {
                    self.whole.insert(protocol.number());
                }
                PortSpec::Range { first, last } => {
                    let ranges = self.ranges.entry(*protocol).or_default();
                    ranges.push((*first, *last));
                }
                PortSpec::Name(name) => {
                    self.names.insert((name, *protocol));
                }
            },
        }
    }

    /// Whether whatever the item matches is in this set, on whatever destination.
    pub(super) fn covers(&self, item: Item<'_>) -> bool {
        if self.every {
            return true;
        }
        let Some(item) = item else { return false };
        if numbers(item)
            .iter()
            .all(|number| self.whole.contains(number))
        {
            return true;
        }
        match item {
            PortMatch::Protocol(_) => false,
            PortMatch::Named(name) => TRANSPORTS.into_iter().all(|protocol| {
                self.whole.contains(&protocol.number())
                    || self.names.contains(&(name.as_str(), protocol))
            }),
            PortMatch::Icmp {
                version,
                kind,
                code,
            } => kind.is_some_and(|kind| {
                self.icmp.contains(&(*version, kind, None))
                    || self.icmp.contains(&(*version, kind, *code))
            }),
            PortMatch::Transport { protocol, port } => match port {
                PortSpec::Every => false,
                PortSpec::Range { first, last } => self.covers_range(*protocol, *first, *last),
                PortSpec::Name(name) => self.names.contains(&(name.as_str(), *protocol)),
            },
        }
    }

    fn covers_range(&self, protocol: Protocol, first: u16, last: u16) -> bool {
        let ranges = self.ranges.get(&protocol).map_or(&[][..], Vec::as_slice);
        let after = ranges.partition_point(|(start, _)| *start <= first);
        after
            .checked_sub(1)
            .and_then(|at| ranges.get(at))
            .is_some_and(|(_, end)| last <= *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(first: u16, last: u16) -> PortMatch {
        PortMatch::Transport {
            protocol: Protocol::Tcp,
            port: PortSpec::Range { first, last },
        }
    }

    fn covers(outer: Vec<PortMatch>, inner: &PortMatch) -> bool {
        PortSet::of(&Ports::Listed(outer)).covers(Some(inner))
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert!(covers(vec![tcp(81, 90), tcp(80, 80)], &tcp(80, 90)));
        assert!(!covers(vec![tcp(82, 90), tcp(80, 80)], &tcp(80, 90)));
        // Port 0 is a port to the evaluators, and no range has it.
        let every = PortMatch::Transport {
            protocol: Protocol::Tcp,
            port: PortSpec::Every,
        };
        assert!(!covers(vec![tcp(1, u16::MAX)], &every));
        assert!(covers(vec![PortMatch::Protocol(6)], &every));
    }

    #[test]
    fn a_name_of_any_protocol_takes_three_of_one() {
        let one = |protocol| PortMatch::Transport {
            protocol,
            port: PortSpec::Name("dns".to_owned()),
        };
        let any = PortMatch::Named("dns".to_owned());
        assert!(covers(TRANSPORTS.map(one).to_vec(), &any));
        assert!(!covers(vec![one(Protocol::Udp)], &any));
        assert!(covers(vec![any], &one(Protocol::Sctp)));
    }

    #[test]
    fn a_type_takes_in_its_codes() {
        let icmp = |kind, code| PortMatch::Icmp {
            version: IcmpVersion::V4,
            kind,
            code,
        };
        assert!(covers(vec![icmp(Some(3), None)], &icmp(Some(3), Some(1))));
        assert!(!covers(vec![icmp(Some(3), Some(1))], &icmp(Some(3), None)));
        assert!(covers(vec![icmp(None, None)], &PortMatch::Protocol(1)));
        assert!(!covers(vec![icmp(None, None)], &PortMatch::Protocol(58)));
    }
}
