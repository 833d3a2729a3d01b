//! Ports: names resolved, ranges made disjoint, intervals turned into prefixes.

use std::collections::BTreeSet;

use agent_common::{
    table::{Decision, PortKey},
    verdict::{Action, RuleId},
};

use crate::{
    compiled::{PortEntry, PortTable},
    model::{NamedPort, PortMatch, PortSpec, Ports, Workload},
};

/// A workload's ports under the names that rules use. Part of an identity and of a policy set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NamedPorts(Vec<NamedPort>);

impl NamedPorts {
    pub(super) fn of(workload: &Workload, names: &BTreeSet<&str>) -> Self {
        let mut ports: Vec<NamedPort> = workload
            .ports
            .iter()
            .filter(|port| names.contains(port.name.as_str()))
            .cloned()
            .collect();
        ports.sort();
        ports.dedup();
        Self(ports)
    }

    pub(super) fn ports(&self) -> &[NamedPort] {
        &self.0
    }
}

/// A rule that admits the peer, with its ports by number. Earlier rules go first.
pub(super) struct RankedRule {
    pub(super) rule: u32,
    pub(super) ports: ResolvedPorts,
}

pub(super) enum ResolvedPorts {
    /// Every port of every protocol.
    Every,
    Ranges(Vec<Range>),
}

#[derive(Clone, Copy)]
pub(super) struct Range {
    protocol: u8,
    first: u16,
    last: u16,
}

impl ResolvedPorts {
    /// A name that `named` does not have matches nothing.
    pub(super) fn of(ports: &Ports, named: &[NamedPort]) -> Self {
        let Ports::Listed(listed) = ports else {
            return Self::Every;
        };
        let mut ranges = Vec::new();
        for port in listed {
            let PortMatch::Transport {
                protocol: named_protocol,
                port,
            } = port
            else {
                continue;
            };
            let protocol = named_protocol.number();
            match port {
                PortSpec::Every => ranges.push(Range {
                    protocol,
                    first: 0,
                    last: u16::MAX,
                }),
                &PortSpec::Range { first, last } => ranges.push(Range {
                    protocol,
                    first,
                    last,
                }),
                PortSpec::Name(name) => ranges.extend(
                    named
                        .iter()
                        .filter(|known| known.name == *name && known.protocol == *named_protocol)
                        .map(|known| Range {
                            protocol,
                            first: known.port,
                            last: known.port,
                        }),
                ),
            }
        }
        Self::Ranges(ranges)
    }
}

/// The table in which the first rule that covers a port decides it.
pub(super) fn port_table(rules: &[RankedRule]) -> PortTable {
    let every = rules
        .iter()
        .find(|rule| matches!(rule.ports, ResolvedPorts::Every))
        .map(|rule| rule.rule);
    let protocols: BTreeSet<u8> = rules
        .iter()
        .flat_map(|rule| rule.ports.ranges())
        .map(|range| range.protocol)
        .collect();

    let mut entries = Vec::new();
    if let Some(rule) = every {
        entries.push(entry(PortKey::TABLE_BITS, 0, 0, rule));
    }
    for protocol in protocols {
        for (first, last, rule) in intervals(rules, protocol) {
            prefixes(first, last, |port, bits| {
                entries.push(entry(PortKey::PROTOCOL_BITS + bits, protocol, port, rule));
            });
        }
    }
    entries.sort();
    PortTable(entries)
}

impl ResolvedPorts {
    fn ranges(&self) -> &[Range] {
        match self {
            Self::Every => &[],
            Self::Ranges(ranges) => ranges,
        }
    }

    fn covers(&self, protocol: u8, port: u16) -> bool {
        match self {
            Self::Every => true,
            Self::Ranges(ranges) => ranges.iter().any(|range| {
                range.protocol == protocol && (range.first..=range.last).contains(&port)
            }),
        }
    }
}

/// Disjoint intervals of a protocol with the rule that decides each; gaps are left out.
fn intervals(rules: &[RankedRule], protocol: u8) -> Vec<(u16, u16, u32)> {
    // Between two neighbouring borders nothing changes.
    let mut starts = BTreeSet::from([0_u16]);
    for range in rules.iter().flat_map(|rule| rule.ports.ranges()) {
        if range.protocol == protocol {
            starts.insert(range.first);
            starts.extend(range.last.checked_add(1));
        }
    }
    let starts: Vec<u16> = starts.into_iter().collect();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);

    let mut found: Vec<(u16, u16, u32)> = Vec::new();
    for (&first, last) in starts.iter().zip(ends) {
        let Some(rule) = rules.iter().find(|rule| rule.ports.covers(protocol, first)) else {
            continue;
        };
        match found.last_mut() {
            Some((_, end, known)) if *known == rule.rule && end.checked_add(1) == Some(first) => {
                *end = last;
            }
            _ => found.push((first, last, rule.rule)),
        }
    }
    found
}

/// Splits `first..=last` into aligned blocks, each as (port, bits of the port that count).
fn prefixes(first: u16, last: u16, mut each: impl FnMut(u16, u32)) {
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

fn entry(bits: u32, protocol: u8, port: u16, rule: u32) -> PortEntry {
    PortEntry {
        bits,
        protocol,
        port,
        decision: Decision::new(Action::Allow, RuleId(rule)),
    }
}

#[cfg(test)]
mod tests {
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
    fn the_first_rule_decides_where_ranges_overlap() {
        let tcp = |first, last| {
            ResolvedPorts::Ranges(vec![Range {
                protocol: 6,
                first,
                last,
            }])
        };
        let rules = [
            RankedRule {
                rule: 1,
                ports: tcp(80, 90),
            },
            RankedRule {
                rule: 2,
                ports: tcp(85, 100),
            },
        ];
        assert_eq!(intervals(&rules, 6), [(80, 90, 1), (91, 100, 2)]);
        assert_eq!(intervals(&rules, 17), []);
    }
}
