//! The kinds of core/v1 that tell who lives where: read for facts, tolerant of all else.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    Declared, Object as Parsed, WorkloadMarks, address, metadata, names, port,
    reader::{Field, Object, Unknown},
};
use crate::{
    model::{NamedPort, Node, PortName, Service, ServicePort, Source, Workload, WorkloadKind},
    yaml::Value,
};

pub(super) fn namespace(mut object: Object<'_>) -> Option<Parsed> {
    let metadata = metadata::read(&mut object, names::LABEL, Unknown::Tolerate)?;
    let metadata::Metadata {
        at,
        name,
        namespace: _,
        labels,
    } = metadata;
    object.tolerate_unknown();
    Some(Parsed {
        at,
        declared: Declared::Namespace { name, labels },
    })
}

/// `None` also for a pod that has ended: its address is free for the next one.
pub(super) fn pod(mut object: Object<'_>) -> Option<Parsed> {
    let source = source(&object);
    let metadata = metadata::read(&mut object, names::SUBDOMAIN, Unknown::Tolerate);
    let mut node = None;
    let mut host_network = false;
    let mut ports = Vec::new();
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
    let mut marks = WorkloadMarks::default();
    let mut addresses = BTreeSet::new();
    let mut ended = false;
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
        for field in first
            .into_iter()
            .chain(all)
            .filter(|field| !is_empty(field))
        {
            if let Some(address) = address::own_address(&field) {
                addresses.insert(address);
                marks.addresses.entry(address).or_insert(field.at());
            }
        }
        status.tolerate_unknown();
    }
    object.tolerate_unknown();
    let metadata = metadata.filter(|_| !ended)?;
    let workload = Workload {
        name: metadata.object_name(),
        kind: WorkloadKind::Pod,
        labels: metadata.labels,
        addresses,
        ports,
        node,
        host_network,
        ready: true,
        endpoint: None,
        source,
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Workload { workload, marks },
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Main,
    /// Runs beside the main ones only as a sidecar, that is with `restartPolicy: Always`.
    Init,
}

fn container_ports(field: &Field<'_>, container: Container, ports: &mut Vec<NamedPort>) {
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
        {
            let one = NamedPort {
                name,
                port,
                protocol,
            };
            if !ports.contains(&one) {
                ports.push(one);
            }
        }
    }
}

pub(super) fn node(mut object: Object<'_>) -> Option<Parsed> {
    let source = source(&object);
    let metadata = metadata::read(&mut object, names::SUBDOMAIN, Unknown::Tolerate);
    let mut addresses = BTreeSet::new();
    if let Some(mut status) = object.get("status").and_then(|field| field.object()) {
        for item in status.items("addresses") {
            let Some(mut item) = item.object() else {
                continue;
            };
            let kind = item.require("type").and_then(|field| field.string());
            let address = item.require("address");
            item.tolerate_unknown();
            if matches!(kind, Some("InternalIP" | "ExternalIP")) {
                addresses.extend(address.and_then(|field| address::own_address(&field)));
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
    } = metadata?;
    let node = Node {
        name,
        labels,
        addresses,
        source,
    };
    Some(Parsed {
        at,
        declared: Declared::Node(node),
    })
}

pub(super) fn service(mut object: Object<'_>) -> Option<Parsed> {
    let source = source(&object);
    let metadata = metadata::read(&mut object, names::LABEL, Unknown::Tolerate);
    let mut selector = None;
    let mut addresses = BTreeSet::new();
    let mut ports = Vec::new();
    if let Some(mut spec) = object.require("spec").and_then(|field| field.object()) {
        // An empty selector is no selector: the endpoints are made by hand.
        selector = spec
            .get("selector")
            .map(|field| metadata::labels(&field))
            .filter(|labels| !labels.is_empty());
        addresses.extend(spec.get("clusterIP").and_then(|field| cluster_ip(&field)));
        for item in spec.items("clusterIPs") {
            addresses.extend(cluster_ip(&item));
        }
        ports = spec
            .items("ports")
            .iter()
            .filter_map(service_port)
            .collect();
        spec.tolerate_unknown();
    }
    object.tolerate_unknown();
    let metadata = metadata?;
    let name = metadata.object_name();
    let service = Service {
        name,
        selector,
        addresses,
        ports,
        publish_not_ready: false,
        last: BTreeSet::new(),
        source,
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Service(service),
    })
}

fn cluster_ip(field: &Field<'_>) -> Option<IpAddr> {
    // `None` is how the API writes that a Service is headless.
    let headless = matches!(&field.node().value, Value::String(text) if &**text == "None");
    if headless || is_empty(field) {
        None
    } else {
        address::own_address(field)
    }
}

fn service_port(field: &Field<'_>) -> Option<ServicePort> {
    let mut object = field.object()?;
    let name = object.get("name").filter(|field| !is_empty(field));
    let name = name.and_then(|field| names::LABEL.read(&field));
    let protocol = port::protocol(object.get("protocol"));
    let port = object
        .require("port")
        .and_then(|field| port::number(&field));
    let target = object
        .get("targetPort")
        .filter(|field| !is_empty(field) && field.node().value != Value::Integer(0))
        .map(|field| port::number_or_name(&field));
    object.tolerate_unknown();
    let port = port?;
    let target = target.unwrap_or(Some(PortName::Number(port)));
    Some(ServicePort {
        name,
        protocol: protocol?,
        port,
        target: target?,
        node_port: None,
    })
}

/// The API writes an empty string where it means that there is none.
fn is_empty(field: &Field<'_>) -> bool {
    matches!(&field.node().value, Value::String(text) if text.is_empty())
}

fn source(object: &Object<'_>) -> Source {
    let field = object.field();
    Source {
        file: field.report().file(),
        line: field.at().line,
    }
}
