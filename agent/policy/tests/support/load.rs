//! From API objects to the world, for the tests only.
//!
//! `world` is the one way in, so that the parsers can take its place: serialise the documents and
//! hand them over. Until then it reads just what the vectors hold, and stops at anything else.

use std::collections::BTreeSet;

use agent_policy::model::{
    Labels, NamedPort, NamespaceScope, NetworkPolicy, Node, ObjectName, Peer, Peers, PortMatch,
    PortSpec, Ports, Protocol, Requirement, Rule, Selector, Source, Workload, WorkloadKind, World,
};
use serde_json::Value;

pub(crate) fn world(documents: &[Value]) -> World {
    let mut world = World::default();
    for (line, document) in (1..).zip(documents) {
        let source = Source {
            file: "vectors".into(),
            line,
        };
        match text(&document["kind"]) {
            "Namespace" => {
                let name = text(&document["metadata"]["name"]).to_owned();
                let mut labels = labels(&document["metadata"]["labels"]);
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.clone());
                world.namespaces.insert(name, labels);
            }
            "Pod" => {
                let pod = pod(document, source);
                if pod.owns_its_addresses() {
                    let owner = |address: &_| (*address, pod.name.clone());
                    world.addresses.extend(pod.addresses.iter().map(owner));
                }
                world.workloads.insert(pod.name.clone(), pod);
            }
            "Node" => {
                let name = text(&document["metadata"]["name"]).to_owned();
                let addresses = list(&document["status"]["addresses"]);
                let node = Node {
                    name: name.clone(),
                    labels: labels(&document["metadata"]["labels"]),
                    addresses: addresses.map(|entry| parsed(&entry["address"])).collect(),
                    source,
                };
                world.nodes.insert(name, node);
            }
            "NetworkPolicy" => {
                let policy = policy(document, &source);
                world.policies.insert(policy.name.clone(), policy);
            }
            other => panic!("no {other} in the vectors"),
        }
    }
    world
}

fn name(document: &Value) -> ObjectName {
    let metadata = &document["metadata"];
    ObjectName::new(text(&metadata["namespace"]), text(&metadata["name"]))
}

fn pod(document: &Value, source: Source) -> Workload {
    let Value::Object(_) = document["spec"] else {
        panic!("a pod without spec")
    };
    let spec = &document["spec"];
    let containers = list(&spec["containers"]);
    let ports = containers
        .flat_map(|container| list(&container["ports"]))
        .filter_map(|port| {
            Some(NamedPort {
                name: port.get("name")?.as_str()?.to_owned(),
                port: number(&port["containerPort"]),
                protocol: protocol(&port["protocol"]),
            })
        });
    Workload {
        name: name(document),
        kind: WorkloadKind::Pod,
        labels: labels(&document["metadata"]["labels"]),
        addresses: list(&document["status"]["podIPs"])
            .map(|entry| parsed(&entry["ip"]))
            .collect(),
        ports: ports.collect(),
        node: spec["nodeName"].as_str().map(str::to_owned),
        host_network: spec["hostNetwork"].as_bool().unwrap_or(false),
        endpoint: None,
        source,
    }
}

fn policy(document: &Value, source: &Source) -> NetworkPolicy {
    let spec = &document["spec"];
    let types: Option<BTreeSet<_>> = spec
        .get("policyTypes")
        .map(|types| list(types).map(text).collect());
    let speaks_of = |direction, by_default| {
        types
            .as_ref()
            .map_or(by_default, |types| types.contains(direction))
    };
    let name = name(document);
    let rules = |list_of: &str, peers: &str| {
        list(&spec[list_of])
            .map(|item| rule(&name, item, peers, source))
            .collect()
    };
    let egress_by_default = list(&spec["egress"]).next().is_some();
    NetworkPolicy {
        subject: selector(&spec["podSelector"]),
        ingress: speaks_of("Ingress", true).then(|| rules("ingress", "from")),
        egress: speaks_of("Egress", egress_by_default).then(|| rules("egress", "to")),
        source: source.clone(),
        name,
    }
}

fn rule(policy: &ObjectName, item: &Value, peers: &str, source: &Source) -> Rule {
    let peers: Vec<_> = list(&item[peers]).map(|item| peer(policy, item)).collect();
    let ports: Vec<_> = list(&item["ports"]).map(port).collect();
    Rule {
        peers: if peers.is_empty() {
            Peers::Every
        } else {
            Peers::Listed(peers)
        },
        ports: if ports.is_empty() {
            Ports::Every
        } else {
            Ports::Listed(ports)
        },
        source: source.clone(),
    }
}

fn peer(policy: &ObjectName, item: &Value) -> Peer {
    if let Some(block) = item.get("ipBlock") {
        let except = list(&block["except"]).map(parsed).collect();
        return Peer::Block {
            cidr: parsed(&block["cidr"]),
            except,
        };
    }
    Peer::Workloads {
        namespaces: match item.get("namespaceSelector") {
            Some(namespaces) => NamespaceScope::Matching(selector(namespaces)),
            None => NamespaceScope::Named(policy.namespace.clone()),
        },
        workloads: item.get("podSelector").map(selector).unwrap_or_default(),
    }
}

fn port(item: &Value) -> PortMatch {
    let port = match item.get("port") {
        None => PortSpec::Every,
        Some(Value::String(name)) => PortSpec::Name(name.clone()),
        Some(first) => PortSpec::Range {
            first: number(first),
            last: number(item.get("endPort").unwrap_or(first)),
        },
    };
    PortMatch {
        protocol: item.get("protocol").map_or(Protocol::Tcp, protocol),
        port,
    }
}

fn selector(value: &Value) -> Selector {
    let exact = labels(&value["matchLabels"]).into_iter();
    let exact = exact.map(|(key, value)| Requirement::In {
        key,
        values: [value].into(),
    });
    let expressions = list(&value["matchExpressions"]).map(|item| {
        let key = text(&item["key"]).to_owned();
        let values = list(&item["values"]).map(text).map(str::to_owned).collect();
        match text(&item["operator"]) {
            "In" => Requirement::In { key, values },
            "NotIn" => Requirement::NotIn { key, values },
            "Exists" => Requirement::Exists { key },
            "DoesNotExist" => Requirement::DoesNotExist { key },
            other => panic!("no operator: {other}"),
        }
    });
    Selector {
        requirements: exact.chain(expressions).collect(),
    }
}

fn protocol(value: &Value) -> Protocol {
    match text(value) {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        other => panic!("no protocol: {other}"),
    }
}

fn labels(value: &Value) -> Labels {
    let entries = value.as_object().into_iter().flatten();
    entries
        .map(|(key, value)| (key.clone(), text(value).to_owned()))
        .collect()
}

/// Null is like missing, and a missing list is like an empty one wherever this is used.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    assert!(value.is_array() || value.is_null(), "no list: {value}");
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("no string: {value}"))
}

fn number(value: &Value) -> u16 {
    let number = value
        .as_u64()
        .unwrap_or_else(|| panic!("no number: {value}"));
    number.try_into().expect("a port")
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Debug>>(value: &Value) -> T {
    text(value).parse().expect("an address or a block")
}
