//! §2: what stands behind the frontend of a Service.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    model::{
        Backend, Direction, PortName, Requirement, Selector, Service, ServicePort, Workload, World,
    },
    question::Question,
    reference::{matching::selects, subject::Subject},
};

/// The questions that stand for one about a frontend: one for each backend, in order of address and
/// port. None if the peer is no frontend, or one that nothing is known behind.
///
/// They are about the backends as they are: nobody looks for a frontend in them again.
pub fn behind_frontend(world: &World, question: &Question) -> Vec<Question> {
    if question.direction == Direction::Ingress {
        return Vec::new();
    }
    let backends: BTreeSet<(IpAddr, u16)> = world
        .services
        .values()
        .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
        .filter(|(service, port)| is_frontend(world, service, port, question))
        .flat_map(|(service, port)| backends(world, service, port, question.peer))
        .collect();
    let about = |(peer, port)| Question {
        peer,
        socket: None,
        port,
        ..question.clone()
    };
    backends.into_iter().map(about).collect()
}

/// §2.1
fn is_frontend(world: &World, service: &Service, port: &ServicePort, question: &Question) -> bool {
    let of_the_service =
        || service.addresses.contains(&question.peer) && port.port == question.port;
    let of_a_node = || {
        port.node_port == Some(question.port)
            && world
                .nodes
                .values()
                .any(|node| node.addresses.contains(&question.peer))
    };
    port.protocol.number() == question.protocol && (of_the_service() || of_a_node())
}

/// §2.2: what serves now, else what served last.
fn backends(
    world: &World,
    service: &Service,
    port: &ServicePort,
    frontend: IpAddr,
) -> Vec<(IpAddr, u16)> {
    let same_family = |address: &IpAddr| address.is_ipv4() == frontend.is_ipv4();
    let mut serving = Vec::new();
    for workload in world.workloads.values() {
        if !serves(service, workload) {
            continue;
        }
        for number in targets(port, workload) {
            let addresses = reached_at(world, workload);
            let addresses = addresses.iter().filter(|address| same_family(address));
            serving.extend(addresses.map(|address| (*address, number)));
        }
    }
    let of_the_port = |backend: &Backend| {
        let Backend {
            service_port,
            protocol,
            address,
            port: number,
        } = *backend;
        (service_port == port.port && protocol == port.protocol && same_family(&address))
            .then_some((address, number))
    };
    serving.extend(service.by_hand.iter().filter_map(of_the_port));
    if !serving.is_empty() {
        return serving;
    }
    service.last.iter().filter_map(of_the_port).collect()
}

/// §2.2: its own namespace, the labels of its selector, and ready unless that does not count.
fn serves(service: &Service, workload: &Workload) -> bool {
    let Some(labels) = &service.selector else {
        return false;
    };
    let requirement = |(key, value): (&String, &String)| Requirement::In {
        key: key.clone(),
        values: [value.clone()].into(),
    };
    let selector = Selector {
        requirements: labels.iter().map(requirement).collect(),
    };
    workload.name.namespace == service.name.namespace
        && (workload.ready || service.publish_not_ready)
        && selects(&selector, &workload.labels)
}

/// §2.2: a name that the workload does not have leads to no port.
fn targets(port: &ServicePort, workload: &Workload) -> Vec<u16> {
    match &port.target {
        PortName::Number(number) => vec![*number],
        PortName::Name(name) => workload
            .ports
            .iter()
            .filter(|named| named.name == *name && named.protocol == port.protocol)
            .map(|named| named.port)
            .collect(),
    }
}

/// §2.2: who shares the addresses of its node need not list them.
fn reached_at<'w>(world: &'w World, workload: &'w Workload) -> &'w BTreeSet<IpAddr> {
    let listed = &workload.addresses;
    if workload.owns_its_addresses() || !listed.is_empty() {
        return listed;
    }
    Subject::Workload(workload)
        .node(world)
        .map_or(listed, |node| &node.addresses)
}
