//! `Workload` of `ringfence.io/v1alpha1`: what policies select where there is no Kubernetes.

use std::{
    collections::{BTreeSet, btree_map::Entry},
    sync::Arc,
};

use super::{
    AddressMarks, Declared, Object as Parsed, WorkloadMarks, address, endpoint,
    metadata::{self, Annotations, Form},
    names, port,
    reader::{Field, Object},
};
use crate::model::{NamedPort, Workload, WorkloadKind};

pub(super) fn read(mut object: Object<'_>) -> Option<Parsed> {
    let source = object.field().source();
    let metadata = metadata::read(
        &mut object,
        names::SUBDOMAIN,
        Form::Namespaced(Annotations::Ignored),
    );
    let spec = object.require("spec").and_then(|field| field.object());
    object.deny_unknown();

    let mut spec = spec?;
    let marked = addresses(&mut spec);
    let ports = ports(&mut spec);
    let node = spec
        .get("node")
        .and_then(|field| names::SUBDOMAIN.read(&field));
    let place = spec.get("endpoint");
    let endpoint = place.as_ref().and_then(endpoint::read);
    let marks = WorkloadMarks {
        endpoint: place.as_ref().map(Field::at),
        addresses: marked.into_iter().collect(),
    };
    spec.deny_unknown();

    let metadata = metadata?;
    let workload = Workload {
        name: metadata.object_name(),
        kind: WorkloadKind::Workload,
        labels: Arc::new(metadata.labels),
        owner: None,
        addresses: marks
            .addresses
            .iter()
            .map(|(address, _)| *address)
            .collect(),
        ports,
        node,
        host_network: false,
        ready: true,
        endpoint,
        source,
    };
    Some(Parsed {
        at: metadata.at,
        declared: Declared::Workload {
            workload: workload.into(),
            marks,
        },
    })
}

fn addresses(spec: &mut Object<'_>) -> AddressMarks {
    let mut marks = AddressMarks::new();
    for item in spec.items("addresses") {
        let Some(address) = address::own_address(&item) else {
            continue;
        };
        match marks.entry(address) {
            Entry::Vacant(entry) => {
                entry.insert(item.at());
            }
            Entry::Occupied(_) => {
                let message = format!("address `{address}` is listed twice");
                item.error("duplicate-address", message);
            }
        }
    }
    marks
}

fn ports(spec: &mut Object<'_>) -> Vec<NamedPort> {
    let mut ports: Vec<NamedPort> = Vec::new();
    let mut taken = BTreeSet::new();
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
        if !taken.insert((name.clone(), protocol)) {
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
