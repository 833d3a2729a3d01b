//! `shared-address` and `shared-frontend`: what leads to several objects.
//!
//! An error only where two workloads own an address, which `load` tells. All else has a meaning that
//! does not hang on an order (§5.1 of the semantics), and a cluster passes through it: an address is
//! given to the next one before the object of the last is gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use super::findings::Findings;
use crate::{
    diagnostic::{Diagnostic, Position, Severity},
    load::ParsedFile,
    model::{ObjectName, Protocol, Service, ServicePort},
    parse::{Declared, ServiceMarks},
};

const ADDRESS: &str = "shared-address";
const FRONTEND: &str = "shared-frontend";

/// Whose something is, and where that stands.
#[derive(Clone, Copy)]
struct Claim<'a> {
    owner: Owner<'a>,
    file: &'a Arc<str>,
    at: Position,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner<'a> {
    Workload(&'a ObjectName),
    Node(&'a str),
    Service(&'a ObjectName),
}

/// §2.1
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Frontend {
    Address(IpAddr, Protocol, u16),
    /// Of every node.
    NodePort(Protocol, u16),
}

type Owners<'a> = HashMap<IpAddr, Claim<'a>>;

pub(super) fn run(files: &[ParsedFile], findings: &mut Findings<'_>) {
    let mut owners = Owners::new();
    workloads(files, &mut owners);
    nodes(files, &mut owners, findings);
    services(files, &owners, findings);
}

fn objects(files: &[ParsedFile]) -> impl Iterator<Item = (&Arc<str>, &Declared)> {
    files.iter().flat_map(|file| {
        let objects = file.objects.iter();
        objects.map(|object| (&file.name, &object.declared))
    })
}

fn workloads<'a>(files: &'a [ParsedFile], owners: &mut Owners<'a>) {
    for (file, declared) in objects(files) {
        let Declared::Workload { workload, marks } = declared else {
            continue;
        };
        if workload.owns_its_addresses() {
            let owner = Owner::Workload(&workload.name);
            for (address, at) in &marks.addresses {
                let claim = Claim {
                    owner,
                    file,
                    at: *at,
                };
                owners.insert(*address, claim);
            }
        }
    }
}

fn nodes<'a>(files: &'a [ParsedFile], owners: &mut Owners<'a>, findings: &mut Findings<'_>) {
    for (file, declared) in objects(files) {
        let Declared::Node { node, addresses } = declared else {
            continue;
        };
        for (address, at) in addresses {
            let claim = Claim {
                owner: Owner::Node(&node.name),
                file,
                at: *at,
            };
            match owners.entry(*address) {
                Entry::Vacant(entry) => {
                    entry.insert(claim);
                }
                Entry::Occupied(entry) => {
                    let hint = match entry.get().owner {
                        Owner::Workload(_) => {
                            "the address is both; a pod on the network of its node says \
                             `hostNetwork: true`"
                        }
                        Owner::Node(_) | Owner::Service(_) => {
                            "a rule about either of them matches the address"
                        }
                    };
                    findings.push(shared(*address, &claim, entry.get()).with_hint(hint));
                }
            }
        }
    }
}

fn services<'a>(files: &'a [ParsedFile], owners: &Owners<'a>, findings: &mut Findings<'_>) {
    let mut frontends = BTreeMap::new();
    for (file, declared) in objects(files) {
        let Declared::Service { service, marks } = declared else {
            continue;
        };
        let owner = Owner::Service(&service.name);
        let claim = |at| Claim { owner, file, at };
        let taken = marks.addresses.iter().filter_map(|(address, at)| {
            let owner = owners.get(address)?;
            Some((*address, claim(*at), owner))
        });
        // To be reached at the addresses of nodes is common: said once, and not as a warning.
        let mut at_node = None;
        for (address, claim, owner) in taken {
            let found = shared(address, &claim, owner)
                .with_hint("on the ports of the Service, who serves behind it counts");
            match owner.owner {
                Owner::Node(_) => {
                    at_node.get_or_insert(Diagnostic {
                        severity: Severity::Note,
                        ..found
                    });
                }
                Owner::Workload(_) | Owner::Service(_) => findings.push(found),
            }
        }
        if let Some(found) = at_node {
            findings.push(found);
        }
        let ports = service.ports.iter().zip(&marks.ports).enumerate();
        for (index, (port, at)) in ports {
            let same = same_frontend(service, marks, port, &claim(*at), &mut frontends);
            for found in same {
                findings.push(found.at_path(format!("spec.ports[{index}]")));
            }
        }
    }
}

/// What to say of one port; once for each other Service, at however many addresses.
fn same_frontend<'a>(
    service: &Service,
    marks: &ServiceMarks,
    port: &ServicePort,
    claim: &Claim<'a>,
    frontends: &mut BTreeMap<Frontend, Claim<'a>>,
) -> Vec<Diagnostic> {
    let ServicePort {
        name: _,
        protocol,
        port,
        target: _,
        node_port,
    } = port;
    let addresses = marks.addresses.keys();
    let own = addresses.map(|address| Frontend::Address(*address, *protocol, *port));
    let of_nodes = node_port.map(|port| Frontend::NodePort(*protocol, port));
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for frontend in own.chain(of_nodes) {
        let first = frontends.entry(frontend).or_insert(*claim);
        if let Owner::Service(other) = first.owner
            && *other != service.name
            && told.insert(other)
        {
            let message = format!(
                "{frontend} of {} is also that of {} at {}",
                claim.owner,
                first.owner,
                first.place()
            );
            let (severity, hint) = (
                Severity::Warning,
                "a connection passes only if policy permits the backends of both",
            );
            let one = Diagnostic::new(severity, claim.file, claim.at, FRONTEND, message);
            found.push(one.with_hint(hint));
        }
    }
    found
}

fn shared(address: IpAddr, claim: &Claim<'_>, first: &Claim<'_>) -> Diagnostic {
    let Claim { owner, file, at } = claim;
    let message = format!(
        "address `{address}` of {owner} is also that of {} at {}",
        first.owner,
        first.place()
    );
    Diagnostic::new(Severity::Warning, file, *at, ADDRESS, message)
}

// === impl Claim ===

impl Claim<'_> {
    fn place(&self) -> String {
        let Self { owner: _, file, at } = self;
        format!("{file}:{}:{}", at.line, at.column)
    }
}

// === impl Owner ===

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload(name) => write!(f, "workload `{name}`"),
            Self::Node(name) => write!(f, "node `{name}`"),
            Self::Service(name) => write!(f, "Service `{name}`"),
        }
    }
}

// === impl Frontend ===

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address, protocol, port) => write!(f, "`{address}` {protocol}/{port}"),
            Self::NodePort(protocol, port) => write!(f, "node port {protocol}/{port}"),
        }
    }
}
