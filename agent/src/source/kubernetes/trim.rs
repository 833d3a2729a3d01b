//! Of an object, what the parsers read: a pod of 10 KiB has 500 bytes of it.

use std::collections::BTreeMap;

use agent_policy::model::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};

use super::{address, kind::Kind, slice};

/// What the labels of an object may take, together. More than that is nobody's way to tell pods apart: who may make
/// pods would fill the memory of every node by it.
const LABELS: usize = 64 << 10;

/// Of the annotations, those that say how a policy is meant.
const OURS: &str = "ringfence.io/";

/// A static pod's UID as its node knows it, where the API has another one of its mirror.
pub(super) const STATIC_UID: &str = "kubernetes.io/config.hash";
pub(super) const STATIC_MIRROR: &str = "kubernetes.io/config.mirror";

/// The object as it is parsed and kept, and what was wrong with its size.
pub(super) fn trim(kind: Kind, object: DynamicObject) -> (Value, Option<String>) {
    let DynamicObject {
        types: _,
        metadata,
        data,
    } = object;
    let mut labels = metadata.labels.unwrap_or_default();
    labels.retain(|key, _| is_read(kind, key));
    let (labels, excess) = bounded(labels);
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.retain(|key, _| is_ours(kind, key));
    let mut kept = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            kept.insert(key.to_owned(), value);
        }
    };
    put("name", metadata.name.map(Value::String));
    put("namespace", metadata.namespace.map(Value::String));
    put("uid", metadata.uid.map(Value::String));
    put(
        "creationTimestamp",
        metadata.creation_timestamp.map(|time| json!(time)),
    );
    put(
        "deletionTimestamp",
        metadata.deletion_timestamp.map(|time| json!(time)),
    );
    if kind == Kind::Pod {
        put("ownerReferences", controller(metadata.owner_references));
    }
    if let Kind::NetworkPolicy | Kind::ClusterNetworkPolicy | Kind::RingfencePolicy = kind {
        put("generation", metadata.generation.map(Value::from));
    }
    put("labels", (!labels.is_empty()).then(|| json!(labels)));
    put(
        "annotations",
        (!annotations.is_empty()).then(|| json!(annotations)),
    );
    let resource = kind.resource();
    let mut whole = Map::new();
    whole.insert("apiVersion".to_owned(), json!(resource.api_version));
    whole.insert("kind".to_owned(), json!(resource.kind));
    whole.insert("metadata".to_owned(), Value::Object(kept));
    let Value::Object(mut data) = data else {
        return (Value::Object(whole), excess);
    };
    match kind {
        Kind::Namespace => {}
        Kind::Node => {
            only(&mut data, "status", &["addresses"]);
            data.retain(|key, _| key == "status");
        }
        Kind::Service => {
            let spec = [
                "type",
                "selector",
                "clusterIP",
                "clusterIPs",
                "externalIPs",
                "ports",
                "publishNotReadyAddresses",
            ];
            only(&mut data, "spec", &spec);
            only(&mut data, "status", &["loadBalancer"]);
            data.retain(|key, _| key == "spec" || key == "status");
            let spec = data.get_mut("spec").and_then(Value::as_object_mut);
            for (field, value) in spec.into_iter().flatten() {
                if matches!(field.as_str(), "clusterIP" | "clusterIPs" | "externalIPs") {
                    address::normalize(value);
                }
            }
        }
        Kind::EndpointSlice => slice::trim(&mut data),
        Kind::Pod => {
            pod(&mut data);
            data.retain(|key, _| key == "spec" || key == "status");
        }
        Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::RingfencePolicy
        | Kind::NameTable
        | Kind::Workload => {
            // Everything but that counts: what no parser knows is an error.
            data.remove("status");
        }
    }
    if kind != Kind::Namespace {
        whole.append(&mut data);
    }
    (Value::Object(whole), excess)
}

/// Of owners, the one that keeps it up, and of that its kind and its name.
fn controller(owners: Option<Vec<OwnerReference>>) -> Option<Value> {
    let mut owners = owners.unwrap_or_default().into_iter();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(json!([{"kind": owner.kind, "name": owner.name, "controller": true}]))
}

fn pod(data: &mut Map<String, Value>) {
    let spec = ["nodeName", "hostNetwork", "containers", "initContainers"];
    only(data, "spec", &spec);
    if let Some(Value::Object(spec)) = data.get_mut("spec") {
        for list in ["containers", "initContainers"] {
            let Some(Value::Array(containers)) = spec.get_mut(list) else {
                continue;
            };
            containers.retain_mut(|container| match container {
                Value::Object(container) => {
                    container.retain(|key, _| key == "ports" || key == "restartPolicy");
                    container.contains_key("ports")
                }
                // For the parser to refuse.
                _ => true,
            });
        }
        spec.retain(|_, value| !matches!(value, Value::Array(list) if list.is_empty()));
    }
    only(data, "status", &["phase", "podIP", "podIPs", "conditions"]);
    let Some(Value::Object(status)) = data.get_mut("status") else {
        return;
    };
    if let Some(Value::Array(conditions)) = status.get_mut("conditions") {
        conditions.retain_mut(|condition| {
            if let Value::Object(condition) = condition {
                condition.retain(|key, _| key == "type" || key == "status");
            }
            condition.get("type").is_none_or(|kind| kind == "Ready")
        });
    }
}

/// Whether an annotation does, to a parser.
fn is_ours(kind: Kind, annotation: &str) -> bool {
    match kind {
        Kind::Pod => annotation == STATIC_UID || annotation == STATIC_MIRROR,
        Kind::Namespace | Kind::Node | Kind::Service | Kind::EndpointSlice => false,
        Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::RingfencePolicy
        | Kind::NameTable
        | Kind::Workload => annotation.starts_with(OURS),
    }
}

/// Whether a label says something to anybody. Of these kinds it is only what others' software writes there.
fn is_read(kind: Kind, label: &str) -> bool {
    match kind {
        Kind::Service => Service::OTHER_PROXY.contains(&label),
        Kind::EndpointSlice => slice::LABELS.contains(&label),
        Kind::Namespace
        | Kind::Node
        | Kind::NetworkPolicy
        | Kind::ClusterNetworkPolicy
        | Kind::RingfencePolicy
        | Kind::NameTable
        | Kind::Pod
        | Kind::Workload => true,
    }
}

fn only(data: &mut Map<String, Value>, field: &str, known: &[&str]) {
    if let Some(Value::Object(object)) = data.get_mut(field) {
        object.retain(|key, _| known.contains(&key.as_str()));
    }
}

/// All labels, or none and what is wrong: with some of them the object would be another one to policies.
fn bounded(labels: BTreeMap<String, String>) -> (BTreeMap<String, String>, Option<String>) {
    let size = |(key, value): (&String, &String)| key.len() + value.len();
    let all: usize = labels.iter().map(size).sum();
    if all <= LABELS {
        return (labels, None);
    }
    let count = labels.len();
    let message = format!("{count} labels of {all} bytes, expected at most {LABELS} bytes");
    (BTreeMap::new(), Some(message))
}
