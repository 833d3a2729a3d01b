//! `Service` of core/v1: where it is reached, and what serves it. Read for facts, but what the API
//! refuses is refused here: two ports that are one frontend would have two answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    AddressMarks, Declared, Object as Parsed, ServiceMarks, address,
    choice::Choice,
    kubernetes::is_empty,
    metadata::{self, Form},
    names, port,
    reader::{Field, Object},
};
use crate::{
    diagnostic::Position,
    model::{Backend, PortName, Protocol, Service, ServicePort},
    yaml::Value,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
    /// An alias in the DNS: no address, no port, no backend.
    ExternalName,
}

const TYPES: Choice<Type> = Choice::new(
    "type of Service",
    "unknown-service-type",
    &[
        ("ClusterIP", Type::ClusterIp),
        ("NodePort", Type::NodePort),
        ("LoadBalancer", Type::LoadBalancer),
        ("ExternalName", Type::ExternalName),
    ],
);

/// What `spec` says.
struct Spec {
    kind: Type,
    selector: Option<BTreeMap<String, String>>,
    ports: Vec<ServicePort>,
    marks: ServiceMarks,
    cluster: BTreeSet<IpAddr>,
    publish_not_ready: bool,
    is_headless: bool,
}

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let source = object.field().source();
    let metadata = metadata::read(&mut object, names::LABEL, Form::Inventory);
    let spec = object
        .require("spec")
        .and_then(|field| field.object())
        .and_then(read_spec);
    let mut balanced = AddressMarks::new();
    if let Some(status) = object.get("status").and_then(|field| field.object()) {
        balancer_addresses(status, &mut balanced);
    }
    object.tolerate_unknown();
    let metadata = metadata?;
    let Spec {
        kind,
        selector,
        ports,
        mut marks,
        cluster,
        publish_not_ready,
        is_headless,
    } = spec?;
    if !is_headless {
        for (address, at) in balanced {
            marks.addresses.entry(address).or_insert(at);
        }
    }
    let name = metadata.object_name();
    let service = if kind == Type::ExternalName {
        marks = ServiceMarks::default();
        Service {
            name,
            selector: None,
            addresses: BTreeSet::new(),
            cluster: BTreeSet::new(),
            ports: Vec::new(),
            publish_not_ready: false,
            other_proxy: false,
            by_hand: BTreeSet::new(),
            last: BTreeSet::new(),
            source,
        }
    } else {
        let addresses: BTreeSet<IpAddr> = marks.addresses.keys().copied().collect();
        let labels = &metadata.labels;
        let other_proxy = Service::OTHER_PROXY
            .iter()
            .any(|label| labels.contains_key(*label));
        let by_hand = if other_proxy {
            untranslated(&addresses, &ports)
        } else {
            BTreeSet::new()
        };
        Service {
            name,
            selector,
            addresses,
            cluster,
            ports,
            publish_not_ready,
            other_proxy,
            by_hand,
            last: BTreeSet::new(),
            source,
        }
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Service {
            service: service.into(),
            marks,
        },
    })
}

/// Where nobody may translate an address, whoever has it is reached, too.
fn untranslated(addresses: &BTreeSet<IpAddr>, ports: &[ServicePort]) -> BTreeSet<Backend> {
    let at = |address: &IpAddr| {
        let address = *address;
        ports.iter().map(move |port| Backend {
            service_port: port.port,
            protocol: port.protocol,
            address,
            port: port.port,
        })
    };
    addresses.iter().flat_map(at).collect()
}

fn read_spec(mut spec: Object<'_>) -> Option<Spec> {
    let kind = match spec.get("type") {
        None => Some(Type::ClusterIp),
        Some(field) => TYPES.read(&field),
    };
    // An empty selector is no selector: the endpoints are made by hand.
    let selector = spec
        .get("selector")
        .map(|field| metadata::labels(&field))
        .filter(|labels| !labels.is_empty());
    let mut addresses = AddressMarks::new();
    let first = spec.get("clusterIP").filter(|field| !is_empty(field));
    let all = spec.items("clusterIPs");
    if let (Some(first), Some(same)) = (&first, all.first())
        && first.node().value != same.node().value
    {
        let message = format!("{} is not the same as `spec.clusterIP`", same.name());
        same.error("cluster-ip-differs", message);
    }
    let headless = first.iter().chain(&all).any(is_headless);
    for item in first.into_iter().chain(all) {
        address::mark(
            Some(&item).filter(|item| !is_headless(item)),
            &mut addresses,
        );
    }
    let cluster = addresses.keys().copied().collect();
    for item in spec.items("externalIPs") {
        address::mark(Some(&item), &mut addresses);
    }
    let publish_not_ready = spec
        .get("publishNotReadyAddresses")
        .and_then(|field| field.boolean())
        .unwrap_or_default();
    let items = spec.items("ports");
    if items.is_empty() && !headless && kind.is_some_and(|kind| kind != Type::ExternalName) {
        spec.require_items("ports", "a headless Service (`clusterIP: None`) needs none");
    }
    let (mut ports, places): (Vec<ServicePort>, _) = ports(&items, kind).into_iter().unzip();
    if headless {
        // Nobody translates what is sent there, whatever addresses stand beside it.
        addresses.clear();
        for port in &mut ports {
            port.node_port = None;
        }
    }
    spec.tolerate_unknown();
    Some(Spec {
        kind: kind?,
        selector,
        ports,
        marks: ServiceMarks {
            addresses,
            ports: places,
        },
        cluster,
        publish_not_ready,
        is_headless: headless,
    })
}

/// The API writes `None` for it, and nothing for an address that is not given yet.
fn is_headless(field: &Field<'_>) -> bool {
    is_empty(field) || matches!(&field.node().value, Value::String(text) if &**text == "None")
}

/// Those that the nodes themselves translate.
fn balancer_addresses(mut status: Object<'_>, marks: &mut AddressMarks) {
    if let Some(mut balancer) = status.get("loadBalancer").and_then(|field| field.object()) {
        for item in balancer.items("ingress") {
            let Some(mut item) = item.object() else {
                continue;
            };
            let address = item.get("ip").filter(|field| !is_empty(field));
            // In this mode the nodes let the packet go to the balancer, as to any other address.
            let elsewhere = item
                .get("ipMode")
                .and_then(|field| field.string())
                .is_some_and(|mode| mode == "Proxy");
            item.tolerate_unknown();
            // Read in any case, for its problems.
            let mut ignored = AddressMarks::new();
            let marks = if elsewhere { &mut ignored } else { &mut *marks };
            address::mark(address.as_ref(), marks);
        }
        balancer.tolerate_unknown();
    }
    status.tolerate_unknown();
}

/// What the ports of one Service have taken already.
#[derive(Default)]
struct Taken {
    names: BTreeSet<String>,
    ports: BTreeSet<(u16, Protocol)>,
    node_ports: BTreeSet<(u16, Protocol)>,
}

fn ports(items: &[Field<'_>], kind: Option<Type>) -> Vec<(ServicePort, Position)> {
    let mut taken = Taken::default();
    let read = |item: &Field<'_>| {
        let port = service_port(item, items.len() > 1, kind, &mut taken)?;
        Some((port, item.at()))
    };
    items.iter().filter_map(read).collect()
}

fn service_port(
    field: &Field<'_>,
    one_of_many: bool,
    kind: Option<Type>,
    taken: &mut Taken,
) -> Option<ServicePort> {
    let mut object = field.object()?;
    let name_field = object.get("name").filter(|field| !is_empty(field));
    if one_of_many && name_field.is_none() {
        let message = format!(
            "{} has no name: expected one, as there are several ports",
            field.name()
        );
        field.error("missing-port-name", message);
    }
    let name = name_field
        .as_ref()
        .and_then(|field| names::LABEL.read(field));
    let protocol = port::protocol(object.get("protocol"));
    let port_field = object.require("port");
    let port = port_field.as_ref().and_then(port::number);
    let target = object
        .get("targetPort")
        .filter(|field| !is_empty(field) && field.node().value != Value::Integer(0))
        .map(|field| port::number_or_name(&field));
    let node_field = object
        .get("nodePort")
        .filter(|field| field.node().value != Value::Integer(0));
    let node_port = node_field.as_ref().map(port::number);
    object.tolerate_unknown();

    if let (Some(field), Some(Type::ClusterIp)) = (&node_field, kind) {
        field.error_with_hint(
            "unexpected-node-port",
            format!("{}: a Service of type `ClusterIP` has none", field.name()),
            "set `type: NodePort`",
        );
    }
    if let (Some(field), Some(name)) = (&name_field, &name)
        && !taken.names.insert(name.clone())
    {
        let message = format!("port name `{name}` is used twice");
        field.error("duplicate-port-name", message);
    }
    let (port, protocol) = (port?, protocol?);
    if let Some(field) = &port_field
        && !taken.ports.insert((port, protocol))
    {
        let message = format!("port {port} is used twice for {protocol}");
        field.error("duplicate-port", message);
    }
    if let (Some(field), Some(Some(node_port))) = (&node_field, node_port)
        && !taken.node_ports.insert((node_port, protocol))
    {
        let message = format!("node port {node_port} is used twice for {protocol}");
        field.error("duplicate-port", message);
    }
    Some(ServicePort {
        name,
        protocol,
        port,
        target: target.unwrap_or(Some(PortName::Number(port)))?,
        node_port: node_port.flatten(),
    })
}
