//! Label selectors.

use crate::model::{Labels, NamespaceScope, Peer, Requirement, Selector, Workload, World};

/// Whether all requirements hold. `NotIn` and `DoesNotExist` hold where the key is absent.
pub(super) fn matches(selector: &Selector, labels: &Labels) -> bool {
    selector
        .requirements
        .iter()
        .all(|requirement| match requirement {
            Requirement::In { key, values } => {
                labels.get(key).is_some_and(|value| values.contains(value))
            }
            Requirement::NotIn { key, values } => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists { key } => labels.contains_key(key),
            Requirement::DoesNotExist { key } => !labels.contains_key(key),
        })
}

/// Whether a peer names this workload by its labels.
pub(super) fn names(world: &World, peer: &Peer, workload: &Workload) -> bool {
    let Peer::Workloads {
        namespaces,
        workloads,
    } = peer
    else {
        return false;
    };
    let in_namespace = match namespaces {
        NamespaceScope::Named(name) => *name == workload.name.namespace,
        NamespaceScope::Matching(selector) => world
            .namespaces
            .get(&workload.name.namespace)
            .is_some_and(|labels| matches(selector, labels)),
    };
    in_namespace && matches(workloads, &workload.labels)
}
