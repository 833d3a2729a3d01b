//! Inventory for labs. Documents are written as JSON, which is YAML, so that no name or address
//! needs quoting rules.

use std::path::Path;

use serde_json::{Value, json};

use crate::lab::Peer;

/// Where a workload is held, as `spec.endpoint` says it.
#[derive(Debug, Clone, Copy)]
pub enum Endpoint<'a> {
    Interface(&'a str),
    Netns(&'a Path),
    Cgroup(&'a str),
}

/// Labels as pairs.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// The workload that a peer is, held at the host side of its interface.
pub fn interface(peer: &Peer, namespace: &str, labels: Labels<'_>) -> String {
    let endpoint = Endpoint::Interface(peer.interface());
    workload(namespace, peer.role(), labels, &addresses(peer), endpoint)
}

/// The same, found by its namespace.
pub fn netns(peer: &Peer, namespace: &str, labels: Labels<'_>) -> String {
    let path = peer.path();
    workload(
        namespace,
        peer.role(),
        labels,
        &addresses(peer),
        Endpoint::Netns(&path),
    )
}

/// A workload that is the processes of a control group; it has the node's addresses.
pub fn cgroup(group: &str, namespace: &str, name: &str, labels: Labels<'_>) -> String {
    workload(namespace, name, labels, &[], Endpoint::Cgroup(group))
}

fn addresses(peer: &Peer) -> Vec<String> {
    peer.addresses().iter().map(ToString::to_string).collect()
}

pub(crate) fn workload(
    namespace: &str,
    name: &str,
    labels: Labels<'_>,
    addresses: &[String],
    endpoint: Endpoint<'_>,
) -> String {
    let labels: serde_json::Map<String, Value> = labels
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.into()))
        .collect();
    let endpoint = match endpoint {
        Endpoint::Interface(name) => json!({"interface": name}),
        Endpoint::Netns(path) => json!({"netns": path}),
        Endpoint::Cgroup(path) => json!({"cgroup": path}),
    };
    let mut spec = json!({"endpoint": endpoint});
    if !addresses.is_empty() {
        spec["addresses"] = json!(addresses);
    }
    document(&json!({
        "apiVersion": "ringfence.io/v1alpha1",
        "kind": "Workload",
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": spec,
    }))
}

pub(crate) fn document(value: &Value) -> String {
    format!("---\n{value:#}\n")
}
