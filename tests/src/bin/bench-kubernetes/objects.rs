//! Objects as a cluster has them.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::cluster::{NAMESPACE, NODE, Size};

/// Applications that pods belong to, in each namespace.
const APPS: u32 = 20;

pub(crate) fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": team(name)}},
    })
}

/// A few namespaces have the same.
fn team(name: &str) -> String {
    format!("team-{}", name.len() * 7 % 10)
}

pub(crate) fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

/// Of this namespace, by this name, on this node; of the size that pods have.
pub(crate) fn pod(namespace: &str, name: &str, node: &str, labels: &Value) -> Value {
    let variables = (0..8)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": "some value of it"}));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace, "name": name, "labels": labels,
            "annotations": {"example.org/checksum": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "set", "uid": "11111111-2222-3333-4444-555555555555",
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": "registry.example.org/app:1.2.3",
                "ports": [{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}],
                "env": variables.collect::<Vec<_>>(),
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}

/// What kubelet says of one that runs.
pub(crate) fn running(address: Ipv4Addr) -> Value {
    json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [
            {"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"},
            {"type": "ContainersReady", "status": "True"}, {"type": "PodScheduled", "status": "True"},
        ],
    }})
}

/// The path of a pod.
pub(crate) fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

/// One of many pods: namespace, name, node and labels.
pub(crate) fn filler(number: u32, size: Size) -> (String, Value) {
    let namespace = format!("ns-{}", number % size.namespaces);
    let name = format!("app-{number}-5d9f7c6b8d-x2x4z");
    // Two of a thousand are on our node, and never come to run there.
    let node = if number.is_multiple_of(500) {
        NODE.to_owned()
    } else {
        format!("node-{}", 1 + number % (size.nodes - 1))
    };
    let app = number / size.namespaces % APPS;
    let labels =
        json!({"app": format!("app-{app}"), "tier": tier(app), "pod-template-hash": "5d9f7c6b8d"});
    let pod = pod(&namespace, &name, &node, &labels);
    (namespace, pod)
}

fn tier(app: u32) -> &'static str {
    match app % 3 {
        0 => "front",
        1 => "logic",
        _ => "data",
    }
}

/// One of many policies: an application lets in another one, a tier of other namespaces, and a block.
pub(crate) fn policy(number: u32, size: Size) -> (String, Value) {
    let namespace = format!("ns-{}", number % size.namespaces);
    let app = number / size.namespaces % APPS;
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": format!("policy-{number}")},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("app-{app}")}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"podSelector": {"matchLabels": {"app": format!("app-{}", (app + 1) % APPS)}}}],
                    "ports": [{"protocol": "TCP", "port": "http"}],
                },
                {
                    "from": [
                        {"namespaceSelector": {"matchLabels": {"team": "team-5"}}, "podSelector": {"matchLabels": {"tier": "logic"}}},
                        {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
                    ],
                    "ports": [{"protocol": "TCP", "port": 9090}],
                },
            ],
        },
    });
    (namespace, policy)
}

/// Of the pods that are measured.
pub(crate) fn measured(role: &str) -> Value {
    json!({"app": role, "tier": "logic"})
}

/// Isolates the servers, but for the port that clients always reach.
pub(crate) fn base(port: u16) -> Value {
    allow("base", &[port])
}

/// Lets clients in at these ports.
pub(crate) fn allow(name: &str, ports: &[u16]) -> Value {
    let ports = ports
        .iter()
        .map(|port| json!({"protocol": "UDP", "port": port}));
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": NAMESPACE, "name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                "ports": ports.collect::<Vec<_>>(),
            }],
        },
    })
}
