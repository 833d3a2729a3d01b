//! Namespaces, nodes, workloads and Services that are worth asking about, and policies over them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proptest::{collection::vec, option, prelude::*, sample};

use super::{
    alphabet::{
        DOMAINS, NAMESPACES, NODES, SLOTS, address, labels, named_port, of_node, source, v4, v6,
    },
    policies::policy,
    services::service,
    tiers::{failsafe, tier_policy},
};
use crate::model::{
    EndpointSpec, Labels, NamedPort, Node, ObjectName, Workload, WorkloadKind, World,
};

/// What decides how a workload is built, before it has a name and a place.
#[derive(Clone, Debug)]
struct Draft {
    namespace: sample::Index,
    labels: Labels,
    ports: Vec<NamedPort>,
    node: Option<&'static str>,
    families: (bool, bool),
    shape: Shape,
    ready: bool,
    /// Whether one that shares its node's addresses says so.
    lists_addresses: bool,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Pod,
    HostNetwork,
    Cgroup,
    Unit,
}

/// Two to four namespaces, two nodes, three to ten workloads, and a few of everything else.
pub fn world() -> impl Strategy<Value = World> {
    let namespaces = vec(labels(), 2..=NAMESPACES.len());
    let slots = Just((0..SLOTS).collect::<Vec<_>>()).prop_shuffle();
    let nodes = [labels(), labels()];
    (namespaces, nodes, vec(draft(), 3..=10), slots).prop_flat_map(
        |(namespaces, nodes, drafts, slots)| {
            let world = populated(&namespaces, &nodes, &drafts, &slots);
            (Just(world), said(namespaces.len())).prop_map(|(world, said)| World {
                namespaces: world.namespaces,
                workloads: world.workloads,
                nodes: world.nodes,
                addresses: world.addresses,
                ..said
            })
        },
    )
}

/// Everything but who is there.
fn said(namespaces: usize) -> impl Strategy<Value = World> {
    let policies = vec(policy(namespaces), 0..=5);
    let ranked = vec(tier_policy(), 0..=6);
    let failsafe = vec(failsafe(), 0..=2);
    let services = vec(service(namespaces), 0..=3);
    (policies, ranked, failsafe, services, names()).prop_map(
        |(policies, ranked, failsafe, services, names)| World {
            network_policies: policies
                .into_iter()
                .map(|policy| (policy.name.clone(), Arc::new(policy)))
                .collect(),
            tier_policies: ranked
                .into_iter()
                .map(|policy| (policy.id.clone(), Arc::new(policy)))
                .collect(),
            failsafe: Arc::new(failsafe),
            services: services
                .into_iter()
                .map(|service| (service.name.clone(), Arc::new(service)))
                .collect(),
            names: names.into(),
            ..World::default()
        },
    )
}

fn names() -> impl Strategy<Value = BTreeMap<String, Arc<BTreeSet<IpAddr>>>> {
    let named = (
        sample::select(&DOMAINS[..]),
        vec(address(), 1..=3).prop_map(|addresses| addresses.into_iter().collect()),
    );
    vec(named, 0..=4).prop_map(|named| {
        named
            .into_iter()
            .map(|(name, addresses)| (name.to_owned(), Arc::new(addresses)))
            .collect()
    })
}

fn draft() -> impl Strategy<Value = Draft> {
    let shape = prop_oneof![
        6 => Just(Shape::Pod),
        1 => Just(Shape::HostNetwork),
        1 => Just(Shape::Cgroup),
        1 => Just(Shape::Unit),
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
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.7),
    )
        .prop_map(
            |(namespace, labels, ports, node, families, shape, ready, lists_addresses)| Draft {
                namespace,
                labels,
                ports,
                node,
                families,
                shape,
                ready,
                lists_addresses,
            },
        )
}

fn populated(namespaces: &[Labels], nodes: &[Labels], drafts: &[Draft], slots: &[u8]) -> World {
    let mut world = World::default();
    for (name, labels) in NAMESPACES.iter().zip(namespaces) {
        let mut labels = labels.clone();
        labels.insert("kubernetes.io/metadata.name".to_owned(), (*name).to_owned());
        world
            .namespaces
            .insert((*name).to_owned(), Arc::new(labels));
    }
    for ((number, name), labels) in (1..).zip(NODES).zip(nodes) {
        let node = Node {
            name: name.to_owned(),
            labels: labels.clone().into(),
            addresses: of_node(number).into(),
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
        ready,
        lists_addresses,
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
        Shape::HostNetwork | Shape::Cgroup | Shape::Unit => node
            .filter(|_| *lists_addresses)
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
            Shape::Cgroup | Shape::Unit => WorkloadKind::Workload,
            Shape::Pod | Shape::HostNetwork => WorkloadKind::Pod,
        },
        labels: Arc::new(labels.clone()),
        owner: None,
        addresses,
        ports,
        node: node.map(str::to_owned),
        host_network: matches!(shape, Shape::HostNetwork),
        ready: *ready,
        endpoint: match shape {
            Shape::Cgroup => Some(EndpointSpec::Cgroup(format!("w{slot}.slice"))),
            Shape::Unit => Some(EndpointSpec::SystemdUnit(format!("w{slot}.service"))),
            Shape::Pod => Some(EndpointSpec::Interface(format!("veth{slot}"))),
            Shape::HostNetwork => None,
        },
        source: source(),
    }
}
