//! Whose an address is, for the far side of a flow.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    net::IpAddr,
    sync::Arc,
};

use super::record::WorkloadRef;

pub(crate) type Owners = HashMap<IpAddr, Arc<WorkloadRef>>;

/// Each part is replaced as a whole, and shared with the inventories that came before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    /// Of workloads that have them alone.
    pub(crate) workloads: Arc<Owners>,
    /// Of nodes: whoever shares them is the node, as a peer.
    pub(crate) nodes: Arc<Owners>,
    pub(crate) services: Arc<Services>,
}

/// Where Services are reached. What several claim is nobody's: which of them the packet was for is not known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    ports: HashMap<(IpAddr, u8, u16), Claim>,
    addresses: HashMap<IpAddr, Claim>,
    /// On the addresses of every node.
    node_ports: HashMap<(u8, u16), Claim>,
}

/// `None` where several claim it.
type Claim = Option<Arc<str>>;

impl Addresses {
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Arc<WorkloadRef>> {
        let workload = self.workloads.get(&address);
        workload.or_else(|| self.nodes.get(&address))
    }

    /// The Service that is asked for there. At an address that is of a Service alone, it is that one at every port.
    pub(crate) fn service(&self, address: IpAddr, protocol: u8, port: u16) -> Option<&Arc<str>> {
        let Services {
            ports,
            addresses,
            node_ports,
        } = &*self.services;
        let exact = ports.get(&(address, protocol, port));
        let claim = exact.or_else(|| match self.owner(address) {
            None => addresses.get(&address),
            Some(_) if self.workloads.contains_key(&address) => None,
            Some(_) => node_ports.get(&(protocol, port)),
        });
        claim?.as_ref()
    }
}

impl Services {
    /// `port` of the Service `name` is reached there.
    pub(crate) fn add(&mut self, name: &Arc<str>, address: IpAddr, (protocol, port): (u8, u16)) {
        claim(&mut self.ports, (address, protocol, port), name);
        claim(&mut self.addresses, address, name);
    }

    pub(crate) fn add_node_port(&mut self, name: &Arc<str>, port: (u8, u16)) {
        claim(&mut self.node_ports, port, name);
    }
}

fn claim<K: Hash + Eq>(claims: &mut HashMap<K, Claim>, key: K, name: &Arc<str>) {
    match claims.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(Some(Arc::clone(name)));
        }
        Entry::Occupied(mut entry) => {
            if entry.get().as_ref() != Some(name) {
                entry.insert(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_common::protocol::{ICMP, TCP, UDP};

    use super::*;

    const CLUSTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10));
    const POD: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 3));
    const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn workload(namespace: &str, name: &str, kind: &'static str) -> Arc<WorkloadRef> {
        Arc::new(WorkloadRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind: kind.into(),
            owner: None,
            labels: Arc::default(),
            json: super::super::record::Fragment::default(),
        })
    }

    fn addresses(services: Services) -> Addresses {
        let node = workload("", "node-1", "Node");
        Addresses {
            workloads: Arc::new([(POD, workload("shop", "api-0", "Pod"))].into()),
            // A pod's own address that a node has, too, is the pod's.
            nodes: Arc::new([(NODE, Arc::clone(&node)), (POD, node)].into()),
            services: Arc::new(services),
        }
    }

    fn owner(addresses: &Addresses, address: IpAddr) -> Option<String> {
        addresses.owner(address).map(ToString::to_string)
    }

    #[test]
    fn an_address_is_a_workload_s_or_else_a_node_s() {
        let addresses = addresses(Services::default());
        assert_eq!(owner(&addresses, POD).as_deref(), Some("shop/api-0"));
        assert_eq!(owner(&addresses, NODE).as_deref(), Some("node/node-1"));
        assert_eq!(owner(&addresses, CLUSTER), None);
    }

    #[test]
    fn a_service_is_known_by_its_ports_its_address_and_the_ports_of_nodes() {
        let mut services = Services::default();
        let api: Arc<str> = "shop/api".into();
        services.add(&api, CLUSTER, (TCP, 443));
        services.add(&api, NODE, (TCP, 443));
        services.add_node_port(&api, (TCP, 30443));
        let addresses = addresses(services);
        for (address, protocol, port, is_asked_for) in [
            (CLUSTER, TCP, 443, true),
            // Nobody serves there, and yet it was asked for.
            (CLUSTER, TCP, 22, true),
            (CLUSTER, ICMP, 0x0800, true),
            (NODE, TCP, 443, true),
            (NODE, TCP, 30443, true),
            (NODE, UDP, 30443, false),
            // The node's own.
            (NODE, TCP, 22, false),
            (POD, TCP, 30443, false),
            (POD, TCP, 443, false),
        ] {
            let found = addresses.service(address, protocol, port);
            let expected = is_asked_for.then_some(&api);
            assert_eq!(found, expected, "{address} {protocol} {port}");
        }
    }

    #[test]
    fn what_several_services_claim_is_of_none() {
        let mut services = Services::default();
        let [api, thief]: [Arc<str>; 2] = ["shop/api".into(), "dev/thief".into()];
        services.add(&api, CLUSTER, (TCP, 443));
        services.add(&thief, CLUSTER, (TCP, 443));
        services.add(&thief, CLUSTER, (TCP, 80));
        services.add_node_port(&api, (TCP, 30443));
        services.add_node_port(&thief, (TCP, 30443));
        let addresses = addresses(services);
        assert_eq!(addresses.service(CLUSTER, TCP, 443), None);
        assert_eq!(addresses.service(CLUSTER, TCP, 22), None);
        assert_eq!(addresses.service(NODE, TCP, 30443), None);
        assert_eq!(addresses.service(CLUSTER, TCP, 80), Some(&thief));
    }
}
