//! Policies over the alphabets of the generated worlds.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::{collection::vec, option, prelude::*, sample};

use super::worlds::{NAMESPACES, SLOTS, source, v4, v6};
use crate::model::{
    Labels, NamedPort, NamespaceScope, NetworkPolicy, ObjectName, Peer, Peers, PortMatch, PortSpec,
    Ports, Protocol, Requirement, Rule, Selector, Terms,
};

const KEYS: [&str; 3] = ["app", "team", "env"];
/// The empty value is a value: a present key with it is not an absent key.
const VALUES: [&str; 3] = ["a", "b", ""];
const PORT_NAMES: [&str; 2] = ["http", "dns"];
const PORTS: [u16; 8] = [1, 79, 80, 81, 1023, 1024, 8080, 65535];
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
const POLICY_NAMES: [&str; 4] = ["p0", "p1", "p2", "p3"];

/// A policy in one of the first `namespaces` namespaces; it speaks about at least one direction.
pub fn policy(namespaces: usize) -> impl Strategy<Value = NetworkPolicy> {
    let namespace = (0..namespaces.clamp(1, NAMESPACES.len()))
        .prop_map(|index| NAMESPACES.get(index).copied().unwrap_or_default());
    (namespace, sample::select(&POLICY_NAMES[..]), selector()).prop_flat_map(
        |(namespace, name, subject)| {
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
                terms: Terms::default(),
                source: source(),
            })
        },
    )
}

fn rule(namespace: &'static str) -> impl Strategy<Value = Rule> {
    let peers = prop_oneof![
        1 => Just(Peers::Every),
        5 => vec(peer(namespace), 1..=3).prop_map(Peers::Listed),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::Every),
        2 => vec(port_match(), 1..=3).prop_map(Ports::Listed),
    ];
    (peers, ports).prop_map(|(peers, ports)| Rule {
        peers,
        ports,
        source: source(),
    })
}

fn peer(namespace: &'static str) -> impl Strategy<Value = Peer> {
    let workloads = |(namespaces, workloads)| Peer::Workloads {
        namespaces,
        workloads,
    };
    let own = Just(NamespaceScope::Named(namespace.to_owned()));
    let others = selector().prop_map(NamespaceScope::Matching);
    prop_oneof![
        (own, selector()).prop_map(workloads),
        (others, selector()).prop_map(workloads),
        block()
    ]
}

/// Blocks around the workloads, the nodes and the world outside; exceptions are always inside.
fn block() -> impl Strategy<Value = Peer> {
    let network = (any::<bool>(), 0..SLOTS).prop_flat_map(|(ipv6, slot)| {
        let (address, widths) = if ipv6 {
            (v6(slot), [0, 8, 16, 112, 124, 125, 126, 127, 128])
        } else {
            (v4(slot), [0, 8, 15, 16, 28, 29, 30, 31, 32])
        };
        (Just(address), sample::select(widths.to_vec()))
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

fn subnet(address: IpAddr, width: u8) -> IpNet {
    IpNet::new(address, width)
        .unwrap_or(IpNet::from(address))
        .trunc()
}

fn port_match() -> impl Strategy<Value = PortMatch> {
    let range = (port(), port()).prop_map(|(a, b)| PortSpec::Range {
        first: a.min(b),
        last: a.max(b),
    });
    let single = port().prop_map(|port| PortSpec::Range {
        first: port,
        last: port,
    });
    let name = sample::select(&PORT_NAMES[..]).prop_map(|name| PortSpec::Name(name.to_owned()));
    let spec = prop_oneof![1 => Just(PortSpec::Every), 2 => range, 2 => single, 2 => name];
    (protocol(), spec).prop_map(|(protocol, port)| PortMatch::Transport { protocol, port })
}

pub(super) fn named_port() -> impl Strategy<Value = NamedPort> {
    (sample::select(&PORT_NAMES[..]), port(), protocol()).prop_map(|(name, port, protocol)| {
        NamedPort {
            name: name.to_owned(),
            port,
            protocol,
        }
    })
}

fn port() -> impl Strategy<Value = u16> {
    sample::select(&PORTS[..])
}

fn protocol() -> impl Strategy<Value = Protocol> {
    sample::select(&PROTOCOLS[..])
}

pub(super) fn labels() -> impl Strategy<Value = Labels> {
    let value = option::weighted(0.6, sample::select(&VALUES[..]));
    [value.clone(), value.clone(), value].prop_map(|values| {
        let present =
            |(key, value): (&str, Option<&str>)| Some((key.to_owned(), value?.to_owned()));
        KEYS.into_iter().zip(values).filter_map(present).collect()
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = || {
        sample::subsequence(&VALUES[..], 1..VALUES.len())
            .prop_map(|values| values.into_iter().map(str::to_owned).collect())
    };
    let key = || sample::select(&KEYS[..]).prop_map(str::to_owned);
    let requirement = prop_oneof![
        3 => (key(), values()).prop_map(|(key, values)| Requirement::In { key, values }),
        2 => (key(), values()).prop_map(|(key, values)| Requirement::NotIn { key, values }),
        1 => key().prop_map(|key| Requirement::Exists { key }),
        1 => key().prop_map(|key| Requirement::DoesNotExist { key }),
    ];
    let requirements = prop_oneof![
        1 => Just(Vec::new()),
        3 => requirement.clone().prop_map(|requirement| vec![requirement]),
        1 => vec(requirement, 2),
    ];
    requirements.prop_map(|requirements| Selector { requirements })
}
