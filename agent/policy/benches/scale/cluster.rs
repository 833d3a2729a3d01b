//! A cluster of a given size, the same at every run.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use agent_policy::{
    compile::Scope,
    model::{
        Change, EndpointSpec, Labels, NamedPort, Node, ObjectName, PortName, Protocol, Service,
        ServicePort, Source, Workload, WorkloadKind, World,
    },
};

use crate::policies;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) pods: u32,
    pub(crate) namespaces: u32,
    /// Of all kinds.
    pub(crate) policies: u32,
    pub(crate) tier_policies: u32,
    /// In the rules of all policies together.
    pub(crate) cidrs: u32,
    /// Pods on this node, half of them in one namespace.
    pub(crate) endpoints: u32,
    nodes: u32,
}

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) size: Size,
    pub(crate) world: World,
    pub(crate) scope: Scope,
}

/// The namespace where half of the endpoints are.
pub(crate) const BUSY: u32 = 0;
const APPS: u32 = 5;
const TEAMS: u32 = 40;

impl Size {
    /// The smallest first.
    pub(crate) const ALL: [Self; 2] = [
        Self {
            name: "1/10",
            pods: 1_000,
            namespaces: 100,
            policies: 200,
            tier_policies: 5,
            cidrs: 10_000,
            endpoints: 20,
            nodes: 50,
        },
        Self {
            name: "1",
            pods: 10_000,
            namespaces: 1_000,
            policies: 2_000,
            tier_policies: 50,
            cidrs: 100_000,
            endpoints: 200,
            nodes: 50,
        },
    ];
}

impl Cluster {
    pub(crate) fn new(size: Size) -> Self {
        let mut changes = Vec::new();
        changes.extend((0..size.namespaces).map(namespace));
        changes.extend((0..size.nodes).map(node));
        for number in 0..size.pods {
            let pod = pod(size, number);
            changes.push(Change::Workload(pod.name.clone(), Some(Arc::new(pod))));
        }
        changes.extend((0..size.namespaces).map(service));
        changes.extend(policies::all(size));
        let world: World = changes.into_iter().collect();
        let here = node_name(0);
        let scope = Scope {
            subjects: world
                .workloads
                .values()
                .filter(|workload| workload.node.as_deref() == Some(&here))
                .map(|workload| workload.name.clone().into())
                .collect(),
            this_node: node_addresses(0),
        };
        Self { size, world, scope }
    }
}

pub(crate) fn source() -> Source {
    Source {
        file: "scale.yaml".into(),
        line: 1,
    }
}

pub(crate) fn namespace_name(number: u32) -> String {
    format!("ns-{number}")
}

pub(crate) fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

fn namespace(number: u32) -> Change {
    let name = namespace_name(number);
    let environment = ["prod", "stage", "dev"][number as usize % 3];
    let labels = labels([
        ("kubernetes.io/metadata.name", name.clone()),
        ("team", format!("team-{}", number % TEAMS)),
        ("env", environment.to_owned()),
    ]);
    Change::Namespace(name, Some(Arc::new(labels)))
}

fn node_name(number: u32) -> String {
    format!("node-{number}.example")
}

fn node_addresses(number: u32) -> BTreeSet<IpAddr> {
    let v4 = Ipv4Addr::from_bits(0xac10_0001 + number);
    let v6 = Ipv6Addr::from_bits(0xfd10 << 112 | u128::from(number + 1));
    BTreeSet::from([v4.into(), v6.into()])
}

fn node(number: u32) -> Change {
    let name = node_name(number);
    let zone = format!("zone-{}", number % 3);
    let node = Node {
        name: name.clone(),
        labels: labels([("zone", zone), ("kubernetes.io/os", "linux".to_owned())]).into(),
        addresses: node_addresses(number),
        source: source(),
    };
    Change::Node(name, Some(Arc::new(node)))
}

/// The first ones are this node's.
pub(crate) fn pod(size: Size, number: u32) -> Workload {
    let is_here = number < size.endpoints;
    let namespace = if number < size.endpoints / 2 {
        BUSY
    } else {
        number.wrapping_mul(7) % size.namespaces
    };
    let app = number / 2 % APPS;
    let mut labels = labels([
        ("app", format!("app-{app}")),
        ("tier", ["front", "back"][app as usize % 2].to_owned()),
        (
            "pod-template-hash",
            format!("{:08x}", namespace * APPS + app),
        ),
    ]);
    let name = format!("pod-{number}");
    if number.is_multiple_of(10) {
        labels.insert(
            "statefulset.kubernetes.io/pod-name".to_owned(),
            name.clone(),
        );
    }
    let v4 = Ipv4Addr::from_bits(0x0a40_0000 + number);
    let v6 = Ipv6Addr::from_bits(0xfd40 << 112 | u128::from(number));
    Workload {
        name: ObjectName::new(namespace_name(namespace), name),
        kind: WorkloadKind::Pod,
        labels: Arc::new(labels),
        addresses: BTreeSet::from([v4.into(), v6.into()]),
        ports: vec![
            port(
                "http",
                if number.is_multiple_of(20) {
                    8081
                } else {
                    8080
                },
            ),
            port("metrics", 9090),
        ],
        node: Some(node_name(if is_here {
            0
        } else {
            1 + number % (size.nodes - 1)
        })),
        host_network: false,
        ready: true,
        owner: None,
        endpoint: is_here.then(|| EndpointSpec::Interface(format!("veth{number}"))),
        source: source(),
    }
}

fn port(name: &str, port: u16) -> NamedPort {
    NamedPort {
        name: name.to_owned(),
        port,
        protocol: Protocol::Tcp,
    }
}

/// One a namespace, in front of one of its applications.
fn service(number: u32) -> Change {
    let name = ObjectName::new(namespace_name(number), "web");
    let service = Service {
        name: name.clone(),
        selector: Some(labels([("app", format!("app-{}", number % APPS))])),
        addresses: BTreeSet::from([Ipv4Addr::from_bits(0x0a60_0000 + number).into()]),
        ports: vec![ServicePort {
            name: Some("web".to_owned()),
            protocol: Protocol::Tcp,
            port: 80,
            target: PortName::Name("http".to_owned()),
            node_port: None,
        }],
        publish_not_ready: false,
        other_proxy: false,
        cluster: [].into(),
        by_hand: [].into(),
        last: BTreeSet::new(),
        source: source(),
    };
    Change::Service(name, Some(Arc::new(service)))
}
