//! What stands behind the address of a Service (§2 of the semantics).

use std::{collections::BTreeSet, net::IpAddr};

use super::port::Port;
use crate::model::{ObjectName, PortName, Protocol, Service, ServicePort, Workload, World};

/// An address and port that serves, and the workload that it leads to, if that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Serving {
    pub(super) address: IpAddr,
    pub(super) port: Port,
    pub(super) workload: Option<ObjectName>,
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
            all.extend(serving(world, service, offered, address));
        }
    }
    all.into_iter().collect()
}

fn serving(
    world: &World,
    service: &Service,
    offered: &ServicePort,
    like: IpAddr,
) -> BTreeSet<Serving> {
    let mut found = BTreeSet::new();
    let is_selected = |workload: &Workload| {
        service.selector.as_ref().is_some_and(|selector| {
            let mut labels = selector.iter();
            labels.all(|(key, value)| workload.labels.get(key) == Some(value))
        })
    };
    let selected = world.workloads.values().filter(|workload| {
        workload.name.namespace == service.name.namespace
            && is_selected(workload)
            && (workload.ready || service.publish_not_ready)
    });
    for workload in selected {
        for number in targets(workload, &offered.target, offered.protocol) {
            let addresses = super::ends::addresses_of(world, workload);
            let alike = addresses
                .into_iter()
                .filter(|address| address.is_ipv4() == like.is_ipv4());
            found.extend(alike.map(|address| Serving {
                address,
                port: Port::new(offered.protocol, number),
                workload: Some(workload.name.clone()),
            }));
        }
    }
    if found.is_empty() {
        let last = service.last.iter().filter(|last| {
            last.service_port == offered.port
                && last.protocol == offered.protocol
                && last.address.is_ipv4() == like.is_ipv4()
        });
        found.extend(last.map(|last| Serving {
            address: last.address,
            port: Port::new(last.protocol, last.port),
            workload: world.addresses.get(&last.address).cloned(),
        }));
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
            for question in &questions {
                if question.direction == Direction::Ingress {
                    continue;
                }
                let port = Port { protocol: question.protocol, number: question.port };
                let mut ours: Vec<_> = backends(&world, question.peer, port)
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
