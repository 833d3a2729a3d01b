//! Who is there, made to be selected from thousands of times.
//!
//! Workloads with the same namespace, labels and nature are one group: they are many, and what
//! selectors can tell apart is few.

mod indexed;

use std::collections::{HashMap, HashSet};

use self::indexed::Indexed;
pub(super) use self::indexed::Selected;
use super::labels::matches;
use crate::model::{
    EndpointSpec, Labels, NamespaceScope, Node, Selector, Subjects, Workload, World,
};

#[derive(Debug)]
pub(super) struct Inventory<'a> {
    pub(super) world: &'a World,
    groups: Indexed<'a, Group<'a>>,
    /// The groups of each namespace.
    of_namespace: HashMap<&'a str, Vec<usize>>,
    of_endpoint: HashMap<&'a EndpointSpec, Vec<usize>>,
    namespaces: Indexed<'a, &'a str>,
    nodes: Indexed<'a, &'a Node>,
    /// The ends of known names, each from a dot on.
    ends_of_names: HashSet<&'a str>,
}

/// Workloads that no selector tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Group<'a> {
    namespace: &'a str,
    labels: &'a Labels,
    host_network: bool,
    owns_its_addresses: bool,
    /// Of a cgroup or a unit, which policies name.
    endpoint: Option<&'a EndpointSpec>,
}

/// Whom a selector of peers finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nobody,
    /// Only workloads that share the addresses of their nodes, and so are no peers of their own.
    OnTheirNodes,
    Peers,
}

fn ends(name: &str) -> impl Iterator<Item = &str> {
    let dots = name.match_indices('.');
    dots.filter_map(|(at, _)| name.get(at..))
}

// === impl Inventory ===

impl<'a> Inventory<'a> {
    pub(super) fn of(world: &'a World) -> Self {
        let mut numbers: HashMap<Group<'_>, usize> = HashMap::new();
        let mut of_endpoint: HashMap<&EndpointSpec, Vec<usize>> = HashMap::new();
        let mut of_namespace: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut groups = Vec::new();
        for workload in world.workloads.values() {
            let group = Group::of(workload);
            let number = *numbers.entry(group).or_insert_with(|| {
                let of_namespace = of_namespace.entry(group.namespace).or_default();
                of_namespace.push(groups.len());
                groups.push((group.labels, group));
                groups.len() - 1
            });
            if let Some(endpoint) = group.endpoint {
                of_endpoint.entry(endpoint).or_default().push(number);
            }
        }
        let namespaces = world.namespaces.iter();
        let nodes = world.nodes.values();
        Self {
            world,
            groups: Indexed::new(groups),
            of_namespace,
            of_endpoint,
            namespaces: Indexed::new(
                namespaces.map(|(name, labels)| (labels.as_ref(), name.as_str())),
            ),
            nodes: Indexed::new(nodes.map(|node| (node.labels.as_ref(), node.as_ref()))),
            ends_of_names: world.names.keys().flat_map(|name| ends(name)).collect(),
        }
    }

    pub(super) fn has_workloads(&self) -> bool {
        !self.groups.things.is_empty()
    }

    pub(super) fn has_nodes(&self) -> bool {
        !self.nodes.things.is_empty()
    }

    /// Whether it tells who the subjects are.
    pub(super) fn knows(&self, subjects: &Subjects) -> bool {
        match subjects {
            Subjects::Nodes(_) => self.has_nodes(),
            Subjects::Workloads { .. } | Subjects::Units(_) | Subjects::Cgroups(_) => {
                self.has_workloads()
            }
        }
    }

    pub(super) fn selects_workload(&self, namespace: &str, selector: &Selector) -> bool {
        self.in_namespace(namespace, selector)
            .any(|(_, group)| !group.host_network)
    }

    pub(super) fn node(&self, selector: &'a Selector) -> Option<&'a Node> {
        self.nodes.matching(selector).next().map(|(_, node)| *node)
    }

    pub(super) fn nodes(&self, selector: &'a Selector) -> impl Iterator<Item = &'a Node> {
        self.nodes.matching(selector).map(|(_, node)| *node)
    }

    /// Whether a name of a peer stands for any known one.
    pub(super) fn knows_name(&self, pattern: &str) -> bool {
        match pattern.strip_prefix('*') {
            None => self.world.names.contains_key(pattern),
            Some(end) => self.ends_of_names.contains(end),
        }
    }

    /// Whether some workload is the unit or the cgroup.
    pub(super) fn has_endpoint(&self, endpoint: &EndpointSpec) -> bool {
        !self.with_endpoint(endpoint).is_empty()
    }

    fn with_endpoint(&self, endpoint: &EndpointSpec) -> &[usize] {
        let found = self.of_endpoint.get(endpoint);
        found.map_or(&[][..], Vec::as_slice)
    }

    /// The workloads a peer selects: whether there are any, and whether any has an own address.
    pub(super) fn peers(&self, scope: &'a NamespaceScope, selector: &'a Selector) -> Found {
        let mut found = Found::Nobody;
        let mut see = |group: &Group<'_>| {
            found = if group.owns_its_addresses {
                Found::Peers
            } else {
                Found::OnTheirNodes
            };
            found == Found::Peers
        };
        match scope {
            NamespaceScope::Named(name) => {
                self.in_namespace(name, selector)
                    .any(|(_, group)| see(group));
            }
            NamespaceScope::Matching(namespaces) => {
                self.in_namespaces(namespaces, selector)
                    .any(|(_, group)| see(group));
            }
        }
        found
    }

    /// Whether a policy is about anybody.
    pub(super) fn selects(&self, subjects: &'a Subjects) -> bool {
        match subjects {
            Subjects::Workloads {
                namespaces,
                workloads,
                host_network,
            } => self
                .in_namespaces(namespaces, workloads)
                .any(|(_, group)| *host_network || !group.host_network),
            Subjects::Nodes(selector) => self.node(selector).is_some(),
            // As many as are named.
            Subjects::Units(_) | Subjects::Cgroups(_) => !self.selected(subjects).is_empty(),
        }
    }

    /// Everybody whom a policy is about.
    pub(super) fn selected(&self, subjects: &'a Subjects) -> Selected {
        let mut selected = Selected::default();
        match subjects {
            Subjects::Workloads {
                namespaces,
                workloads,
                host_network,
            } => {
                for (number, group) in self.in_namespaces(namespaces, workloads) {
                    if *host_network || !group.host_network {
                        selected.insert(number);
                    }
                }
            }
            Subjects::Units(names) => {
                for name in names {
                    let unit = EndpointSpec::SystemdUnit(name.clone());
                    for number in self.with_endpoint(&unit) {
                        selected.insert(*number);
                    }
                }
            }
            Subjects::Cgroups(names) => {
                for name in names {
                    let cgroup = EndpointSpec::Cgroup(name.clone());
                    for number in self.with_endpoint(&cgroup) {
                        selected.insert(*number);
                    }
                }
            }
            Subjects::Nodes(selector) => {
                // Behind the workloads, so that a node is never taken for one.
                for (number, _) in self.nodes.matching(selector) {
                    selected.insert(self.groups.things.len() + number);
                }
            }
        }
        selected
    }

    /// Whether somebody whom a policy is about shares the addresses of a node.
    pub(super) fn shares_addresses(&self, selected: &Selected) -> bool {
        selected.numbers().any(|number| {
            let group = self.groups.things.get(number);
            // Behind the workloads are the nodes, which have nothing else.
            group.is_none_or(|(_, group)| !group.owns_its_addresses)
        })
    }

    fn in_namespace<'s>(
        &'s self,
        namespace: &str,
        selector: &'s Selector,
    ) -> impl Iterator<Item = (usize, &'s Group<'a>)> {
        let groups = self
            .of_namespace
            .get(namespace)
            .map_or(&[][..], Vec::as_slice);
        groups.iter().filter_map(move |number| {
            let (labels, group) = self.groups.things.get(*number)?;
            matches(selector, labels).then_some((*number, group))
        })
    }

    fn in_namespaces<'s>(
        &'s self,
        namespaces: &'s Selector,
        selector: &'s Selector,
    ) -> Box<dyn Iterator<Item = (usize, &'s Group<'a>)> + 's> {
        let fits = |(_, group): &(usize, &'s Group<'a>)| {
            let labels = self.world.namespaces.get(group.namespace);
            labels.is_some_and(|labels| matches(namespaces, labels))
        };
        // Whichever says more; of namespaces there are fewer than of what is in them.
        if self.namespaces.bound(namespaces) < self.groups.bound(selector) {
            let chosen = self.namespaces.matching(namespaces);
            Box::new(chosen.flat_map(|(_, name)| self.in_namespace(name, selector)))
        } else {
            Box::new(self.groups.matching(selector).filter(fits))
        }
    }
}

// === impl Group ===

impl<'a> Group<'a> {
    fn of(workload: &'a Workload) -> Self {
        Self {
            namespace: &workload.name.namespace,
            labels: &workload.labels,
            host_network: workload.host_network,
            owns_its_addresses: workload.owns_its_addresses(),
            endpoint: workload.endpoint.as_ref().filter(|endpoint| {
                matches!(
                    endpoint,
                    EndpointSpec::Cgroup(_) | EndpointSpec::SystemdUnit(_)
                )
            }),
        }
    }
}
