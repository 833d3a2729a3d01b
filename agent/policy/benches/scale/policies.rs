//! The policies of the cluster: what people write, as often as they write it.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use agent_policy::model::{
    Change, Mode, NamespaceScope, NetworkPolicy, ObjectName, Peer, Peers, PolicyId, PolicyKind,
    PortMatch, PortSpec, Ports, Protocol, Requirement, Rule, Schedule, Selector, Subjects, Terms,
    Tier, TierAction, TierPolicy, TierRule, Weekday, When, Window,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::cluster::{BUSY, Size, namespace_name, source};

/// One `NetworkPolicy` in so many lists blocks, and one ranked policy in so many.
const LISTS_BLOCKS: u32 = 5;
/// The ranked policy that selects the busy namespace alone.
pub(crate) const OF_BUSY: &str = "tier-1";
/// The `NetworkPolicy` that selects all of the busy namespace.
pub(crate) const ALL_OF_BUSY: &str = "policy-0";

/// Numbers that look like chance: a generator by Marsaglia.
struct Chance(u64);

pub(crate) fn all(size: Size) -> Vec<Change> {
    let ranked = size.tier_policies;
    let plain = size.policies - ranked;
    // Half of the blocks are in lists for everybody, half in those of single namespaces.
    let of_each_tier = size.cidrs / 2 / (ranked / LISTS_BLOCKS).max(1);
    let of_each_plain = size.cidrs / 2 / (plain / LISTS_BLOCKS).max(1);
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut changes = Vec::new();
    for number in 0..plain {
        let policy = Arc::new(network_policy(size, number, of_each_plain, &mut chance));
        changes.push(Change::NetworkPolicy(policy.name.clone(), Some(policy)));
    }
    for number in 0..ranked {
        let policy = Arc::new(tier_policy(number, of_each_tier, &mut chance));
        changes.push(Change::TierPolicy(policy.id.clone(), Some(policy)));
    }
    changes
}

fn network_policy(size: Size, number: u32, blocks: u32, chance: &mut Chance) -> NetworkPolicy {
    let namespace = namespace_name(number % size.namespaces);
    let own = |workloads| Peer::Workloads {
        namespaces: NamespaceScope::Named(namespace.clone()),
        workloads,
    };
    let mut egress = None;
    let mut ingress = None;
    let mut subject = label("app", &format!("app-{}", number % 7));
    // The namespaces are as many times five as the kinds: shift, or each has one kind only.
    match (number + number / size.namespaces) % LISTS_BLOCKS {
        0 => {
            subject = Selector::default();
            ingress = Some(vec![rule(
                Peers::listed(vec![own(label("tier", "front"))]),
                Ports::Listed(vec![named("http")]),
            )]);
            egress = Some(vec![rule(
                Peers::listed(vec![others(
                    label("kubernetes.io/metadata.name", &namespace_name(BUSY)),
                    label("app", "app-1"),
                )]),
                Ports::Listed(vec![
                    port(Protocol::Udp, 53, 53),
                    port(Protocol::Tcp, 53, 53),
                ]),
            )]);
        }
        1 => {
            ingress = Some(vec![
                rule(
                    Peers::listed(vec![own(label("app", "app-0")), own(label("app", "app-2"))]),
                    Ports::Listed(vec![port(Protocol::Tcp, 8080, 8081)]),
                ),
                rule(Peers::Every, Ports::Listed(vec![named("metrics")])),
            ]);
        }
        2 => {
            let team = format!("team-{}", number % 40);
            ingress = Some(vec![rule(
                Peers::listed(vec![others(label("team", &team), label("tier", "front"))]),
                Ports::Listed(vec![
                    port(Protocol::Tcp, 8080, 8080),
                    port(Protocol::Tcp, 9090, 9099),
                ]),
            )]);
        }
        3 => {
            let listed = (0..blocks).map(|_| chance.block()).collect();
            egress = Some(vec![
                rule(
                    Peers::listed(listed),
                    Ports::Listed(vec![port(Protocol::Tcp, 443, 443)]),
                ),
                rule(Peers::listed(vec![own(Selector::default())]), Ports::Every),
            ]);
        }
        _ => {
            egress = Some(vec![rule(
                Peers::listed(vec![others(label("env", "prod"), Selector::default())]),
                Ports::Listed(vec![named("http"), port(Protocol::Tcp, 5432, 5432)]),
            )]);
        }
    }
    NetworkPolicy {
        name: ObjectName::new(namespace.clone(), format!("policy-{number}")),
        subject,
        ingress,
        egress,
        terms: Terms::default(),
        source: source(),
    }
}

fn tier_policy(number: u32, blocks: u32, chance: &mut Chance) -> TierPolicy {
    let is_list = number.is_multiple_of(LISTS_BLOCKS);
    let mut egress = Vec::new();
    let mut ingress = Vec::new();
    let namespaces = match number % LISTS_BLOCKS {
        0 => Selector::default(),
        1 => label("kubernetes.io/metadata.name", &namespace_name(BUSY)),
        _ => label("team", &format!("team-{}", number % 40)),
    };
    if is_list {
        let listed = (0..blocks).map(|_| chance.block()).collect();
        egress.push(tier_rule(
            TierAction::Deny,
            Peers::listed(listed),
            Ports::Every,
        ));
    } else {
        let monitors = others(label("team", "team-7"), Selector::default());
        ingress.push(tier_rule(
            TierAction::Accept,
            Peers::listed(vec![monitors]),
            Ports::Listed(vec![named("metrics")]),
        ));
        let team = format!("team-{}", number * 3 % 40);
        ingress.push(tier_rule(
            TierAction::Pass,
            Peers::listed(vec![others(label("team", &team), label("tier", "back"))]),
            Ports::Listed(vec![port(Protocol::Tcp, 8000, 8999)]),
        ));
        ingress.push(tier_rule(
            TierAction::Deny,
            Peers::listed(vec![others(label("env", "dev"), Selector::default())]),
            Ports::Every,
        ));
        egress.push(tier_rule(
            TierAction::Deny,
            Peers::listed(vec![Peer::Nodes(label("zone", "zone-1"))]),
            Ports::Listed(vec![port(Protocol::Tcp, 10250, 10250)]),
        ));
    }
    TierPolicy {
        id: PolicyId::cluster_wide(PolicyKind::RingfencePolicy, format!("tier-{number}")),
        tier: if number % 5 == 4 {
            Tier::Baseline
        } else {
            Tier::Admin
        },
        priority: u16::try_from(number * 10).unwrap_or(1000),
        subjects: Subjects::Workloads {
            namespaces,
            workloads: Selector::default(),
            host_network: true,
        },
        ingress,
        egress,
        when: if number % 25 == 3 {
            working_hours()
        } else {
            When::default()
        },
        terms: Terms {
            mode: match number % 25 {
                7 => Mode::Audit,
                8 => Mode::Staged,
                _ => Mode::Enforce,
            },
            ..Terms::default()
        },
        source: source(),
    }
}

pub(crate) fn rule(peers: Peers, ports: Ports) -> Rule {
    Rule {
        peers,
        ports,
        source: source(),
    }
}

fn tier_rule(action: TierAction, peers: Peers, ports: Ports) -> TierRule {
    TierRule {
        name: None,
        action,
        peers,
        ports,
        when: When::default(),
        source: source(),
    }
}

pub(crate) fn port(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch::Transport {
        protocol,
        port: PortSpec::Range { first, last },
    }
}

fn named(name: &str) -> PortMatch {
    PortMatch::Transport {
        protocol: Protocol::Tcp,
        port: PortSpec::Name(name.to_owned()),
    }
}

fn others(namespaces: Selector, workloads: Selector) -> Peer {
    Peer::Workloads {
        namespaces: NamespaceScope::Matching(namespaces),
        workloads,
    }
}

fn label(key: &str, value: &str) -> Selector {
    Selector {
        requirements: vec![Requirement::In {
            key: key.to_owned(),
            values: BTreeSet::from([value.to_owned()]),
        }],
    }
}

fn working_hours() -> When {
    let days = Weekday::ALL.into_iter().take(5).collect();
    When {
        schedule: Some(Schedule {
            zone: "Europe/Berlin".to_owned(),
            windows: vec![Window {
                days,
                from: 8 * 60,
                to: 18 * 60,
            }],
        }),
        ..When::default()
    }
}

// === impl Chance ===

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below `limit`.
    fn below(&mut self, limit: u32) -> u32 {
        u32::try_from(self.next() >> 16 & 0xffff_ffff).unwrap_or_default() % limit
    }

    /// Mostly of 256 addresses somewhere in the world; a few wide, a few around the pods.
    fn block(&mut self) -> Peer {
        let width = [16, 20, 24, 24, 24, 24, 24, 28, 32, 32][self.below(10) as usize];
        let cidr: IpNet = if self.below(10) == 0 {
            let network = 0x2000 << 112 | u128::from(self.next()) << 60;
            Ipv6Net::new_assert(Ipv6Addr::from_bits(network), width + 24).into()
        } else {
            let inside = self.below(100) == 0;
            let network = if inside {
                0x0a40_0000 | self.below(1 << 14)
            } else {
                0x0b00_0000 + self.below(0xc000_0000)
            };
            Ipv4Net::new_assert(Ipv4Addr::from_bits(network), width).into()
        };
        let cidr = cidr.trunc();
        let except = if self.below(10) == 0 && cidr.prefix_len() < 31 {
            let holes = cidr.subnets(cidr.prefix_len() + 2);
            let which = self.below(4) as usize;
            holes.ok().and_then(|mut holes| holes.nth(which))
        } else {
            None
        };
        Peer::Block {
            cidr,
            except: except.into_iter().collect(),
        }
    }
}
