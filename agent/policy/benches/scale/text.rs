//! The same cluster as people would write it, to measure reading.

use std::fmt::Write as _;

use agent_policy::model::{
    Mode, NamespaceScope, NetworkPolicy, Node, Peer, Peers, PortMatch, PortName, PortSpec, Ports,
    Requirement, Rule, Schedule, Selector, Service, Subjects, TierAction, TierPolicy, TierRule,
    When, Window, Workload, World,
};
use serde_json::{Map, Value, json};

pub(crate) fn policies(world: &World) -> String {
    let plain = world.network_policies.values();
    let ranked = world.tier_policies.values();
    documents(
        plain
            .map(|policy| network_policy(policy))
            .chain(ranked.map(|policy| tier_policy(policy))),
    )
}

pub(crate) fn inventory(world: &World) -> String {
    let namespaces = world.namespaces.iter().map(|(name, labels)| {
        json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": **labels},
        })
    });
    let nodes = world.nodes.values().map(|one| node(one));
    let workloads = world.workloads.values().map(|one| workload(one));
    let services = world.services.values().map(|one| service(one));
    documents(namespaces.chain(nodes).chain(workloads).chain(services))
}

fn network_policy(policy: &NetworkPolicy) -> Value {
    let mut spec = json!({"podSelector": selector(&policy.subject), "policyTypes": []});
    for (name, peers, rules) in [
        ("Ingress", "from", &policy.ingress),
        ("Egress", "to", &policy.egress),
    ] {
        if let Some(rules) = rules {
            if let Some(types) = spec["policyTypes"].as_array_mut() {
                types.push(name.into());
            }
            let rules = rules.iter().map(|rule| plain_rule(rule, peers));
            spec[name.to_lowercase()] = rules.collect();
        }
    }
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": policy.name.namespace, "name": policy.name.name},
        "spec": spec,
    })
}

fn plain_rule(rule: &Rule, key: &str) -> Value {
    let mut written = Map::new();
    if let Peers::Listed(peers) = &rule.peers {
        let peer = |peer: &Peer| match peer {
            Peer::Workloads {
                namespaces: NamespaceScope::Named(_),
                workloads,
            } => json!({"podSelector": selector(workloads)}),
            Peer::Workloads {
                namespaces: NamespaceScope::Matching(namespaces),
                workloads,
            } => json!({
                "namespaceSelector": selector(namespaces),
                "podSelector": selector(workloads),
            }),
            Peer::Block { cidr, except } => json!({"ipBlock": {"cidr": cidr, "except": except}}),
            other => unreachable!("no NetworkPolicy says {other:?}"),
        };
        written.insert(key.to_owned(), peers.iter().map(peer).collect());
    }
    if let Ports::Listed(ports) = &rule.ports {
        let port = |listed: &PortMatch| match transport(listed) {
            (protocol, PortSpec::Name(name)) => json!({"protocol": protocol, "port": name}),
            (protocol, PortSpec::Range { first, last }) => {
                json!({"protocol": protocol, "port": first, "endPort": last})
            }
            (protocol, PortSpec::Every) => json!({"protocol": protocol}),
        };
        written.insert("ports".to_owned(), ports.iter().map(port).collect());
    }
    written.into()
}

fn tier_policy(policy: &TierPolicy) -> Value {
    let Subjects::Workloads {
        namespaces,
        workloads,
        host_network: _,
    } = &policy.subjects
    else {
        unreachable!("the cluster has policies for workloads only");
    };
    let rules = |rules: &[TierRule], key| -> Value {
        rules.iter().map(|rule| ranked_rule(rule, key)).collect()
    };
    let mut spec = json!({
        "tier": format!("{:?}", policy.tier),
        "priority": policy.priority,
        "subject": {"workloads": {
            "namespaceSelector": selector(namespaces),
            "selector": selector(workloads),
        }},
        "mode": match policy.terms.mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
            Mode::Staged => "staged",
        },
    });
    for (key, peers, written) in [
        ("ingress", "from", &policy.ingress),
        ("egress", "to", &policy.egress),
    ] {
        if !written.is_empty() {
            spec[key] = rules(written, peers);
        }
    }
    if let Some(when) = when(&policy.when) {
        spec["when"] = when;
    }
    json!({
        "apiVersion": "ringfence.io/v1alpha1",
        "kind": "RingfencePolicy",
        "metadata": {"name": policy.id.name},
        "spec": spec,
    })
}

fn ranked_rule(rule: &TierRule, key: &str) -> Value {
    let mut written = json!({"action": match rule.action {
        TierAction::Accept => "Allow",
        TierAction::Deny => "Deny",
        TierAction::Pass => "Pass",
    }});
    if let Peers::Listed(peers) = &rule.peers {
        let peer = |peer: &Peer| match peer {
            Peer::Workloads {
                namespaces: NamespaceScope::Matching(namespaces),
                workloads,
            } => json!({"workloads": {
                "namespaceSelector": selector(namespaces),
                "selector": selector(workloads),
            }}),
            Peer::Block { cidr, except } => json!({"cidr": {"block": cidr, "except": except}}),
            Peer::Nodes(nodes) => json!({"nodes": selector(nodes)}),
            other => unreachable!("no ranked policy of the cluster says {other:?}"),
        };
        written[key] = peers.iter().map(peer).collect();
    }
    if let Ports::Listed(ports) = &rule.ports {
        let port = |listed: &PortMatch| {
            let (protocol, spec) = transport(listed);
            let ports = match spec {
                PortSpec::Name(name) => json!({"name": name}),
                PortSpec::Range { first, last } => json!({"port": first, "endPort": last}),
                PortSpec::Every => json!({}),
            };
            json!({protocol.to_lowercase(): ports})
        };
        written["ports"] = ports.iter().map(port).collect();
    }
    written
}

fn transport(port: &PortMatch) -> (String, &PortSpec) {
    let PortMatch::Transport { protocol, port } = port else {
        unreachable!("the cluster has TCP and UDP only");
    };
    (protocol.to_string(), port)
}

fn when(when: &When) -> Option<Value> {
    let Schedule { zone, windows } = when.schedule.as_ref()?;
    let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let window = |window: &Window| {
        let days: Vec<&str> = window.days.iter().map(|day| day.name()).collect();
        json!({"days": days, "from": clock(window.from), "to": clock(window.to)})
    };
    let windows: Vec<Value> = windows.iter().map(window).collect();
    Some(json!({"schedule": {"timeZone": zone, "windows": windows}}))
}

fn selector(selector: &Selector) -> Value {
    let mut labels = Map::new();
    for requirement in &selector.requirements {
        let Requirement::In { key, values } = requirement else {
            unreachable!("the cluster selects by labels alone");
        };
        labels.extend(values.first().map(|value| (key.clone(), json!(value))));
    }
    if labels.is_empty() {
        json!({})
    } else {
        json!({"matchLabels": labels})
    }
}

fn node(node: &Node) -> Value {
    let address = |address| json!({"type": "InternalIP", "address": address});
    let addresses: Vec<Value> = node.addresses.iter().map(address).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": node.labels},
        "status": {"addresses": addresses},
    })
}

fn workload(pod: &Workload) -> Value {
    let port = |port: &agent_policy::model::NamedPort| json!({"name": port.name, "containerPort": port.port, "protocol": port.protocol});
    let ports: Vec<Value> = pod.ports.iter().map(port).collect();
    let addresses: Vec<Value> = pod.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": pod.name.namespace,
            "name": pod.name.name,
            "labels": pod.labels,
        },
        "spec": {"nodeName": pod.node, "containers": [{"name": "main", "ports": ports}]},
        "status": {"phase": "Running", "podIPs": addresses},
    })
}

fn service(service: &Service) -> Value {
    let port = |port: &agent_policy::model::ServicePort| {
        let target = match &port.target {
            PortName::Number(number) => json!(number),
            PortName::Name(name) => json!(name),
        };
        json!({
            "name": port.name,
            "protocol": port.protocol,
            "port": port.port,
            "targetPort": target,
        })
    };
    let ports: Vec<Value> = service.ports.iter().map(port).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": service.name.namespace, "name": service.name.name},
        "spec": {
            "selector": service.selector,
            "clusterIPs": service.addresses,
            "ports": ports,
        },
    })
}

fn documents(objects: impl Iterator<Item = Value>) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        block(&object, 0, &mut text);
    }
    text
}

/// Block style, as manifests are: one field or item a line.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) => {
            for (at, (key, value)) in fields.iter().enumerate() {
                // What follows a dash stands on its line.
                if at > 0 || !text.ends_with("- ") {
                    text.extend(std::iter::repeat_n(' ', indent));
                }
                write!(text, "{}:", scalar(&json!(key))).expect("a text takes all");
                field(value, indent, text);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.extend(std::iter::repeat_n(' ', indent));
                text.push_str("- ");
                if is_inline(item) {
                    text.push_str(&scalar(item));
                    text.push('\n');
                } else {
                    block(item, indent + 2, text);
                }
            }
        }
        other => text.push_str(&scalar(other)),
    }
}

fn field(value: &Value, indent: usize, text: &mut String) {
    if is_inline(value) {
        text.push(' ');
        text.push_str(&scalar(value));
        text.push('\n');
    } else {
        text.push('\n');
        let more = if value.is_array() { 0 } else { 2 };
        block(value, indent + more, text);
    }
}

fn is_inline(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

/// Plain where nothing else could be read from it.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(word)
            if word.starts_with(|c: char| c.is_ascii_alphabetic())
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-./".contains(c)) =>
        {
            word.clone()
        }
        other => other.to_string(),
    }
}
