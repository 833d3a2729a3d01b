//! `default-namespace`: objects that do not say where they are, among others that do.
//!
//! Said once for each file: whoever leaves the namespace out mostly does so everywhere, and `kubectl`
//! puts in that of its context.

use super::findings::Findings;
use crate::{
    diagnostic::{Diagnostic, Severity},
    load::ParsedFile,
    model::World,
    parse::{DEFAULT_NAMESPACE, Declared, Object},
};

pub(super) fn run(world: &World, files: &[ParsedFile], findings: &mut Findings<'_>) {
    let is_other = |name: &String| name != DEFAULT_NAMESPACE;
    if !world.namespaces.keys().any(is_other) {
        // Everything is in one place, wherever that may be.
        return;
    }
    for file in files {
        let is_unsaid = |object: &&Object| {
            is_namespaced(&object.declared) && file.without_namespace.contains(&object.at)
        };
        let mut unsaid = file.objects.iter().filter(is_unsaid);
        let Some(first) = unsaid.next() else { continue };
        let more = match unsaid.count() {
            0 => String::new(),
            1 => ", as does 1 more object of this file".to_owned(),
            count => format!(", as do {count} more objects of this file"),
        };
        let message =
            format!("no `metadata.namespace`: the object belongs to `{DEFAULT_NAMESPACE}`{more}");
        let (severity, code) = (Severity::Note, "default-namespace");
        findings.push(
            Diagnostic::new(severity, &file.name, first.at, code, message)
                .at_path("metadata.namespace")
                .with_hint(format!(
                    "write `namespace: {DEFAULT_NAMESPACE}` if that is meant"
                )),
        );
    }
}

fn is_namespaced(declared: &Declared) -> bool {
    match declared {
        Declared::Workload { .. } | Declared::Service { .. } | Declared::Policy { .. } => true,
        Declared::Namespace { .. }
        | Declared::Node { .. }
        | Declared::TierPolicy { .. }
        | Declared::NameTable { .. }
        | Declared::Test(_) => false,
    }
}
