//! An end of a flow as one of Hubble's endpoints.

use std::collections::BTreeMap;

use agent_hubble_proto::flow::{Endpoint, Service, Workload};
use sha2::{Digest as _, Sha256};

use super::Home;
use crate::flow::record::{End, WorkloadRef};

/// Identities that have names.
const UNKNOWN: (u32, &str) = (0, "reserved:unknown");
const HOST: (u32, &str) = (1, "reserved:host");
const WORLD: (u32, &str) = (2, "reserved:world");
const REMOTE_NODE: (u32, &str) = (6, "reserved:remote-node");

/// Of what is reached by a Service.
const SERVICE_LABEL: &str = "ringfence:service";

/// Below are those that have names, above those that are of one node alone.
const OWN_IDENTITIES: std::ops::Range<u32> = 256..1 << 24;

/// Of what is told there.
pub(super) fn of(end: &End, home: &Home) -> Endpoint {
    match (&end.workload, service(end), end.ip) {
        (Some(workload), ..) if workload.namespace.is_empty() => of_node(workload, home),
        (Some(workload), ..) => of_workload(workload, home),
        (None, Some(service), _) => of_service(service, home),
        (None, None, Some(_)) => reserved(WORLD),
        // An endpoint that is gone, in a sum of denials.
        (None, None, None) => reserved(UNKNOWN),
    }
}

fn reserved((identity, label): (u32, &str)) -> Endpoint {
    Endpoint {
        identity,
        labels: vec![label.to_owned()],
        ..Endpoint::default()
    }
}

fn of_node(workload: &WorkloadRef, home: &Home) -> Endpoint {
    let which = if *workload.name == *home.node {
        HOST
    } else {
        REMOTE_NODE
    };
    let mut endpoint = reserved(which);
    endpoint.labels.extend(labels("node", &workload.labels));
    Endpoint {
        // Without a name of a pod: who reads it shows the address.
        workloads: vec![named(workload)],
        cluster_name: home.cluster.to_string(),
        ..endpoint
    }
}

fn of_workload(workload: &WorkloadRef, home: &Home) -> Endpoint {
    let is_pod = workload.kind == "Pod";
    let source = if is_pod { "k8s" } else { "host" };
    let mut labels: Vec<String> = labels(source, &workload.labels).collect();
    if is_pod {
        let namespace = &workload.namespace;
        labels.push(format!("k8s:io.kubernetes.pod.namespace={namespace}"));
        labels.sort();
    }
    Endpoint {
        id: 0,
        identity: identity(parts(workload)),
        namespace: workload.namespace.clone(),
        labels,
        pod_name: workload.name.clone(),
        workloads: vec![named(workload)],
        cluster_name: home.cluster.to_string(),
    }
}

/// Not the world, which Hubble's UI takes for another sight of the same flow, and leaves out.
fn of_service(service: Service, home: &Home) -> Endpoint {
    let Service { name, namespace } = service;
    let label = format!("{SERVICE_LABEL}={name}");
    Endpoint {
        identity: identity([&namespace, SERVICE_LABEL, &name].into_iter()),
        namespace,
        labels: vec![label],
        // Without a name of a pod: who reads it shows the Service.
        workloads: vec![Workload {
            name,
            kind: "Service".to_owned(),
        }],
        cluster_name: home.cluster.to_string(),
        ..Endpoint::default()
    }
}

/// Where nobody is that has a name of its own: who reads it shows the namespace of a Service with the name of a pod.
pub(super) fn service(end: &End) -> Option<Service> {
    let (namespace, name) = end.service.as_deref()?.split_once('/')?;
    end.workload.is_none().then(|| Service {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
    })
}

fn named(workload: &WorkloadRef) -> Workload {
    let owner = workload.owner.as_deref();
    let (kind, name) = owner
        .and_then(|owner| owner.split_once('/'))
        .unwrap_or((&workload.kind, &workload.name));
    Workload {
        name: name.to_owned(),
        kind: kind.to_owned(),
    }
}

fn labels(source: &str, labels: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    labels.iter().map(move |(key, value)| {
        if value.is_empty() {
            format!("{source}:{key}")
        } else {
            format!("{source}:{key}={value}")
        }
    })
}

/// Namespace and labels, or else name.
fn parts(workload: &WorkloadRef) -> impl Iterator<Item = &str> {
    let labels = workload.labels.iter();
    let labels = labels.flat_map(|(key, value)| [&**key, &**value]);
    let name = Some(&*workload.name).filter(|_| workload.labels.is_empty());
    std::iter::once(&*workload.namespace)
        .chain(labels)
        .chain(name)
}

/// On every node and in every run the same. Two may share one by chance: among a thousand, in one cluster of thirty.
fn identity<'p>(parts: impl Iterator<Item = &'p str>) -> u32 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let digest = hash.finalize();
    let number = digest
        .iter()
        .take(4)
        .fold(0, |number, byte| number << 8 | u32::from(*byte));
    OWN_IDENTITIES.start + number % (OWN_IDENTITIES.end - OWN_IDENTITIES.start)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{flow::record::Fragment, hubble::tests::home};

    fn workload(kind: &'static str, namespace: &str, name: &str, app: &str) -> WorkloadRef {
        WorkloadRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            kind: kind.into(),
            owner: None,
            labels: Arc::new(BTreeMap::from([("app".to_owned(), app.to_owned())])),
            json: Fragment::default(),
        }
    }

    fn at(workload: WorkloadRef) -> Endpoint {
        let end = End {
            ip: Some([10, 0, 0, 1].into()),
            port: None,
            workload: Some(Arc::new(workload)),
            service: None,
            dns_name: None,
        };
        of(&end, &home())
    }

    #[test]
    fn a_pod_s_workload_is_who_keeps_it_up() {
        let mut pod = workload("Pod", "shop", "api-5d9f-x7", "api");
        pod.owner = Some("Deployment/api".into());
        let [named] = &at(pod).workloads[..] else {
            panic!("one workload")
        };
        assert_eq!((&*named.kind, &*named.name), ("Deployment", "api"));
    }

    #[test]
    fn replicas_share_an_identity_and_others_do_not() {
        let one = at(workload("Pod", "shop", "api-0", "api"));
        assert_eq!(
            one.identity,
            at(workload("Pod", "shop", "api-1", "api")).identity
        );
        assert_ne!(
            one.identity,
            at(workload("Pod", "edge", "api-0", "api")).identity
        );
        assert_ne!(
            one.identity,
            at(workload("Pod", "shop", "api-0", "db")).identity
        );
        assert!(OWN_IDENTITIES.contains(&one.identity));
        // It is the same in each version.
        assert_eq!(one.identity, 13_088_823);
        assert_eq!(
            one.labels,
            ["k8s:app=api", "k8s:io.kubernetes.pod.namespace=shop"]
        );
    }

    #[test]
    fn nodes_and_strangers_have_reserved_identities() {
        let own = at(workload("Node", "", "node-1", ""));
        assert_eq!((own.identity, own.pod_name.as_str()), (1, ""));
        assert_eq!(own.labels, ["reserved:host", "node:app"]);
        assert_eq!(at(workload("Node", "", "node-2", "")).identity, 6);
        let stranger = End {
            ip: Some([192, 0, 2, 1].into()),
            ..End::default()
        };
        let stranger = of(&stranger, &home());
        assert_eq!(
            (stranger.identity, stranger.labels),
            (2, vec!["reserved:world".to_owned()])
        );
        assert_eq!(of(&End::default(), &home()).identity, 0);
    }
}
