//! Parsed files to one world: what no file can know alone.
//!
//! Two steps on purpose. [`parse_file`] looks at one file, so that a daemon can keep the last good
//! version of each; [`assemble`] takes the versions in force and finds what is wrong between them.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

pub use crate::parse::{ParsedFile, parse_file};

mod changes;

pub use self::changes::changes;
use crate::{
    diagnostic::{Diagnostic, Position, Severity},
    lint,
    model::{EndpointSpec, Failsafe, NetworkPolicy, ObjectName, TierPolicy, Workload, World},
    parse::{Declared, WorkloadMarks},
    yaml::quote,
};

/// The label that every namespace carries.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Clone, Debug)]
pub struct InputFile {
    /// As diagnostics shall name it.
    pub name: Arc<str>,
    pub bytes: Vec<u8>,
}

/// A world and all that is wrong with it; not to be used if there is an error among that.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub world: World,
    /// Sorted by file, then by place.
    pub diagnostics: Vec<Diagnostic>,
}

impl Loaded {
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

pub fn load(files: impl IntoIterator<Item = InputFile>) -> Loaded {
    let parsed: Vec<_> = files
        .into_iter()
        .map(|InputFile { name, bytes }| parse_file(name, &bytes))
        .collect();
    let (world, mut diagnostics) = assemble(&parsed);
    diagnostics.extend(parsed.into_iter().flat_map(|file| file.diagnostics));
    Diagnostic::sort(&mut diagnostics);
    Loaded { world, diagnostics }
}

/// Puts the objects of all files together.
///
/// Gives only the problems *between* objects, sorted; those of each file are in the file.
pub fn assemble(files: &[ParsedFile]) -> (World, Vec<Diagnostic>) {
    assemble_with(files, Vec::new())
}

/// As [`assemble`], with the failsafe, which no file of policies can speak about.
pub fn assemble_with(files: &[ParsedFile], failsafe: Vec<Failsafe>) -> (World, Vec<Diagnostic>) {
    let (world, mut problems) = put_together(files, failsafe);
    let broken =
        files.iter().any(ParsedFile::has_errors) || problems.iter().any(Diagnostic::is_error);
    if !broken {
        // With objects missing, "selects nothing" would be said of policies that are right.
        lint::run(&world, files, &mut problems);
    }
    Diagnostic::sort(&mut problems);
    (world, problems)
}

/// As [`assemble_with`], without the lints, which find nothing but doubts: for who asks again with each
/// change, and only for what is wrong.
pub fn assemble_again<'f>(
    files: impl IntoIterator<Item = &'f ParsedFile>,
    failsafe: Vec<Failsafe>,
) -> (World, Vec<Diagnostic>) {
    let (world, mut problems) = put_together(files, failsafe);
    Diagnostic::sort(&mut problems);
    (world, problems)
}

/// The world of [`assemble_again`] once these files are in the place of those, where that follows from the one
/// before without looking at all other objects: policies have changed, and nothing else. `None` where it
/// does not, and where something is wrong.
///
/// `world` must be of files between which nothing is wrong.
pub fn assemble_changed<'f>(
    world: &World,
    removed: impl IntoIterator<Item = &'f ParsedFile>,
    added: impl IntoIterator<Item = &'f ParsedFile>,
) -> Option<World> {
    let removed = policies(removed)?;
    let added = policies(added)?;
    // A namespace goes with the last object that names it, and who knows which that is.
    let is_named = |namespace: &str| {
        added
            .iter()
            .any(|policy| policy.namespace() == Some(namespace))
    };
    let mut left = removed.iter().filter_map(|policy| policy.namespace());
    if !left.all(is_named) {
        return None;
    }
    let mut assembly = Assembly {
        world: world.clone(),
        ..Assembly::default()
    };
    for policy in removed {
        match policy {
            Policy::Network(policy) => assembly
                .world
                .network_policies
                .remove(&policy.name)
                .map(drop),
            Policy::Tier(policy) => assembly.world.tier_policies.remove(&policy.id).map(drop),
        }?;
    }
    for policy in added {
        let old = match policy {
            Policy::Network(policy) => {
                assembly.namespace(&policy.name.namespace);
                let policies = &mut assembly.world.network_policies;
                policies
                    .insert(policy.name.clone(), Arc::clone(policy))
                    .map(drop)
            }
            Policy::Tier(policy) => {
                let policies = &mut assembly.world.tier_policies;
                policies
                    .insert(policy.id.clone(), Arc::clone(policy))
                    .map(drop)
            }
        };
        if old.is_some() {
            // Declared twice.
            return None;
        }
    }
    Some(assembly.world)
}

#[derive(Clone, Copy)]
enum Policy<'f> {
    Network(&'f Arc<NetworkPolicy>),
    Tier(&'f Arc<TierPolicy>),
}

impl Policy<'_> {
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Network(policy) => Some(&policy.name.namespace),
            Self::Tier(_) => None,
        }
    }
}

/// All objects of these files, if they are policies.
fn policies<'f>(files: impl IntoIterator<Item = &'f ParsedFile>) -> Option<Vec<Policy<'f>>> {
    let objects = files.into_iter().flat_map(|file| &file.objects);
    objects
        .map(|object| match &object.declared {
            Declared::Policy { policy, uses: _ } => Some(Policy::Network(policy)),
            Declared::TierPolicy { policy, uses: _ } => Some(Policy::Tier(policy)),
            Declared::Namespace { .. }
            | Declared::Workload { .. }
            | Declared::Node { .. }
            | Declared::Service { .. }
            | Declared::Test(_)
            | Declared::NameTable { .. } => None,
        })
        .collect()
}

fn put_together<'f>(
    files: impl IntoIterator<Item = &'f ParsedFile>,
    failsafe: Vec<Failsafe>,
) -> (World, Vec<Diagnostic>) {
    let mut assembly = Assembly::default();
    assembly.world.failsafe = Arc::new(failsafe);
    for file in files {
        for object in &file.objects {
            assembly.add(&file.name, object.at, &object.declared);
        }
    }
    let Assembly {
        world, problems, ..
    } = assembly;
    (world, problems)
}

type Place = (Arc<str>, Position);

#[derive(Default)]
struct Assembly {
    world: World,
    problems: Vec<Diagnostic>,
    /// First places, by kind and name.
    objects: BTreeMap<(&'static str, String), (Place, &'static str)>,
    addresses: BTreeMap<IpAddr, Place>,
    /// By the node; a workload that names none is on every node.
    endpoints: BTreeMap<EndpointSpec, BTreeMap<Option<String>, (Place, ObjectName)>>,
}

impl Assembly {
    fn add(&mut self, file: &Arc<str>, at: Position, declared: &Declared) {
        let place = (Arc::clone(file), at);
        match declared {
            Declared::Namespace { name, labels } => {
                if self.is_first("namespace", "namespace", name, &place) {
                    let known = self.world.namespaces.entry(name.clone()).or_default();
                    Arc::make_mut(known).extend(labels.clone());
                    self.namespace(name);
                }
            }
            Declared::Workload { workload, marks } => self.add_workload(workload, marks, &place),
            Declared::Node { node, addresses: _ } => {
                if self.is_first("node", "node", &node.name, &place) {
                    self.world.nodes.insert(node.name.clone(), Arc::clone(node));
                }
            }
            Declared::Service { service, marks: _ } => {
                self.namespace(&service.name.namespace);
                if self.is_first("service", "service", &service.name, &place) {
                    self.world
                        .services
                        .insert(service.name.clone(), Arc::clone(service));
                }
            }
            Declared::Policy { policy, uses: _ } => {
                self.namespace(&policy.name.namespace);
                if self.is_first("policy", "NetworkPolicy", &policy.name, &place) {
                    self.world
                        .network_policies
                        .insert(policy.name.clone(), Arc::clone(policy));
                }
            }
            Declared::TierPolicy { policy, uses: _ } => {
                let kind = policy.id.kind.name();
                if self.is_first(kind, kind, &policy.id, &place) {
                    self.world
                        .tier_policies
                        .insert(policy.id.clone(), Arc::clone(policy));
                }
            }
            // Nothing is enforced by it; that two are not mixed up in a report is all there is to say.
            Declared::Test(test) => {
                self.is_first("policy test", "PolicyTest", &test.name, &place);
            }
            Declared::NameTable { name, names } => {
                if self.is_first("name table", "NameTable", name, &place) {
                    self.add_names(names);
                }
            }
        }
    }

    /// Tables do not contradict one another: each says some of the addresses.
    fn add_names(&mut self, names: &BTreeMap<String, BTreeSet<IpAddr>>) {
        for (name, addresses) in names {
            let known = self.world.names.entry(name.clone()).or_default();
            Arc::make_mut(known).extend(addresses);
        }
    }

    fn add_workload(&mut self, workload: &Arc<Workload>, marks: &WorkloadMarks, place: &Place) {
        self.namespace(&workload.name.namespace);
        let kind = match workload.kind {
            crate::model::WorkloadKind::Pod => "pod",
            crate::model::WorkloadKind::Workload => "workload",
        };
        // Pods and workloads share their names, because policies select both alike.
        if !self.is_first("workload", kind, &workload.name, place) {
            return;
        }
        let (file, _) = place;
        if workload.owns_its_addresses() {
            for (address, at) in &marks.addresses {
                self.own_address(*address, &workload.name, (Arc::clone(file), *at));
            }
        }
        if let (Some(endpoint), Some(at)) = (&workload.endpoint, marks.endpoint) {
            self.use_endpoint(endpoint, workload, (Arc::clone(file), at));
        }
        self.world
            .workloads
            .insert(workload.name.clone(), Arc::clone(workload));
    }

    /// Makes sure that a namespace is there and carries its name as a label.
    fn namespace(&mut self, name: &str) {
        let labels = self.world.namespaces.entry(name.to_owned()).or_default();
        // Not what an object says: the API server overwrites it too.
        Arc::make_mut(labels).insert(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned());
    }

    fn is_first(
        &mut self,
        family: &'static str,
        kind: &'static str,
        name: &impl ToString,
        place: &Place,
    ) -> bool {
        match self.objects.entry((family, name.to_string())) {
            Entry::Vacant(entry) => {
                entry.insert((place.clone(), kind));
                true
            }
            Entry::Occupied(entry) => {
                let (first, first_kind) = entry.get();
                let message = format!(
                    "{kind} `{}` is declared twice, first as {first_kind} at {}",
                    name.to_string(),
                    shown(first)
                );
                self.problems
                    .push(error(place, "duplicate-object", message));
                false
            }
        }
    }

    fn own_address(&mut self, address: IpAddr, owner: &ObjectName, place: Place) {
        match self.addresses.entry(address) {
            Entry::Vacant(entry) => {
                entry.insert(place);
                self.world.addresses.insert(address, owner.clone());
            }
            Entry::Occupied(entry) => {
                let first = self.world.addresses.get(&address);
                let first = first.map(ToString::to_string).unwrap_or_default();
                let message = format!(
                    "address `{address}` of `{owner}` is also that of `{first}` at {}",
                    shown(entry.get())
                );
                let hint = "an address must lead to one workload";
                self.problems
                    .push(error(&place, "address-owned-twice", message).with_hint(hint));
            }
        }
    }

    fn use_endpoint(&mut self, endpoint: &EndpointSpec, workload: &Workload, place: Place) {
        let (owner, node) = (&workload.name, &workload.node);
        let known = self.endpoints.entry(endpoint.clone()).or_default();
        // Names of interfaces and units are those of a node, and the same on many.
        let first = match node {
            None => known.values().next(),
            Some(_) => known.get(node).or_else(|| known.get(&None)),
        };
        let Some((first, first_owner)) = first else {
            known.insert(node.clone(), (place, owner.clone()));
            return;
        };
        let (form, name) = match endpoint {
            EndpointSpec::Interface(name) => ("interface", name),
            EndpointSpec::Netns(name) => ("network namespace", name),
            EndpointSpec::Cgroup(name) => ("cgroup", name),
            EndpointSpec::SystemdUnit(name) => ("systemd unit", name),
        };
        let message = format!(
            "{form} {} of `{owner}` is also that of `{first_owner}` at {}",
            quote(name),
            shown(first)
        );
        let found = error(&place, "endpoint-used-twice", message);
        let same = known.contains_key(node);
        self.problems.push(if same {
            found
        } else {
            found.with_hint("name the node of each in `spec.node`, if they are on different ones")
        });
    }
}

fn error(place: &Place, code: &'static str, message: String) -> Diagnostic {
    let (file, at) = place;
    Diagnostic::new(Severity::Error, file, *at, code, message)
}

fn shown((file, at): &Place) -> String {
    format!("{file}:{}:{}", at.line, at.column)
}
