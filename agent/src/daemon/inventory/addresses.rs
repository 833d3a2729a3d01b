//! Whose an address is. Of ten thousand, one has changed; and most often policies have, and nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use agent_policy::model::{Change, ObjectName, Service, World};

use super::{of_node, of_workload};
use crate::flow::addresses::{Addresses, Owners, Services};

/// A state of the world as this node sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) world: &'a World,
    pub(crate) node: &'a str,
    /// Every address of this node.
    pub(crate) this_node: &'a BTreeSet<IpAddr>,
}

/// `before` are those of the view `old`, and `changes` lead from its world to that of `new`.
pub(crate) fn addresses(
    new: View<'_>,
    old: View<'_>,
    changes: &[Change],
    before: &Addresses,
) -> Addresses {
    let services_moved = changes.iter().any(|change| match change {
        Change::Service(name, service) => {
            places(old.world.services.get(name)) != places(service.as_ref())
        }
        _ => false,
    });
    let nodes_moved = new.this_node != old.this_node
        || changes
            .iter()
            .any(|change| matches!(change, Change::Node(..)));
    Addresses {
        workloads: workloads(new.world, old.world, &before.workloads, changes),
        nodes: if nodes_moved || services_moved {
            Arc::new(nodes(new))
        } else {
            Arc::clone(&before.nodes)
        },
        services: if services_moved {
            Arc::new(services(new.world))
        } else {
            Arc::clone(&before.services)
        },
    }
}

/// What serves it may change by the second, and where it is reached does not.
fn places(service: Option<&Arc<Service>>) -> Option<impl PartialEq> {
    service.map(|service| (&service.addresses, &service.ports))
}

fn workloads(world: &World, old: &World, before: &Arc<Owners>, changes: &[Change]) -> Arc<Owners> {
    let workloads = changes.iter().filter_map(|change| match change {
        Change::Workload(name, new) => Some((old.workloads.get(name), new)),
        _ => None,
    });
    let addresses: BTreeSet<IpAddr> = workloads
        .flat_map(|(old, new)| [old, new.as_ref()])
        .flatten()
        .flat_map(|workload| workload.addresses.iter().copied())
        .collect();
    if addresses.is_empty() {
        return Arc::clone(before);
    }
    let mut owners = Owners::clone(before);
    // Once for all addresses of one.
    let mut named: BTreeMap<&ObjectName, _> = BTreeMap::new();
    for address in addresses {
        let name = world.addresses.get(&address);
        match name.and_then(|name| world.workloads.get(name)) {
            Some(workload) => {
                let named = named.entry(&workload.name);
                let owner = named.or_insert_with(|| Arc::new(of_workload(workload)));
                owners.insert(address, Arc::clone(owner));
            }
            None => {
                owners.remove(&address);
            }
        }
    }
    Arc::new(owners)
}

fn nodes(view: View<'_>) -> Owners {
    let View {
        world,
        node,
        this_node,
    } = view;
    let of_services: BTreeSet<&IpAddr> = (world.services.values())
        .flat_map(|service| &service.addresses)
        .collect();
    // A proxy that works with IPVS gives every address of a Service to an interface of its node.
    let own = this_node.iter().filter(|it| !of_services.contains(it));
    let mut owners = Owners::new();
    let mut add = |name: &str, addresses: &mut dyn Iterator<Item = &IpAddr>| {
        let node = Arc::new(of_node(world, name));
        for address in addresses {
            owners.entry(*address).or_insert_with(|| Arc::clone(&node));
        }
    };
    add(node, &mut own.into_iter());
    for (name, node) in &world.nodes {
        add(name, &mut node.addresses.iter());
    }
    owners
}

fn services(world: &World) -> Services {
    let mut services = Services::default();
    for (name, service) in &world.services {
        let name: Arc<str> = name.to_string().into();
        for port in &service.ports {
            let protocol = port.protocol.number();
            for address in &service.addresses {
                services.add(&name, *address, (protocol, port.port));
            }
            if let Some(number) = port.node_port {
                services.add_node_port(&name, (protocol, number));
            }
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use agent_common::protocol::TCP;
    use agent_policy::load::{InputFile, load};

    use super::*;

    const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: node-2}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec:
  type: NodePort
  clusterIP: 10.96.0.1
  externalIPs: [192.0.2.2]
  selector: {app: web}
  ports: [{port: 80, nodePort: 30080}]
";

    fn world(text: &str) -> World {
        let loaded = load([InputFile {
            name: "all.yaml".into(),
            bytes: text.into(),
        }]);
        assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
        loaded.world
    }

    fn view<'a>(world: &'a World, this_node: &'a BTreeSet<IpAddr>) -> View<'a> {
        View {
            world,
            node: "node-1",
            this_node,
        }
    }

    #[test]
    fn nodes_and_services_follow_what_moves_and_nothing_else() {
        let nothing = (World::default(), BTreeSet::new());
        let world = world(OBJECTS);
        let text = ["192.0.2.1", "10.96.0.1"];
        // As a proxy that works with IPVS has it.
        let this_node: BTreeSet<IpAddr> = text.map(|it| it.parse().unwrap()).into();
        let new = view(&world, &this_node);
        let changes = world.changes_from(&nothing.0);
        let old = view(&nothing.0, &nothing.1);
        let all = addresses(new, old, &changes, &Addresses::default());
        let named = |text: &str, port| {
            let address = text.parse().unwrap();
            let owner = all.owner(address).map(ToString::to_string);
            let service = all.service(address, TCP, port).map(ToString::to_string);
            (owner.unwrap_or_default(), service.unwrap_or_default())
        };
        let expected = |owner: &str, service: &str| (owner.to_owned(), service.to_owned());
        assert_eq!(named("192.0.2.1", 22), expected("node/node-1", ""));
        assert_eq!(named("10.96.0.1", 80), expected("", "shop/web"));
        assert_eq!(named("192.0.2.2", 80), expected("node/node-2", "shop/web"));
        assert_eq!(
            named("192.0.2.1", 30080),
            expected("node/node-1", "shop/web")
        );

        let served = Service::clone(world.services.values().next().unwrap());
        let mut moved = served.clone();
        moved.addresses.clear();
        for (service, is_elsewhere) in [(served, false), (moved, true)] {
            let changes = [Change::Service(service.name.clone(), Some(service.into()))];
            let again = addresses(new, new, &changes, &all);
            assert_eq!(Arc::ptr_eq(&again.services, &all.services), !is_elsewhere);
        }
    }
}
