//! Whose an address is, for the far side of a flow.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
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
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) services: Arc<Services>,
}

/// Whoever shares a node's address is the node, as a peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes {
    /// Of this node, as its interfaces have them. None that is of one link alone (IPv6): a packet's key has no link.
    own: Claims<IpAddr, Arc<WorkloadRef>>,
    /// As the API has them.
    all: Claims<IpAddr, Arc<WorkloadRef>>,
    this_node: Option<Arc<WorkloadRef>>,
}

/// Where Services are reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    /// At addresses that the cluster gave them.
    cluster: Claims<(IpAddr, u8, u16), Arc<str>>,
    external: Claims<(IpAddr, u8, u16), Arc<str>>,
    /// On the addresses of every node, of a family.
    node_ports: Claims<(bool, u8, u16), Arc<str>>,
    cluster_addresses: HashSet<IpAddr>,
}

/// What several claim is nobody's: whose a packet is cannot be told, and whoever may claim anything must not put a name on the
/// traffic of others.
#[derive(Clone, Debug)]
struct Claims<K, V>(HashMap<K, Option<V>>);

// === impl Addresses ===

impl Addresses {
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Arc<WorkloadRef>> {
        let workload = self.workloads.get(&address);
        workload.or_else(|| self.node(address))
    }

    fn node(&self, address: IpAddr) -> Option<&Arc<WorkloadRef>> {
        let Nodes {
            own,
            all,
            this_node,
        } = &*self.nodes;
        if address.is_loopback() {
            return this_node.as_ref();
        }
        // A proxy that works with IPVS gives what is of Services to an interface of its node.
        if self.services.cluster_addresses.contains(&address) {
            return None;
        }
        own.of(&address).or_else(|| all.of(&address))
    }

    /// The Service that is asked for there.
    pub(crate) fn service(&self, address: IpAddr, protocol: u8, port: u16) -> Option<&Arc<str>> {
        let Services {
            cluster,
            external,
            node_ports,
            cluster_addresses,
        } = &*self.services;
        let place = (address, protocol, port);
        if cluster_addresses.contains(&address) {
            return cluster.of(&place);
        }
        let is_a_node_s = self.nodes.all.0.contains_key(&address);
        let at_a_node = node_ports.0.get(&(address.is_ipv4(), protocol, port));
        // Which of the two is led there, nobody can tell.
        match (external.0.get(&place), at_a_node.filter(|_| is_a_node_s)) {
            (Some(one), Some(other)) if one != other => None,
            (Some(claimed), _) | (None, Some(claimed)) => claimed.as_ref(),
            (None, None) => None,
        }
    }
}

// === impl Nodes ===

impl Nodes {
    /// Of the node that this is.
    pub(crate) fn here(
        this_node: Arc<WorkloadRef>,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Self {
        let mut own = Claims::default();
        for address in addresses {
            if !matches!(address, IpAddr::V6(it) if it.is_unicast_link_local()) {
                own.add(address, &this_node);
            }
        }
        Self {
            own,
            all: Claims::default(),
            this_node: Some(this_node),
        }
    }

    pub(crate) fn add(&mut self, node: &Arc<WorkloadRef>, addresses: impl Iterator<Item = IpAddr>) {
        for address in addresses {
            self.all.add(address, node);
        }
    }
}

// === impl Services ===

impl Services {
    /// An address that the cluster gave to the Service `name`, with a protocol and port of it.
    pub(crate) fn add_cluster(&mut self, name: &Arc<str>, place: (IpAddr, u8, u16)) {
        self.cluster.add(place, name);
        self.cluster_addresses.insert(place.0);
    }

    pub(crate) fn add_external(&mut self, name: &Arc<str>, place: (IpAddr, u8, u16)) {
        self.external.add(place, name);
    }

    /// Of a protocol, for nodes' addresses of IPv4 or of IPv6.
    pub(crate) fn add_node_port(&mut self, name: &Arc<str>, port: (bool, u8, u16)) {
        self.node_ports.add(port, name);
    }
}

// === impl Claims ===

impl<K: Hash + Eq, V: Clone + PartialEq> Claims<K, V> {
    fn add(&mut self, key: K, claimant: &V) {
        match self.0.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(Some(claimant.clone()));
            }
            Entry::Occupied(mut entry) => {
                if entry.get().as_ref() != Some(claimant) {
                    entry.insert(None);
                }
            }
        }
    }

    fn of(&self, key: &K) -> Option<&V> {
        self.0.get(key)?.as_ref()
    }
}

impl<K, V> Default for Claims<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

#[cfg(test)]
mod tests {
    use agent_common::protocol::{ICMP, TCP, UDP};

    use super::*;
    use crate::flow::record::Fragment;

    const POD: &str = "10.77.0.3";
    const CLUSTER: &str = "10.96.0.10";
    const EXTERNAL: &str = "203.0.113.9";
    /// This one's, as the API has it; and one that only its interface has.
    const NODE: &str = "192.0.2.1";
    const BRIDGE: &str = "10.244.1.1";
    const OTHER: &str = "192.0.2.2";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn named(namespace: &str, name: &str, kind: &'static str) -> Arc<WorkloadRef> {
        Arc::new(WorkloadRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind: kind.into(),
            owner: None,
            labels: Arc::default(),
            json: Fragment::default(),
        })
    }

    fn nodes() -> Nodes {
        let [here, there] = ["node-1", "node-2"].map(|name| named("", name, "Node"));
        // A proxy has put an address of a Service on an interface.
        let own = [NODE, BRIDGE, CLUSTER, "fe80::1", "169.254.20.10"];
        let mut nodes = Nodes::here(Arc::clone(&here), own.map(ip).into_iter());
        nodes.add(&here, [ip(NODE)].into_iter());
        nodes.add(&there, [ip(OTHER)].into_iter());
        nodes
    }

    fn addresses(services: Services) -> Addresses {
        Addresses {
            workloads: Arc::new([(ip(POD), named("shop", "api-0", "Pod"))].into()),
            nodes: Arc::new(nodes()),
            services: Arc::new(services),
        }
    }

    fn owner(addresses: &Addresses, address: &str) -> Option<String> {
        addresses.owner(ip(address)).map(ToString::to_string)
    }

    #[test]
    fn an_address_is_a_workload_s_or_else_a_node_s() {
        let mut services = Services::default();
        services.add_cluster(&"shop/api".into(), (ip(CLUSTER), TCP, 443));
        // Anybody may write that.
        services.add_external(&"dev/thief".into(), (ip(BRIDGE), TCP, 9));
        let addresses = addresses(services);
        for (address, expected) in [
            (POD, Some("shop/api-0")),
            (NODE, Some("node/node-1")),
            (BRIDGE, Some("node/node-1")),
            ("127.0.0.53", Some("node/node-1")),
            ("::1", Some("node/node-1")),
            ("169.254.20.10", Some("node/node-1")),
            (OTHER, Some("node/node-2")),
            (CLUSTER, None),
            (EXTERNAL, None),
            // Of which link, nobody knows.
            ("fe80::1", None),
        ] {
            assert_eq!(owner(&addresses, address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn what_two_nodes_claim_is_of_neither_unless_this_one_has_it() {
        let mut addresses = addresses(Services::default());
        let thief = named("", "a-thief", "Node");
        let nodes = Arc::make_mut(&mut addresses.nodes);
        nodes.add(&thief, [ip(OTHER), ip(NODE)].into_iter());
        assert_eq!(owner(&addresses, OTHER), None);
        assert_eq!(owner(&addresses, NODE).as_deref(), Some("node/node-1"));
    }

    #[test]
    fn a_service_is_known_by_address_and_port_and_by_ports_of_nodes() {
        let mut services = Services::default();
        let api: Arc<str> = "shop/api".into();
        services.add_cluster(&api, (ip(CLUSTER), TCP, 443));
        for address in [EXTERNAL, OTHER] {
            services.add_external(&api, (ip(address), TCP, 443));
        }
        services.add_node_port(&api, (true, TCP, 30443));
        let mut addresses = addresses(services);
        let nodes = Arc::make_mut(&mut addresses.nodes);
        nodes.add(&named("", "node-3", "Node"), [ip("fd00::3")].into_iter());
        for (address, protocol, port, is_asked_for) in [
            (CLUSTER, TCP, 443, true),
            (CLUSTER, TCP, 22, false),
            (CLUSTER, ICMP, 0x0800, false),
            (EXTERNAL, TCP, 443, true),
            // Nobody leads that anywhere.
            (EXTERNAL, TCP, 22, false),
            (OTHER, TCP, 443, true),
            (OTHER, TCP, 30443, true),
            (OTHER, UDP, 30443, false),
            (NODE, TCP, 30443, true),
            // Of another family than the Service, or no address that the API knows.
            ("fd00::3", TCP, 30443, false),
            (BRIDGE, TCP, 30443, false),
            ("127.0.0.1", TCP, 30443, false),
            (POD, TCP, 30443, false),
        ] {
            let found = addresses.service(ip(address), protocol, port);
            let expected = is_asked_for.then_some(&api);
            assert_eq!(found, expected, "{address} {protocol} {port}");
        }
    }

    #[test]
    fn what_several_services_claim_is_of_none_and_no_claim_takes_what_the_cluster_gave() {
        let mut services = Services::default();
        let [api, thief]: [Arc<str>; 2] = ["shop/api".into(), "dev/thief".into()];
        services.add_cluster(&api, (ip(CLUSTER), TCP, 443));
        for name in [&api, &thief] {
            services.add_external(name, (ip(EXTERNAL), TCP, 443));
            services.add_node_port(name, (true, TCP, 30443));
        }
        services.add_external(&thief, (ip(CLUSTER), TCP, 443));
        services.add_external(&thief, (ip(CLUSTER), TCP, 80));
        let addresses = addresses(services);
        assert_eq!(addresses.service(ip(CLUSTER), TCP, 443), Some(&api));
        assert_eq!(addresses.service(ip(CLUSTER), TCP, 80), None);
        assert_eq!(addresses.service(ip(EXTERNAL), TCP, 443), None);
        assert_eq!(addresses.service(ip(NODE), TCP, 30443), None);
        // Nor does a claim take a node port, or what is contested there leave it to somebody.
        let mut services = Services::default();
        services.add_node_port(&api, (true, TCP, 30443));
        services.add_external(&thief, (ip(NODE), TCP, 30443));
        services.add_node_port(&api, (true, TCP, 30444));
        for name in [&api, &thief] {
            services.add_external(name, (ip(NODE), TCP, 30444));
        }
        services.add_node_port(&api, (true, TCP, 30445));
        services.add_external(&api, (ip(NODE), TCP, 30445));
        let addresses = self::addresses(services);
        for (port, expected) in [(30443, None), (30444, None), (30445, Some(&api))] {
            assert_eq!(addresses.service(ip(NODE), TCP, port), expected, "{port}");
        }
    }
}
