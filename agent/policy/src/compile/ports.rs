//! Ports: names resolved, ranges made disjoint, intervals turned into prefixes.

use std::collections::BTreeSet;

use agent_common::table::{Decision, PortKey};

use crate::{
    compiled::{PortEntry, PortTable},
    model::{NamedPort, PortMatch, PortSpec, Ports, Workload},
};

/// A workload's ports under the names that rules use, in order. Part of an identity and of a policy set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NamedPorts(Vec<NamedPort>);

impl NamedPorts {
    pub(super) fn of(workload: &Workload, is_used: impl Fn(&str) -> bool) -> Self {
        let mut ports: Vec<NamedPort> = workload
            .ports
            .iter()
            .filter(|port| is_used(&port.name))
            .cloned()
            .collect();
        ports.sort();
        ports.dedup();
        Self(ports)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn called(&self, name: &str) -> &[NamedPort] {
        let Self(ports) = self;
        let first = ports.partition_point(|port| *port.name < *name);
        let last = ports.partition_point(|port| *port.name <= *name);
        ports.get(first..last).unwrap_or_default()
    }
}

/// Ports by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ResolvedPorts {
    /// Every port of every protocol.
    Every,
    /// In order, and none touches the next.
    Ranges(Vec<Range>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    pub(super) protocol: u8,
    pub(super) first: u16,
    pub(super) last: u16,
}

/// The names that a rule calls ports by.
pub(super) fn names(ports: &Ports) -> impl Iterator<Item = &str> {
    let ports = match ports {
        Ports::Every => &[][..],
        Ports::Listed(ports) => ports,
    };
    ports.iter().filter_map(|port| match port {
        PortMatch::Named(name)
        | PortMatch::Transport {
            port: PortSpec::Name(name),
            ..
        } => Some(name.as_str()),
        PortMatch::Transport { .. } | PortMatch::Icmp { .. } | PortMatch::Protocol(_) => None,
    })
}

impl Range {
    fn all(protocol: u8) -> Self {
        Self {
            protocol,
            first: 0,
            last: u16::MAX,
        }
    }

    fn one(port: &NamedPort) -> Self {
        Self {
            protocol: port.protocol.number(),
            first: port.port,
            last: port.port,
        }
    }
}

impl ResolvedPorts {
    /// A name that `named` does not have matches nothing.
    pub(super) fn of(ports: &Ports, named: &NamedPorts) -> Self {
        let Ports::Listed(listed) = ports else {
            return Self::Every;
        };
        let mut ranges = Vec::new();
        for port in listed {
            match port {
                PortMatch::Transport {
                    protocol,
                    port: PortSpec::Every,
                } => ranges.push(Range::all(protocol.number())),
                &PortMatch::Transport {
                    protocol,
                    port: PortSpec::Range { first, last },
                } => ranges.push(Range {
                    protocol: protocol.number(),
                    first,
                    last,
                }),
                PortMatch::Transport {
                    protocol,
                    port: PortSpec::Name(name),
                } => ranges.extend(
                    named
                        .called(name)
                        .iter()
                        .filter(|known| known.protocol == *protocol)
                        .map(Range::one),
                ),
                PortMatch::Named(name) => {
                    ranges.extend(named.called(name).iter().map(Range::one));
                }
                &PortMatch::Icmp {
                    version,
                    kind,
                    code,
                } => {
                    let [least, most] = [0, u8::MAX];
                    let at = |kind, code| u16::from_be_bytes([kind, code]);
                    ranges.push(Range {
                        protocol: version.number(),
                        first: at(kind.unwrap_or(least), code.unwrap_or(least)),
                        last: at(kind.unwrap_or(most), code.unwrap_or(most)),
                    });
                }
                &PortMatch::Protocol(number) => ranges.push(Range::all(number)),
            }
        }
        Self::Ranges(joined(ranges))
    }

    pub(super) fn ranges(&self) -> &[Range] {
        match self {
            Self::Every => &[],
            Self::Ranges(ranges) => ranges,
        }
    }

    pub(super) fn covers(&self, place: Place) -> bool {
        match (self, place) {
            (Self::Every, _) => true,
            (Self::Ranges(_), Place::Unnamed) => false,
            (Self::Ranges(ranges), Place::Port { protocol, port }) => {
                let begun = |range: &Range| (range.protocol, range.first) <= (protocol, port);
                let last = ranges.partition_point(begun).checked_sub(1);
                let last = last.and_then(|last| ranges.get(last));
                last.is_some_and(|range| range.protocol == protocol && port <= range.last)
            }
        }
    }
}

/// In order, with none that touches the next.
pub(super) fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, one| {
        let touches = next.protocol == one.protocol && next.first <= one.last.saturating_add(1);
        if touches {
            one.last = one.last.max(next.last);
        }
        touches
    });
    ranges
}

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Every protocol that no rule names.
    Unnamed,
    Port {
        protocol: u8,
        port: u16,
    },
}

/// The table of what `decide` says of every place. It must say the same between the borders of
/// `ranges`, and of every protocol that none of them is of.
pub(super) fn port_table(ranges: &[Range], mut decide: impl FnMut(Place) -> Decision) -> PortTable {
    let otherwise = decide(Place::Unnamed);
    let mut entries = Vec::new();
    // What is in no table is denied.
    if otherwise != Decision::NO_MATCH {
        entries.push(PortEntry {
            bits: PortKey::TABLE_BITS,
            protocol: 0,
            port: 0,
            decision: otherwise,
        });
    }
    let protocols: BTreeSet<u8> = ranges.iter().map(|range| range.protocol).collect();
    for protocol in protocols {
        for (first, last, decision) in intervals(ranges, protocol, &mut decide) {
            if decision == otherwise {
                continue;
            }
            prefixes(first, last, |port, bits| {
                entries.push(PortEntry {
                    bits: PortKey::PROTOCOL_BITS + bits,
                    protocol,
                    port,
                    decision,
                });
            });
        }
    }
    entries.sort();
    PortTable(entries)
}

/// All ports of a protocol as intervals, each as long as its decision is the same.
fn intervals(
    ranges: &[Range],
    protocol: u8,
    decide: &mut impl FnMut(Place) -> Decision,
) -> Vec<(u16, u16, Decision)> {
    // Between two neighbouring borders nothing changes.
    let mut starts = BTreeSet::from([0_u16]);
    for range in ranges.iter().filter(|range| range.protocol == protocol) {
        starts.insert(range.first);
        starts.extend(range.last.checked_add(1));
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);

    let mut found: Vec<(u16, u16, Decision)> = Vec::new();
    for (&first, last) in starts.iter().zip(ends) {
        let decision = decide(Place::Port {
            protocol,
            port: first,
        });
        match found.last_mut() {
            Some((_, end, known)) if *known == decision => *end = last,
            _ => found.push((first, last, decision)),
        }
    }
    found
}

/// Splits `first..=last` into aligned blocks, each as (port, bits of the port that count).
pub(super) fn prefixes(first: u16, last: u16, mut each: impl FnMut(u16, u32)) {
    let (mut at, last) = (u32::from(first), u32::from(last));
    while at <= last {
        let aligned = at.trailing_zeros().min(16);
        let fits = (last - at + 1).ilog2();
        let free = aligned.min(fits);
        #[expect(clippy::cast_possible_truncation, reason = "at most `last`, a port")]
        each(at as u16, 16 - free);
        at += 1 << free;
    }
}

#[cfg(test)]
mod tests {
    use agent_common::verdict::{Action, RuleId};

    use super::*;

    #[test]
    fn blocks_cover_a_range_exactly_once() {
        for (first, last) in [
            (0, u16::MAX),
            (1, 1),
            (1, u16::MAX),
            (80, 8080),
            (32767, 32768),
        ] {
            let mut covered = vec![0_u8; 1 << 16];
            prefixes(first, last, |port, bits| {
                let size = 1_usize << (16 - bits);
                for port in &mut covered[usize::from(port)..][..size] {
                    *port += 1;
                }
            });
            for (port, times) in covered.into_iter().enumerate() {
                let inside = (usize::from(first)..=usize::from(last)).contains(&port);
                assert_eq!(times, u8::from(inside), "port {port} of {first}-{last}");
            }
        }
    }

    #[test]
    fn a_table_has_an_entry_only_where_something_differs_from_the_rest() {
        let range = |first, last| Range {
            protocol: 6,
            first,
            last,
        };
        let by = |rule| Decision::new(Action::Allow, RuleId(rule));
        let table = port_table(&[range(80, 81), range(82, 83)], |place| match place {
            Place::Port { port: 80..=83, .. } => by(1),
            Place::Port { .. } | Place::Unnamed => by(2),
        });
        let entries: Vec<_> = table
            .0
            .iter()
            .map(|entry| (entry.bits, entry.port, entry.decision.rule))
            .collect();
        let block_of_four = PortKey::PROTOCOL_BITS + 14;
        assert_eq!(
            entries,
            [(PortKey::TABLE_BITS, 0, 2), (block_of_four, 80, 1)]
        );
    }
}
