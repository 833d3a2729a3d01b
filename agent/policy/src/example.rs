//! A small world for the tests of this crate.

use std::sync::Arc;

use crate::{
    load::{InputFile, NAMESPACE_NAME_LABEL, assemble, load, parse_file},
    model::{
        NamedPort, NamespaceScope, NetworkPolicy, Node, ObjectName, Peer, Peers, PortMatch,
        PortSpec, Ports, Protocol, Requirement, Rule, Selector, Source, Terms, Workload,
        WorkloadKind, World,
    },
};

pub(crate) fn source(line: u32) -> Source {
    Source {
        file: "shop.yaml".into(),
        line,
    }
}

/// What a file says that has no errors.
pub(crate) fn loaded(text: &str) -> World {
    let file = InputFile {
        name: "t.yaml".into(),
        bytes: text.as_bytes().to_vec(),
    };
    let loaded = load([file]);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.world
}

/// `host/web` and `host/cache` on one host with others, of which `host/cache` takes from `host/web` alone;
/// `DENIED` is what it denies then.
pub(crate) const HOST: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: one}, status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}}
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: host, name: web, labels: {app: web}}, \
   spec: {node: one, endpoint: {systemdUnit: web.service}}}
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: host, name: cron, labels: {app: cron}}, \
   spec: {node: one, endpoint: {systemdUnit: cron.service}}}
- {apiVersion: ringfence.io/v1alpha1, kind: Workload, metadata: {namespace: host, name: cache, labels: {app: cache}}, \
   spec: {node: one, endpoint: {systemdUnit: cache.service}}}
- {apiVersion: ringfence.io/v1alpha1, kind: RingfencePolicy, metadata: {name: cache}, \
   spec: {tier: Admin, priority: 1, subject: {units: [cache.service]}, \
   ingress: [{action: Allow, from: [{local: {units: [web.service]}}], ports: [{tcp: {port: 6379}}]}, \
   {action: Deny, from: DENIED}]}}
";

pub(crate) fn workload(namespace: &str, name: &str, addresses: &[&str]) -> Workload {
    Workload {
        name: ObjectName::new(namespace, name),
        kind: WorkloadKind::Pod,
        labels: Arc::new([("app".to_owned(), name.to_owned())].into()),
        owner: None,
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        ports: vec![NamedPort {
            name: "http".to_owned(),
            port: 8080,
            protocol: Protocol::Tcp,
        }],
        node: Some("one".to_owned()),
        host_network: false,
        ready: true,
        endpoint: None,
        source: source(1),
    }
}

pub(crate) fn is(app: &str) -> Selector {
    let (key, values) = ("app".to_owned(), [app.to_owned()].into());
    Selector {
        requirements: vec![Requirement::In { key, values }],
    }
}

/// `shop/web` may reach `shop/api` on its port `http`, and nobody else may; `shop/v6` has no IPv4,
/// `shop/probe` is on the host network of node `one`, node `two` is somewhere else.
pub(crate) fn world() -> World {
    let mut probe = workload("shop", "probe", &["10.0.0.1"]);
    probe.host_network = true;
    let workloads = [
        workload("shop", "api", &["10.1.0.1", "fd00::1"]),
        workload("shop", "web", &["10.1.0.2", "fd00::2"]),
        workload("shop", "v6", &["fd00::3"]),
        probe,
    ];
    let policy = NetworkPolicy {
        name: ObjectName::new("shop", "api"),
        subject: is("api"),
        ingress: Some(vec![Rule {
            peers: Peers::listed(vec![Peer::Workloads {
                namespaces: NamespaceScope::Named("shop".to_owned()),
                workloads: is("web"),
            }]),
            ports: Ports::Listed(vec![PortMatch::Transport {
                protocol: Protocol::Tcp,
                port: PortSpec::Name("http".to_owned()),
            }]),
            source: source(12),
        }]),
        egress: None,
        terms: Terms::default(),
        source: source(10),
    };
    let node = |name: &str, address: &str| Node {
        name: name.to_owned(),
        labels: Arc::default(),
        addresses: [address.parse().unwrap()].into(),
        source: source(1),
    };
    let nodes = [node("one", "10.0.0.1"), node("two", "10.0.0.2")];
    let labels = [(NAMESPACE_NAME_LABEL.to_owned(), "shop".to_owned())].into();
    World {
        namespaces: [("shop".to_owned(), Arc::new(labels))].into(),
        addresses: workloads
            .iter()
            .filter(|workload| workload.owns_its_addresses())
            .flat_map(|workload| {
                workload
                    .addresses
                    .iter()
                    .map(|ip| (*ip, workload.name.clone()))
            })
            .collect(),
        workloads: workloads
            .into_iter()
            .map(|w| (w.name.clone(), Arc::new(w)))
            .collect(),
        nodes: nodes
            .into_iter()
            .map(|node| (node.name.clone(), Arc::new(node)))
            .collect(),
        network_policies: [(policy.name.clone(), Arc::new(policy))].into(),
        ..World::default()
    }
}

/// Names with several addresses that policy treats differently, all of them on TCP/5432.
///
/// `db` lets in one of the two addresses of `shop/web`, the IPv4 address of `shop/job`, and what
/// node `edge` sends from one of its two. `shop/client` may send to IPv4 alone, which leaves out one
/// of the two frontends of the Service `shop/front`, with `shop/job` behind.
const BY_ADDRESS: &str = r#"
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {addresses: [10.1.0.1, "fd00::1"]}
---
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {addresses: [10.1.0.9, "fd00::9"]}
---
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {name: job, namespace: shop, labels: {app: job}}
spec: {addresses: [10.1.0.5, "fd00::5"]}
---
apiVersion: ringfence.io/v1alpha1
kind: Workload
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {addresses: [10.1.0.2, 10.1.0.3]}
---
apiVersion: v1
kind: Node
metadata: {name: edge}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: ExternalIP, address: 198.51.100.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop}
spec:
  selector: {app: job}
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd00:96::1"]
  ipFamilies: [IPv4, IPv6]
  ports: [{port: 5432}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - ipBlock: {cidr: 10.1.0.3/32}
    - ipBlock: {cidr: 10.1.0.5/32}
    - ipBlock: {cidr: 198.51.100.1/32}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: shop}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 0.0.0.0/0}}]
"#;

pub(crate) fn by_address() -> World {
    let file = parse_file("ends.yaml".into(), BY_ADDRESS.as_bytes());
    let (world, between) = assemble(std::slice::from_ref(&file));
    let mut found = file.diagnostics.iter().chain(&between);
    assert!(found.all(|one| !one.is_error()), "{:?}", file.diagnostics);
    world
}
