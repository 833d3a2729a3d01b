//! Label selectors, and whom a policy is about.

use crate::model::{
    EndpointSpec, Labels, NamespaceScope, NetworkPolicy, Requirement, Selector, SubjectName,
    Subjects, World,
};

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

/// Whether a namespace is in a peer's scope.
pub(super) fn in_scope(world: &World, scope: &NamespaceScope, namespace: &str) -> bool {
    match scope {
        NamespaceScope::Named(name) => name == namespace,
        NamespaceScope::Matching(selector) => {
            selector.requirements.is_empty() || in_matching(world, selector, namespace)
        }
    }
}

fn in_matching(world: &World, selector: &Selector, namespace: &str) -> bool {
    world
        .namespaces
        .get(namespace)
        .is_some_and(|labels| matches(selector, labels))
}

/// Whether a `NetworkPolicy` is about a subject.
pub(super) fn isolates(world: &World, policy: &NetworkPolicy, subject: &SubjectName) -> bool {
    subject
        .workload()
        .filter(|name| name.namespace == policy.name.namespace)
        .and_then(|name| world.workloads.get(name))
        .is_some_and(|workload| {
            !workload.host_network && matches(&policy.subject, &workload.labels)
        })
}

/// Whether the subject of a ranked policy is this one.
pub(super) fn is_about(world: &World, subjects: &Subjects, subject: &SubjectName) -> bool {
    let workload = match subject {
        SubjectName::Node(name) => {
            return match subjects {
                Subjects::Nodes(selector) => world
                    .nodes
                    .get(name)
                    .is_some_and(|node| matches(selector, &node.labels)),
                Subjects::Workloads { .. } | Subjects::Units(_) | Subjects::Cgroups(_) => false,
            };
        }
        SubjectName::Workload(name) => world.workloads.get(name),
    };
    let Some(workload) = workload else {
        return false;
    };
    match subjects {
        Subjects::Workloads {
            namespaces,
            workloads,
            host_network,
        } => {
            (*host_network || !workload.host_network)
                && matches(workloads, &workload.labels)
                && in_matching(world, namespaces, &workload.name.namespace)
        }
        Subjects::Units(units) => {
            matches!(&workload.endpoint, Some(EndpointSpec::SystemdUnit(unit)) if units.contains(unit))
        }
        Subjects::Cgroups(cgroups) => {
            matches!(&workload.endpoint, Some(EndpointSpec::Cgroup(path)) if cgroups.contains(path))
        }
        Subjects::Nodes(_) => false,
    }
}
