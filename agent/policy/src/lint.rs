//! Policies that are valid and probably not what their author means.
//!
//! Has its own small selector match, as each evaluator has: a lint that shared theirs would be
//! wrong together with them.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    diagnostic::{Diagnostic, Position, Severity},
    load::ParsedFile,
    model::{Labels, NetworkPolicy, ObjectName, Protocol, Requirement, Selector, World},
    parse::{Declared, PortUse},
};

pub(crate) fn run(world: &World, files: &[ParsedFile], problems: &mut Vec<Diagnostic>) {
    // A folder of policies alone is no mistake: the inventory comes from elsewhere.
    if world.workloads.is_empty() {
        return;
    }
    let ports: BTreeSet<(&str, Protocol)> = world
        .workloads
        .values()
        .flat_map(|workload| &workload.ports)
        .map(|port| (port.name.as_str(), port.protocol))
        .collect();
    for file in files {
        for object in &file.objects {
            let uses = match &object.declared {
                Declared::Policy { policy, uses } => {
                    selects_nothing(world, policy, object.at, &file.name, problems);
                    uses
                }
                Declared::TierPolicy { policy: _, uses } => uses,
                Declared::Namespace { .. }
                | Declared::Workload { .. }
                | Declared::Node(_)
                | Declared::Service(_)
                | Declared::NameTable { .. }
                | Declared::Test(_) => continue,
            };
            for port in uses {
                unknown_port(&ports, port, &file.name, problems);
            }
        }
    }
}

fn selects_nothing(
    world: &World,
    policy: &NetworkPolicy,
    at: Position,
    file: &Arc<str>,
    problems: &mut Vec<Diagnostic>,
) {
    let NetworkPolicy { name, subject, .. } = policy;
    // Only its own namespace: a cluster has thousands of policies and far more workloads.
    let selected = world
        .workloads
        .range(ObjectName::new(name.namespace.clone(), "")..)
        .take_while(|(workload, _)| workload.namespace == name.namespace)
        .any(|(_, workload)| !workload.host_network && matches(subject, &workload.labels));
    if !selected {
        let message = format!("policy `{name}` selects no workload");
        problems.push(
            Diagnostic::new(Severity::Warning, file, at, "selects-nothing", message)
                .at_path("spec.podSelector")
                .with_hint("check the namespace and the labels of `podSelector`"),
        );
    }
}

fn unknown_port(
    ports: &BTreeSet<(&str, Protocol)>,
    used: &PortUse,
    file: &Arc<str>,
    problems: &mut Vec<Diagnostic>,
) {
    let PortUse {
        at,
        path,
        name,
        protocol,
    } = used;
    let known = match protocol {
        Some(protocol) => ports.contains(&(name.as_str(), *protocol)),
        None => ports.iter().any(|(known, _)| known == name),
    };
    if !known {
        let message = match protocol {
            Some(protocol) => format!("no workload has a {protocol} port named `{name}`"),
            None => format!("no workload has a port named `{name}`"),
        };
        problems.push(
            Diagnostic::new(Severity::Warning, file, *at, "unknown-port-name", message)
                .at_path(path.clone())
                .with_hint("a name that does not resolve matches nothing"),
        );
    }
}

fn matches(selector: &Selector, labels: &Labels) -> bool {
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
