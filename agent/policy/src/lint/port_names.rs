//! `unknown-port-name`: a name for a port that nobody's port has.

use std::collections::BTreeSet;

use super::findings::Findings;
use crate::{
    diagnostic::{Diagnostic, Severity},
    load::ParsedFile,
    model::{Protocol, World},
    parse::{Declared, PortUse},
};

type Known<'a> = BTreeSet<(&'a str, Protocol)>;

pub(super) fn run(world: &World, files: &[ParsedFile], findings: &mut Findings<'_>) {
    if world.workloads.is_empty() {
        return;
    }
    let workloads = world.workloads.values();
    let known: Known<'_> = workloads
        .flat_map(|workload| &workload.ports)
        .map(|port| (port.name.as_str(), port.protocol))
        .collect();
    for file in files {
        for object in &file.objects {
            let uses = match &object.declared {
                Declared::Policy { policy: _, uses } | Declared::TierPolicy { policy: _, uses } => {
                    uses
                }
                Declared::Namespace { .. }
                | Declared::Workload { .. }
                | Declared::Node { .. }
                | Declared::Service { .. }
                | Declared::NameTable { .. }
                | Declared::Test(_) => continue,
            };
            for used in uses {
                unknown(&known, used, file, findings);
            }
        }
    }
}

fn unknown(known: &Known<'_>, used: &PortUse, file: &ParsedFile, findings: &mut Findings<'_>) {
    let PortUse {
        at,
        path,
        name,
        protocol,
    } = used;
    let any = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocols = protocol.as_ref().map_or(&any[..], std::slice::from_ref);
    let is_known = |protocol: &Protocol| known.contains(&(name.as_str(), *protocol));
    if !protocols.iter().any(is_known) {
        let message = match protocol {
            Some(protocol) => format!("no workload has a {protocol} port named `{name}`"),
            None => format!("no workload has a port named `{name}`"),
        };
        let (severity, code) = (Severity::Warning, "unknown-port-name");
        findings.push(
            Diagnostic::new(severity, &file.name, *at, code, message)
                .at_path(path.clone())
                .with_hint("a name that does not resolve matches nothing"),
        );
    }
}
