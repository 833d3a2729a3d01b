//! Whose an address is. Of ten thousand, one has changed; and most often policies have, and nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use agent_policy::model::{Change, ObjectName, Service, World};

use super::{of_node, of_workload};
use crate::flow::addresses::{Addresses, Nodes, Owners, Services};

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
        nodes: if nodes_moved {
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
    service.map(|service| {
        let Service {
            addresses,
            cluster,
            other_proxy,
            ports,
            ..
        } = &**service;
        (addresses, cluster, other_proxy, ports)
    })
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

fn nodes(view: View<'_>) -> Nodes {
    let View {
        world,
        node,
        this_node,
    } = view;
    let here = Arc::new(of_node(world, node));
    let mut nodes = Nodes::here(here, this_node.iter().copied());
    for (name, node) in &world.nodes {
        let addresses = node.addresses.iter().copied();
        nodes.add(&Arc::new(of_node(world, name)), addresses);
    }
    nodes
}

fn services(world: &World) -> Services {
    let mut services = Services::default();
    for (name, service) in &world.services {
        let name: Arc<str> = name.to_string().into();
        // Else nobody translates what is not its alone, as far as is known: whoever has the address is reached.
        let is_led = !service.other_proxy;
        let families: BTreeSet<bool> = service.cluster.iter().map(IpAddr::is_ipv4).collect();
        for port in &service.ports {
            let protocol = port.protocol.number();
            for address in &service.addresses {
                let place = (*address, protocol, port.port);
                if service.cluster.contains(address) {
                    services.add_cluster(&name, place);
                } else if is_led {
                    services.add_external(&name, place);
                }
            }
            if let Some(number) = port.node_port.filter(|_| is_led) {
                for family in &families {
                    services.add_node_port(&name, (*family, protocol, number));
                }
            }
        }
    }
    services
}

#[cfg(test)]
mod tests {
    use agent_common::protocol::TCP;
    use agent_policy::{
        load::{InputFile, load},
        model::{Backend, Protocol},
    };

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
---
apiVersion: v1
kind: Service
metadata: {namespace: dev, name: other-proxy, labels: {service.kubernetes.io/service-proxy-name: mine}}
spec:
  clusterIP: 10.96.0.2
  externalIPs: [203.0.113.9]
  type: NodePort
  selector: {app: thief}
  ports: [{port: 443, nodePort: 30443}]
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

    /// Who has the address, and which Service is asked for at the port.
    fn named(addresses: &Addresses, address: &str, port: u16) -> (String, String) {
        let address = address.parse().unwrap();
        let owner = addresses.owner(address).map(ToString::to_string);
        let service = addresses.service(address, TCP, port);
        let service = service.map(ToString::to_string);
        (owner.unwrap_or_default(), service.unwrap_or_default())
    }

    fn expected(owner: &str, service: &str) -> (String, String) {
        (owner.to_owned(), service.to_owned())
    }

    #[test]
    fn nodes_and_services_are_as_the_world_says_and_as_this_node_has_it() {
        let world = world(OBJECTS);
        let own = BTreeSet::from(["192.0.2.1", "10.96.0.1"].map(|it| it.parse().unwrap()));
        let (nothing, none) = (World::default(), BTreeSet::new());
        let changes = world.changes_from(&nothing);
        let (new, old) = (view(&world, &own), view(&nothing, &none));
        let all = addresses(new, old, &changes, &Addresses::default());
        for (address, port, owner, service) in [
            ("192.0.2.1", 22, "node/node-1", ""),
            ("10.96.0.1", 80, "", "shop/web"),
            ("10.96.0.1", 81, "", ""),
            ("192.0.2.2", 80, "node/node-2", "shop/web"),
            ("192.0.2.2", 30080, "node/node-2", "shop/web"),
            // An address that the API does not know as a node's.
            ("192.0.2.1", 30080, "node/node-1", ""),
            // Of whom it is that has it: no proxy of Kubernetes leads anywhere.
            ("203.0.113.9", 443, "", ""),
            ("192.0.2.2", 30443, "node/node-2", ""),
            ("10.96.0.2", 443, "", "dev/other-proxy"),
        ] {
            let found = named(&all, address, port);
            assert_eq!(found, expected(owner, service), "{address}:{port}");
        }
    }

    #[test]
    fn what_has_moved_is_followed_and_nothing_else_is_made_anew() {
        let before = world(OBJECTS);
        let own = BTreeSet::from(["192.0.2.1".parse().unwrap()]);
        let (nothing, none) = (World::default(), BTreeSet::new());
        let changes = before.changes_from(&nothing);
        let old = view(&before, &own);
        let all = addresses(old, view(&nothing, &none), &changes, &Addresses::default());
        let follow = |change: Change, this_node| {
            let mut world = before.clone();
            world.apply(&change);
            addresses(view(&world, this_node), old, &[change], &all)
        };
        let served = Arc::clone(before.services.values().last().unwrap());
        let name = served.name.clone();
        let mut other = Service::clone(&served);
        // Somebody else serves it.
        let backend = Backend {
            service_port: 80,
            protocol: Protocol::Tcp,
            address: "10.77.0.9".parse().unwrap(),
            port: 8080,
        };
        other.by_hand.insert(backend);
        other.last.insert(backend);
        let same = follow(Change::Service(name.clone(), Some(other.into())), &own);
        assert!(Arc::ptr_eq(&same.services, &all.services));
        assert!(Arc::ptr_eq(&same.nodes, &all.nodes));

        let mut other = Service::clone(&served);
        other.cluster.clear();
        let other = follow(Change::Service(name.clone(), Some(other.into())), &own);
        assert!(!Arc::ptr_eq(&other.services, &all.services));
        // It is for the proxy of Kubernetes now, though somebody else serves it at its address.
        let proxied = before.services.values().next().unwrap();
        let mut other = Service::clone(proxied);
        other.other_proxy = false;
        let other = follow(
            Change::Service(proxied.name.clone(), Some(other.into())),
            &own,
        );
        assert_eq!(
            named(&other, "203.0.113.9", 443),
            expected("", "dev/other-proxy")
        );

        let gone = follow(Change::Service(name, None), &own);
        assert_eq!(named(&gone, "10.96.0.1", 80), expected("", ""));
        assert!(Arc::ptr_eq(&gone.nodes, &all.nodes));
        let gone = follow(Change::Node("node-2".to_owned(), None), &own);
        assert_eq!(named(&gone, "192.0.2.2", 80), expected("", "shop/web"));
        assert!(Arc::ptr_eq(&gone.services, &all.services));
        let moved = BTreeSet::from(["192.0.2.7".parse().unwrap()]);
        let moved = addresses(view(&before, &moved), old, &[], &all);
        assert_eq!(named(&moved, "192.0.2.1", 22), expected("", ""));
        assert_eq!(named(&moved, "192.0.2.7", 22), expected("node/node-1", ""));
    }
}
