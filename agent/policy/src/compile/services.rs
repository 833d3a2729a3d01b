//! Services: which address and port stands for which backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{Backend, Labels, PortName, Service, ServicePort, Workload, World};

/// A port of an address that is translated to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FrontendPort {
    pub(super) protocol: u8,
    pub(super) port: u16,
}

/// Where a frontend leads: addresses and ports, in the order of attribution.
pub(super) type Backends = BTreeSet<(IpAddr, u16)>;

/// What one Service adds: its frontends, by address. At addresses of its own also those of which nobody is known
/// to serve them: they may be translated all the same.
pub(super) type Frontends = BTreeMap<IpAddr, BTreeMap<FrontendPort, Backends>>;

/// What becomes of a frontend without backends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unserved {
    Kept,
    LeftOut,
}

pub(super) fn frontends(world: &World, service: &Service) -> Frontends {
    let mut found = Frontends::new();
    let nodes: BTreeSet<IpAddr> = if service.ports.iter().any(|port| port.node_port.is_some()) {
        world
            .nodes
            .values()
            .flat_map(|node| node.addresses.iter().copied())
            .collect()
    } else {
        BTreeSet::new()
    };
    for port in &service.ports {
        let serving = serving(world, service, port);
        let mut add = |address: IpAddr, number: u16, unserved: Unserved| {
            let backends: Backends = serving
                .iter()
                .filter(|(backend, _)| backend.is_ipv4() == address.is_ipv4())
                .copied()
                .collect();
            if !backends.is_empty() || unserved == Unserved::Kept {
                let frontend = FrontendPort {
                    protocol: port.protocol.number(),
                    port: number,
                };
                let known = found.entry(address).or_default().entry(frontend);
                known.or_default().extend(backends);
            }
        };
        for address in &service.addresses {
            add(*address, port.port, Unserved::Kept);
        }
        if let Some(number) = port.node_port {
            for address in &nodes {
                add(*address, number, Unserved::LeftOut);
            }
        }
    }
    found
}

/// Keeps what served last for ports of Services that nothing serves any more.
pub fn carry_backends(old: &World, new: &mut World) {
    let mut kept = Vec::new();
    for (name, service) in &new.services {
        let Some(before) = old.services.get(name) else {
            continue;
        };
        let mut last = BTreeSet::new();
        for port in &service.ports {
            for is_v4 in [true, false] {
                let of_family = |backend: &&(IpAddr, u16)| backend.0.is_ipv4() == is_v4;
                if serving_now(new, service, port)
                    .iter()
                    .any(|one| of_family(&one))
                {
                    continue;
                }
                // The port of the same number and protocol is the same port.
                let same = before
                    .ports
                    .iter()
                    .find(|known| known.port == port.port && known.protocol == port.protocol);
                let served = same
                    .map(|same| serving(old, before, same))
                    .unwrap_or_default();
                last.extend(
                    served
                        .iter()
                        .filter(of_family)
                        .map(|(address, target)| Backend {
                            service_port: port.port,
                            protocol: port.protocol,
                            address: *address,
                            port: *target,
                        }),
                );
            }
        }
        if last != service.last {
            kept.push((name.clone(), last));
        }
    }
    for (name, last) in kept {
        if let Some(service) = new.services.get_mut(&name) {
            std::sync::Arc::make_mut(service).last = last;
        }
    }
}

/// What serves a port now, or else what served it last, family by family.
fn serving(world: &World, service: &Service, port: &ServicePort) -> Backends {
    let mut backends = serving_now(world, service, port);
    let has = |is_v4| {
        backends
            .iter()
            .any(|(address, _)| address.is_ipv4() == is_v4)
    };
    let (has_v4, has_v6) = (has(true), has(false));
    backends.extend(
        service
            .last
            .iter()
            .filter(|last| last.serves(port))
            .filter(|last| {
                !(if last.address.is_ipv4() {
                    has_v4
                } else {
                    has_v6
                })
            })
            .map(|last| (last.address, last.port)),
    );
    backends
}

fn serving_now(world: &World, service: &Service, port: &ServicePort) -> Backends {
    let mut backends = selected(world, service, port);
    let by_hand = service.by_hand.iter();
    let by_hand = by_hand.filter(|one| one.serves(port));
    backends.extend(by_hand.map(|one| (one.address, one.port)));
    backends
}

fn selected(world: &World, service: &Service, port: &ServicePort) -> Backends {
    let Some(selector) = &service.selector else {
        return Backends::new();
    };
    let mut found = Backends::new();
    for workload in in_namespace(world, &service.name.namespace) {
        if !is_selected(selector, &workload.labels)
            || !(workload.ready || service.publish_not_ready)
        {
            continue;
        }
        // Two containers may call different ports the same: each of them may be meant.
        let targets: BTreeSet<u16> = match &port.target {
            PortName::Number(number) => BTreeSet::from([*number]),
            PortName::Name(name) => workload
                .ports
                .iter()
                .filter(|known| known.name == *name && known.protocol == port.protocol)
                .map(|known| known.port)
                .collect(),
        };
        for address in addresses(world, workload) {
            found.extend(targets.iter().map(|target| (address, *target)));
        }
    }
    found
}

/// A workload on its node's network need not list the node's addresses to have them.
fn addresses<'w>(world: &'w World, workload: &'w Workload) -> impl Iterator<Item = IpAddr> + 'w {
    let of_node = workload
        .node
        .as_ref()
        .filter(|_| workload.addresses.is_empty() && !workload.owns_its_addresses())
        .and_then(|node| world.nodes.get(node));
    let of_node = of_node.into_iter().flat_map(|node| &node.addresses);
    workload.addresses.iter().chain(of_node).copied()
}

pub(super) fn in_namespace<'w>(
    world: &'w World,
    namespace: &'w str,
) -> impl Iterator<Item = &'w Workload> {
    world
        .workloads
        .range(crate::model::ObjectName::new(namespace, "")..)
        .take_while(move |(name, _)| name.namespace == namespace)
        .map(|(_, workload)| workload.as_ref())
}

fn is_selected(selector: &Labels, labels: &Labels) -> bool {
    selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}
