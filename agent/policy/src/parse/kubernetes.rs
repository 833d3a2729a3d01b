//! The kinds of core/v1 that tell who lives where: read for facts, tolerant of all else.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    AddressMarks, Declared, Object as Parsed, WorkloadMarks, address,
    metadata::{self, Form},
    names, port,
    reader::{Field, Object},
};
use crate::{
    model::{NamedPort, Node, Protocol, Workload, WorkloadKind},
    yaml::Value,
};

pub(super) fn namespace(mut object: Object<'_>) -> Option<Parsed> {
    let metadata = metadata::read(&mut object, names::LABEL, Form::Inventory)?;
    let metadata::Metadata {
        at,
        name,
        namespace: _,
        labels,
        owner: _,
        terms: _,
    } = metadata;
    object.tolerate_unknown();
    Some(Parsed {
        at,
        declared: Declared::Namespace { name, labels },
    })
}

/// `None` also for a pod that has ended: its address is free for the next one.
pub(super) fn pod(mut object: Object<'_>) -> Option<Parsed> {
    let source = object.field().source();
    let metadata = metadata::read(&mut object, names::SUBDOMAIN, Form::Inventory);
    let mut node = None;
    let mut host_network = false;
    let mut ports = Ports::default();
    if let Some(mut spec) = object.require("spec").and_then(|field| field.object()) {
        node = spec
            .get("nodeName")
            .and_then(|field| names::SUBDOMAIN.read(&field));
        host_network = spec
            .get("hostNetwork")
            .and_then(|field| field.boolean())
            .unwrap_or_default();
        for container in spec.items("containers") {
            container_ports(&container, Container::Main, &mut ports);
        }
        for container in spec.items("initContainers") {
            container_ports(&container, Container::Init, &mut ports);
        }
        spec.tolerate_unknown();
    }
    let mut marks = AddressMarks::new();
    let mut ended = false;
    let mut ready = true;
    if let Some(mut status) = object.get("status").and_then(|field| field.object()) {
        ended = status
            .get("phase")
            .and_then(|field| field.string())
            .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
        let first = status.get("podIP");
        let all = status.items("podIPs").into_iter().filter_map(|item| {
            let mut item = item.object()?;
            let ip = item.get("ip");
            item.tolerate_unknown();
            ip
        });
        for field in first.into_iter().chain(all) {
            let written = Some(&field).filter(|field| !is_empty(field));
            address::mark(written, &mut marks);
        }
        ready = is_ready(&mut status);
        status.tolerate_unknown();
    }
    object.tolerate_unknown();
    let metadata = metadata.filter(|_| !ended)?;
    let workload = Workload {
        name: metadata.object_name(),
        kind: WorkloadKind::Pod,
        labels: Arc::new(metadata.labels),
        owner: metadata.owner.map(Arc::from),
        addresses: marks.keys().copied().collect(),
        ports: ports.listed,
        node,
        host_network,
        ready,
        endpoint: None,
        source,
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Workload {
            workload: workload.into(),
            marks: WorkloadMarks {
                addresses: marks.into_iter().collect(),
                endpoint: None,
            },
        },
    })
}

/// A pod that says nothing about it is ready: whoever writes one by hand leaves it out.
fn is_ready(status: &mut Object<'_>) -> bool {
    let mut ready = true;
    for item in status.items("conditions") {
        let Some(mut item) = item.object() else {
            continue;
        };
        let kind = item.require("type").and_then(|field| field.string());
        let state = item.require("status").and_then(|field| field.string());
        item.tolerate_unknown();
        if kind == Some("Ready") {
            ready = state == Some("True");
        }
    }
    ready
}

/// Ports by their names; the same name again is the same port of another container.
#[derive(Default)]
struct Ports {
    listed: Vec<NamedPort>,
    seen: BTreeSet<(String, u16, Protocol)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Main,
    /// Runs beside the main ones only as a sidecar, that is with `restartPolicy: Always`.
    Init,
}

fn container_ports(field: &Field<'_>, container: Container, ports: &mut Ports) {
    let Some(mut object) = field.object() else {
        return;
    };
    let always = object
        .get("restartPolicy")
        .and_then(|field| field.string())
        .is_some_and(|policy| policy == "Always");
    let items = object.items("ports");
    object.tolerate_unknown();
    for item in items {
        let Some(mut item) = item.object() else {
            continue;
        };
        let name = item.get("name").filter(|field| !is_empty(field));
        let name = name.map(|field| names::PORT_NAME.read(&field));
        let port = item
            .require("containerPort")
            .and_then(|field| port::number(&field));
        let protocol = port::protocol(item.get("protocol"));
        item.tolerate_unknown();
        if let (Some(Some(name)), Some(port), Some(protocol)) = (name, port, protocol)
            && (container == Container::Main || always)
            && ports.seen.insert((name.clone(), port, protocol))
        {
            ports.listed.push(NamedPort {
                name,
                port,
                protocol,
            });
        }
    }
}

pub(super) fn node(mut object: Object<'_>) -> Option<Parsed> {
    let source = object.field().source();
    let metadata = metadata::read(&mut object, names::SUBDOMAIN, Form::Inventory);
    let mut marks = AddressMarks::new();
    if let Some(mut status) = object.get("status").and_then(|field| field.object()) {
        for item in status.items("addresses") {
            let Some(mut item) = item.object() else {
                continue;
            };
            let kind = item.require("type").and_then(|field| field.string());
            let address = item.require("address");
            item.tolerate_unknown();
            if matches!(kind, Some("InternalIP" | "ExternalIP")) {
                address::mark(address.as_ref(), &mut marks);
            }
        }
        status.tolerate_unknown();
    }
    object.tolerate_unknown();
    let metadata::Metadata {
        at,
        name,
        namespace: _,
        labels,
        owner: _,
        terms: _,
    } = metadata?;
    let node = Node {
        name,
        labels: labels.into(),
        addresses: marks.keys().copied().collect(),
        source,
    };
    Some(Parsed {
        at,
        declared: Declared::Node {
            node: node.into(),
            addresses: marks,
        },
    })
}

/// The API writes an empty string where it means that there is none.
pub(super) fn is_empty(field: &Field<'_>) -> bool {
    matches!(&field.node().value, Value::String(text) if text.is_empty())
}
