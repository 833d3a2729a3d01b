//! `Workload` of `ringfence.io/v1alpha1`: what policies select where there is no Kubernetes.

use std::collections::BTreeSet;

use super::{
    Declared, Object as Parsed, WorkloadMarks, address, metadata, names, port,
    reader::{Field, Object, Unknown},
};
use crate::{
    model::{EndpointSpec, NamedPort, Source, Workload, WorkloadKind},
    yaml::quote,
};

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let field = object.field();
    let source = Source {
        file: field.report().file(),
        line: field.at().line,
    };
    let metadata = metadata::read(&mut object, names::SUBDOMAIN, Unknown::Deny);
    let spec = object.require("spec").and_then(|field| field.object());
    object.tolerate(&["apiVersion", "kind"]);
    object.deny_unknown();

    let mut spec = spec?;
    let mut marks = WorkloadMarks::default();
    let addresses = addresses(&mut spec, &mut marks);
    let ports = ports(&mut spec);
    let node = spec
        .get("node")
        .and_then(|field| names::SUBDOMAIN.read(&field));
    let place = spec.get("endpoint");
    let endpoint = place.as_ref().and_then(endpoint);
    marks.endpoint = place.as_ref().map(Field::at);
    spec.deny_unknown();

    let metadata = metadata?;
    let workload = Workload {
        name: metadata.object_name(),
        kind: WorkloadKind::Workload,
        labels: metadata.labels,
        addresses,
        ports,
        node,
        host_network: false,
        ready: true,
        endpoint,
        source,
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Workload { workload, marks },
    })
}

fn addresses(spec: &mut Object<'_>, marks: &mut WorkloadMarks) -> BTreeSet<std::net::IpAddr> {
    let mut addresses = BTreeSet::new();
    for item in spec.items("addresses") {
        let Some(address) = address::own_address(&item) else {
            continue;
        };
        if addresses.insert(address) {
            marks.addresses.insert(address, item.at());
        } else {
            let message = format!("address `{address}` is listed twice");
            item.error("duplicate-address", message);
        }
    }
    addresses
}

fn ports(spec: &mut Object<'_>) -> Vec<NamedPort> {
    let mut ports: Vec<NamedPort> = Vec::new();
    for item in spec.items("ports") {
        let Some(mut object) = item.object() else {
            continue;
        };
        let name = object
            .require("name")
            .and_then(|field| names::PORT_NAME.read(&field));
        let port = object
            .require("port")
            .and_then(|field| port::number(&field));
        let protocol = port::protocol(object.get("protocol"));
        object.deny_unknown();
        let (Some(name), Some(port), Some(protocol)) = (name, port, protocol) else {
            continue;
        };
        if ports
            .iter()
            .any(|other| other.name == name && other.protocol == protocol)
        {
            let message = format!("port name `{name}` is used twice for {protocol}");
            item.error("duplicate-port-name", message);
            continue;
        }
        ports.push(NamedPort {
            name,
            port,
            protocol,
        });
    }
    ports
}

fn endpoint(field: &Field<'_>) -> Option<EndpointSpec> {
    let mut object = field.object()?;
    let forms = [
        object
            .get("interface")
            .map(|field| checked(&field, interface, EndpointSpec::Interface)),
        object
            .get("netns")
            .map(|field| checked(&field, netns, EndpointSpec::Netns)),
        object
            .get("cgroup")
            .map(|field| checked(&field, cgroup, EndpointSpec::Cgroup)),
        object
            .get("systemdUnit")
            .map(|field| checked(&field, unit, EndpointSpec::SystemdUnit)),
    ];
    object.deny_unknown();
    let mut written = forms.into_iter().flatten();
    match (written.next(), written.count()) {
        (Some(endpoint), 0) => endpoint,
        (first, others) => {
            let found = others + usize::from(first.is_some());
            let message = format!(
                "{}: expected exactly one of `interface`, `netns`, `cgroup` and `systemdUnit`, \
                 found {found}",
                field.name()
            );
            field.error("endpoint-form", message);
            None
        }
    }
}

fn checked(
    field: &Field<'_>,
    expected: fn(&str) -> Option<&'static str>,
    make: fn(String) -> EndpointSpec,
) -> Option<EndpointSpec> {
    let text = field.string()?;
    if let Some(expected) = expected(text) {
        let message = format!(
            "invalid {} {}: expected {expected}",
            field.last(),
            quote(text)
        );
        field.error("invalid-endpoint", message);
        return None;
    }
    Some(make(text.to_owned()))
}

// What was expected, where the text is not it.

fn interface(name: &str) -> Option<&'static str> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace();
    (!(1..=15).contains(&name.len()) || matches!(name, "." | "..") || name.contains(bad))
        .then_some("the name of an interface: 1 to 15 bytes without `/`, `:` and white space")
}

fn netns(path: &str) -> Option<&'static str> {
    (!path.starts_with('/') || climbs(path)).then_some("an absolute path without `..`")
}

fn cgroup(path: &str) -> Option<&'static str> {
    (path.is_empty() || path.starts_with('/') || climbs(path))
        .then_some("a path below the cgroup2 root, without a leading `/` and without `..`")
}

fn unit(name: &str) -> Option<&'static str> {
    const KINDS: [&str; 4] = [".service", ".scope", ".slice", ".socket"];
    let kind = KINDS
        .iter()
        .any(|kind| name.strip_suffix(kind).is_some_and(|stem| !stem.is_empty()));
    (!kind || name.len() > 255 || name.contains('/') || name.contains(char::is_whitespace))
        .then_some("the full name of a unit, as in `nginx.service`")
}

fn climbs(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}
