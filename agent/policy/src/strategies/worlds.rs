//! Namespaces, nodes and workloads that are worth asking about.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use proptest::{collection::vec, option, prelude::*, sample};

use super::policies::{self, labels, named_port};
use crate::model::{
    EndpointSpec, Labels, NamedPort, Node, ObjectName, Source, Workload, WorkloadKind, World,
};

pub(super) const NAMESPACES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const NODES: [&str; 2] = ["one", "two"];
/// Workloads live in `10.1.0.0/28` and `fd01::/124`.
pub(super) const SLOTS: u8 = 16;

pub(super) fn source() -> Source {
    Source {
        file: "generated".into(),
        line: 1,
    }
}

pub(super) fn v4(slot: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 0, slot).into()
}

pub(super) fn v6(slot: u8) -> IpAddr {
    Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, slot.into()).into()
}

/// What decides how a workload is built, before it has a name and a place.
#[derive(Clone, Debug)]
struct Draft {
    namespace: sample::Index,
    labels: Labels,
    ports: Vec<NamedPort>,
    node: Option<&'static str>,
    families: (bool, bool),
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Pod,
    HostNetwork,
    Cgroup,
}

/// Two to four namespaces, two nodes, three to ten workloads and up to five policies.
pub fn world() -> impl Strategy<Value = World> {
    let namespaces = vec(labels(), 2..=NAMESPACES.len());
    let slots = Just((0..SLOTS).collect::<Vec<_>>()).prop_shuffle();
    (namespaces, vec(draft(), 3..=10), slots).prop_flat_map(|(namespaces, drafts, slots)| {
        let world = populated(&namespaces, &drafts, &slots);
        let policies = vec(policies::policy(namespaces.len()), 0..=5);
        (Just(world), policies).prop_map(|(mut world, policies)| {
            world.network_policies.extend(
                policies
                    .into_iter()
                    .map(|policy| (policy.name.clone(), Arc::new(policy))),
            );
            world
        })
    })
}

fn draft() -> impl Strategy<Value = Draft> {
    let shape = prop_oneof![
        6 => Just(Shape::Pod),
        1 => Just(Shape::HostNetwork),
        1 => Just(Shape::Cgroup),
    ];
    let families = prop_oneof![
        4 => Just((true, true)),
        2 => Just((true, false)),
        1 => Just((false, true)),
    ];
    let node = option::weighted(0.8, sample::select(&NODES[..]));
    (
        any::<sample::Index>(),
        labels(),
        vec(named_port(), 0..=3),
        node,
        families,
        shape,
    )
        .prop_map(|(namespace, labels, ports, node, families, shape)| Draft {
            namespace,
            labels,
            ports,
            node,
            families,
            shape,
        })
}

fn populated(namespaces: &[Labels], drafts: &[Draft], slots: &[u8]) -> World {
    let mut world = World::default();
    for (name, labels) in NAMESPACES.iter().zip(namespaces) {
        let mut labels = labels.clone();
        labels.insert("kubernetes.io/metadata.name".to_owned(), (*name).to_owned());
        world
            .namespaces
            .insert((*name).to_owned(), Arc::new(labels));
    }
    for (number, name) in (1..).zip(NODES) {
        let addresses = [
            IpAddr::from(Ipv4Addr::new(10, 0, 0, number)),
            IpAddr::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into())),
        ];
        let (labels, addresses) = (Labels::new(), addresses.into());
        let node = Node {
            name: name.to_owned(),
            labels,
            addresses,
            source: source(),
        };
        world.nodes.insert(name.to_owned(), Arc::new(node));
    }
    for (draft, slot) in drafts.iter().zip(slots) {
        let workload = workload(&world, draft, *slot, namespaces.len());
        if workload.owns_its_addresses() {
            let owned = workload
                .addresses
                .iter()
                .map(|ip| (*ip, workload.name.clone()));
            world.addresses.extend(owned);
        }
        world
            .workloads
            .insert(workload.name.clone(), Arc::new(workload));
    }
    world
}

fn workload(world: &World, draft: &Draft, slot: u8, namespaces: usize) -> Workload {
    let Draft {
        namespace,
        labels,
        ports,
        node,
        families,
        shape,
    } = draft;
    let namespace = NAMESPACES
        .get(namespace.index(namespaces))
        .copied()
        .unwrap_or_default();
    let addresses = match shape {
        Shape::Pod => {
            let both = [(families.0, v4(slot)), (families.1, v6(slot))];
            both.into_iter()
                .filter(|(has, _)| *has)
                .map(|(_, address)| address)
                .collect()
        }
        Shape::HostNetwork | Shape::Cgroup => node
            .and_then(|node| world.nodes.get(node))
            .map(|node| node.addresses.clone())
            .unwrap_or_default(),
    };
    // One name per workload, as a Pod's containers have: the loader refuses anything else.
    let mut ports = ports.clone();
    ports.sort();
    ports.dedup_by(|a, b| a.name == b.name && a.protocol == b.protocol);
    Workload {
        name: ObjectName::new(namespace, format!("w{slot}")),
        kind: match shape {
            Shape::Cgroup => WorkloadKind::Workload,
            Shape::Pod | Shape::HostNetwork => WorkloadKind::Pod,
        },
        labels: labels.clone(),
        addresses,
        ports,
        node: node.map(str::to_owned),
        host_network: matches!(shape, Shape::HostNetwork),
        ready: true,
        endpoint: match shape {
            Shape::Cgroup => Some(EndpointSpec::Cgroup(format!("w{slot}.service"))),
            Shape::Pod => Some(EndpointSpec::Interface(format!("veth{slot}"))),
            Shape::HostNetwork => None,
        },
        source: source(),
    }
}
