//! `NetworkPolicy` over the alphabets, and the rules that every kind of policy is made of.

use proptest::{collection::vec, option, prelude::*, sample};

use super::alphabet::{
    DOMAINS, NAMESPACES, SLOTS, of_node, outside, port, port_name, protocol, selector, source,
    subnet, terms, v4, v6, wide_selector,
};
use crate::model::{
    IcmpVersion, NamespaceScope, NetworkPolicy, ObjectName, Peer, Peers, PortMatch, PortSpec,
    Ports, Rule,
};

const POLICY_NAMES: [&str; 4] = ["p0", "p1", "p2", "p3"];

/// A policy in one of the first `namespaces` namespaces; it speaks about at least one direction.
pub fn policy(namespaces: usize) -> impl Strategy<Value = NetworkPolicy> {
    let namespace = (0..namespaces.clamp(1, NAMESPACES.len()))
        .prop_map(|index| NAMESPACES.get(index).copied().unwrap_or_default());
    let name = sample::select(&POLICY_NAMES[..]);
    (namespace, name, selector(), terms()).prop_flat_map(|(namespace, name, subject, terms)| {
        let rules = move || vec(rule(namespace), 0..=3);
        let directions = prop_oneof![
            rules().prop_map(|ingress| (Some(ingress), None)),
            rules().prop_map(|egress| (None, Some(egress))),
            (rules(), rules()).prop_map(|(ingress, egress)| (Some(ingress), Some(egress))),
        ];
        directions.prop_map(move |(ingress, egress)| NetworkPolicy {
            name: ObjectName::new(namespace, name),
            subject: subject.clone(),
            ingress,
            egress,
            terms: terms.clone(),
            source: source(),
        })
    })
}

fn rule(namespace: &'static str) -> impl Strategy<Value = Rule> {
    let own = Just(NamespaceScope::Named(namespace.to_owned()));
    let peer = prop_oneof![workloads(own), workloads_of_any_namespace(), block()];
    let peers = prop_oneof![
        1 => Just(Peers::Every),
        5 => vec(peer, 1..=3).prop_map(Peers::listed),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::Every),
        2 => vec(transport(), 1..=3).prop_map(Ports::Listed),
    ];
    (peers, ports).prop_map(|(peers, ports)| Rule {
        peers,
        ports,
        source: source(),
    })
}

fn workloads(namespaces: impl Strategy<Value = NamespaceScope>) -> impl Strategy<Value = Peer> {
    (namespaces, wide_selector()).prop_map(|(namespaces, workloads)| Peer::Workloads {
        namespaces,
        workloads,
    })
}

pub(super) fn workloads_of_any_namespace() -> impl Strategy<Value = Peer> {
    workloads(wide_selector().prop_map(NamespaceScope::Matching))
}

/// A name that a table may have, or all below it.
pub(super) fn domain() -> impl Strategy<Value = Peer> {
    let pattern = |(name, below): (&str, bool)| {
        let wildcard = if below { "*." } else { "" };
        Peer::Domain(format!("{wildcard}{name}"))
    };
    (sample::select(&DOMAINS[..]), any::<bool>()).prop_map(pattern)
}

/// Blocks around the workloads, the nodes and the world outside; exceptions are always inside.
pub(super) fn block() -> impl Strategy<Value = Peer> {
    let loopback = [
        "127.0.0.0/8",
        "127.0.0.1/32",
        "127.0.0.53/32",
        "126.0.0.0/7",
        "::1/128",
        "::/127",
        "::/128",
    ]
    .map(|block| Peer::Block {
        cidr: block.parse().unwrap_or_default(),
        except: Vec::new(),
    });
    prop_oneof![
        12 => block_of_somebody(),
        1 => sample::select(loopback.to_vec()),
    ]
}

fn block_of_somebody() -> impl Strategy<Value = Peer> {
    let around = |ipv6: bool, slot: u8| {
        let family = usize::from(ipv6);
        let own = if ipv6 { v6(slot) } else { v4(slot) };
        let others = [of_node(1), outside()].map(|pair| pair.get(family).copied());
        prop_oneof![
            6 => Just(own),
            1 => sample::select(others.into_iter().flatten().collect::<Vec<_>>()),
        ]
    };
    let network = (any::<bool>(), 0..SLOTS).prop_flat_map(move |(ipv6, slot)| {
        let widths = if ipv6 {
            [0, 8, 16, 112, 124, 125, 126, 127, 128]
        } else {
            [0, 8, 15, 16, 28, 29, 30, 31, 32]
        };
        (around(ipv6, slot), sample::select(widths.to_vec()))
    });
    let exceptions = vec((any::<sample::Index>(), any::<sample::Index>()), 0..=2);
    (network, exceptions).prop_map(|((address, width), exceptions)| {
        let cidr = subnet(address, width);
        let inside = |(slot, narrower): (sample::Index, sample::Index)| {
            let slot = u8::try_from(slot.index(SLOTS.into())).unwrap_or_default();
            let address = if address.is_ipv6() {
                v6(slot)
            } else {
                v4(slot)
            };
            let left = usize::from(cidr.max_prefix_len().saturating_sub(width));
            let more = u8::try_from(narrower.index(left.max(1))).unwrap_or_default();
            let hole = subnet(address, width.saturating_add(more).saturating_add(1));
            (width < hole.prefix_len() && cidr.contains(&hole)).then_some(hole)
        };
        Peer::Block {
            cidr,
            except: exceptions.into_iter().filter_map(inside).collect(),
        }
    })
}

pub(super) fn transport() -> impl Strategy<Value = PortMatch> {
    let range = (port(), port()).prop_map(|(a, b)| PortSpec::Range {
        first: a.min(b),
        last: a.max(b),
    });
    let single = port().prop_map(|port| PortSpec::Range {
        first: port,
        last: port,
    });
    let name = port_name().prop_map(PortSpec::Name);
    let spec = prop_oneof![1 => Just(PortSpec::Every), 2 => range, 2 => single, 2 => name];
    (protocol(), spec).prop_map(|(protocol, port)| PortMatch::Transport { protocol, port })
}

/// Every form that there is.
pub(super) fn port_match() -> impl Strategy<Value = PortMatch> {
    let version = sample::select(vec![IcmpVersion::V4, IcmpVersion::V6]);
    let kind = sample::select(vec![0u8, 8, 128]);
    let code = option::of(sample::select(vec![0u8, 1, 255]));
    let icmp = (version, option::weighted(0.8, (kind, code))).prop_map(|(version, kind)| {
        PortMatch::Icmp {
            version,
            kind: kind.map(|(kind, _)| kind),
            code: kind.and_then(|(_, code)| code),
        }
    });
    prop_oneof![
        5 => transport(),
        2 => port_name().prop_map(PortMatch::Named),
        2 => icmp,
        1 => sample::select(vec![47u8, 1, 6, 132, 0]).prop_map(PortMatch::Protocol),
    ]
}
