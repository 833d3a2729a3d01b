//! What stands behind the address of a Service (§2 of the semantics).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::port::Port;
use crate::model::{
    Backend, ObjectName, PortName, Protocol, Service, ServicePort, Workload, World,
};

/// An address and port that serves, and the workload that it leads to, if that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Serving {
    pub(crate) address: IpAddr,
    pub(crate) port: Port,
    pub(crate) workload: Option<ObjectName>,
}

/// What serves the ports of an address that lead elsewhere; in order of address and port.
pub(crate) type Served = BTreeMap<Port, BTreeSet<Serving>>;

/// What [`backends`] says, for every address of a world.
pub(crate) fn frontends(world: &World) -> BTreeMap<IpAddr, Arc<Served>> {
    let mut of_services: BTreeMap<IpAddr, Served> = BTreeMap::new();
    // By family: whether it is IPv4.
    let mut of_nodes: BTreeMap<bool, Served> = BTreeMap::new();
    for service in world.services.values() {
        for offered in &service.ports {
            for is_v4 in [true, false] {
                let of_family = |address: &&IpAddr| address.is_ipv4() == is_v4;
                let mut addresses = service.addresses.iter().filter(of_family).peekable();
                if addresses.peek().is_none() && offered.node_port.is_none() {
                    continue;
                }
                let found = serving(world, service, offered, is_v4);
                if found.is_empty() {
                    continue;
                }
                let at = |number| Port::new(offered.protocol, number);
                for address in addresses {
                    let ports = of_services.entry(*address).or_default();
                    let port = ports.entry(at(offered.port)).or_default();
                    port.extend(found.iter().cloned());
                }
                if let Some(number) = offered.node_port {
                    let ports = of_nodes.entry(is_v4).or_default();
                    ports.entry(at(number)).or_default().extend(found);
                }
            }
        }
    }
    // Nodes are many, and what serves on them is the same.
    let of_nodes: BTreeMap<bool, Arc<Served>> = of_nodes
        .into_iter()
        .map(|(is_v4, ports)| (is_v4, Arc::new(ports)))
        .collect();
    let mut all: BTreeMap<IpAddr, Arc<Served>> = BTreeMap::new();
    for address in world.nodes.values().flat_map(|node| &node.addresses) {
        let Some(ports) = of_nodes.get(&address.is_ipv4()) else {
            continue;
        };
        if let Some(own) = of_services.get_mut(address) {
            for (port, serving) in ports.iter() {
                own.entry(*port)
                    .or_default()
                    .extend(serving.iter().cloned());
            }
        } else {
            all.insert(*address, Arc::clone(ports));
        }
    }
    let of_services = of_services.into_iter();
    all.extend(of_services.map(|(address, ports)| (address, Arc::new(ports))));
    all
}

/// In order of address and port; nothing if no Service is reached there, or nothing serves it.
pub(super) fn backends(world: &World, address: IpAddr, port: Port) -> Vec<Serving> {
    let on_a_node = world
        .nodes
        .values()
        .any(|node| node.addresses.contains(&address));
    let mut all = BTreeSet::new();
    for service in world.services.values() {
        let is_reached = |offered: &&ServicePort| {
            let by_port = offered.port == port.number && service.addresses.contains(&address);
            let by_node_port = on_a_node && offered.node_port == Some(port.number);
            offered.protocol.number() == port.protocol && (by_port || by_node_port)
        };
        for offered in service.ports.iter().filter(is_reached) {
            all.extend(serving(world, service, offered, address.is_ipv4()));
        }
    }
    all.into_iter().collect()
}

fn serving(
    world: &World,
    service: &Service,
    offered: &ServicePort,
    is_v4: bool,
) -> BTreeSet<Serving> {
    let mut found = BTreeSet::new();
    let is_selected = |workload: &Workload| {
        service.selector.as_ref().is_some_and(|selector| {
            let mut labels = selector.iter();
            labels.all(|(key, value)| workload.labels.get(key) == Some(value))
        })
    };
    let first = ObjectName::new(service.name.namespace.clone(), "");
    let in_namespace = world
        .workloads
        .range(first..)
        .take_while(|(name, _)| name.namespace == service.name.namespace);
    let selected = in_namespace.filter(|(_, workload)| {
        is_selected(workload) && (workload.ready || service.publish_not_ready)
    });
    for (_, workload) in selected {
        for number in targets(workload, &offered.target, offered.protocol) {
            let addresses = super::ends::addresses_of(world, workload);
            let alike = addresses
                .into_iter()
                .filter(|address| address.is_ipv4() == is_v4);
            found.extend(alike.map(|address| Serving {
                address,
                port: Port::new(offered.protocol, number),
                workload: Some(workload.name.clone()),
            }));
        }
    }
    let listed = |backends: &BTreeSet<Backend>| {
        let of_the_port = backends
            .iter()
            .filter(|one| one.serves(offered) && one.address.is_ipv4() == is_v4);
        let serving = of_the_port.map(|one| Serving {
            address: one.address,
            port: Port::new(one.protocol, one.port),
            workload: world.addresses.get(&one.address).cloned(),
        });
        serving.collect::<Vec<_>>()
    };
    found.extend(listed(&service.by_hand));
    if found.is_empty() {
        found.extend(listed(&service.last));
    }
    found
}

fn targets(workload: &Workload, target: &PortName, protocol: Protocol) -> Vec<u16> {
    match target {
        PortName::Number(number) => vec![*number],
        PortName::Name(name) => workload
            .ports
            .iter()
            .filter(|port| port.name == *name && port.protocol == protocol)
            .map(|port| port.port)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{model::Direction, reference::behind_frontend, strategies};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn the_backends_are_those_that_are_judged(
            (world, _, questions) in strategies::world_and_questions(),
        ) {
            let all = frontends(&world);
            for question in &questions {
                if question.direction == Direction::Ingress {
                    continue;
                }
                let port = Port { protocol: question.protocol, number: question.port };
                let found = backends(&world, question.peer, port);
                let listed = all.get(&question.peer).and_then(|ports| ports.get(&port));
                prop_assert_eq!(
                    listed.cloned().unwrap_or_default().into_iter().collect::<Vec<_>>(),
                    found.clone(),
                    "{:?}", question
                );
                let mut ours: Vec<_> = found
                    .into_iter()
                    .map(|backend| (backend.address, backend.port.number))
                    .collect();
                // Several workloads of one node may serve at its address.
                ours.dedup();
                let theirs: Vec<_> = behind_frontend(&world, question)
                    .into_iter()
                    .map(|question| (question.peer, question.port))
                    .collect();
                prop_assert_eq!(ours, theirs, "{:?}", question);
            }
        }
    }
}
